"""The server answers what it should, and refuses everything else with a reason and never a 500.

S01 to S13 are cases of faults, each in one test or several.
"""

import base64
import hashlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode, checks
from typer.testing import CliRunner

from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.cli.app import app as command_line
from regraft.deploy.export import write_deployed
from regraft.deploy.guard import ServeSettings, is_loopback
from regraft.deploy.server import Served, make_app, serve_until_stopped
from regraft.errors import ModelError, UsageError
from samples import SMALL, photograph, saved
from serving import CLASSES, Held, brightness, said, serving, wait_until

TOKEN = "a-token-of-some-length"
LIGHT = saved(Image.new("RGB", (40, 30), (230, 230, 230)))


@pytest.fixture(scope="module")
def client():
    with serving(max_bytes=1 << 20, max_images=8) as client:
        yield client


def form(*images, field="images"):
    return [(field, (f"{n}.png", data)) for n, data in enumerate(images)]


def code_of(answer):
    """Return the code of a refusal, which says nothing of the inside."""
    told = answer.json()
    assert 400 <= answer.status_code < 500, told
    assert set(told) <= {"code", "message", "error"}
    assert not re.search(r"Traceback|\.py|/(usr|home|work|tmp)/", answer.text)
    return answer.status_code, told["code"]


# ---- what it answers ---------------------------------------------------------------------------


def test_images_of_a_form_are_answered_in_their_order(client):
    dark = saved(Image.new("RGB", (40, 30), (51, 51, 51)), "JPEG")

    answer = client.post("/predict", params={"top": 1}, files=form(LIGHT, dark))

    assert answer.status_code == 200
    told = answer.json()
    assert told["model"] == "tiny"
    assert [row["file"] for row in told["images"]] == ["0.png", "1.png"]
    assert [row["top"][0]["label"] for row in told["images"]] == ["light", "dark"]
    assert [row["top"][0]["probability"] for row in told["images"]] == pytest.approx(
        [0.9, 0.8], abs=0.01
    )
    assert [len(row["top"]) for row in told["images"]] == [1, 1]


def test_of_several_images_the_good_ones_are_answered_beside_the_bad(client):
    answer = client.post("/predict", files=form(b"x", LIGHT))

    bad, good = answer.json()["images"]
    assert answer.status_code == 200
    assert (bad["file"], bad["error"]) == ("0.png", "IMG-NOT-AN-IMAGE")
    assert good["top"][0]["label"] == "light"


def test_what_a_model_knows_beside_its_classes_passes_through():
    near = [{"label": "dark", "distance": 0.2, "image": "data:image/jpeg;base64,AA=="}]
    more = {"unknown": True, "labels": ["dark", "light"], "nearest": near, "typicality": 0.1}

    with serving(lambda images: [row | more for row in brightness(images)]) as client:
        (row,) = client.post("/predict", files=form(LIGHT)).json()["images"]

    assert {key: row[key] for key in more} == more


def test_what_speaks_for_a_class_is_shown_where_maps_are_wanted(client):
    def maps(image, label):
        return f"data:,{image.size}", f"data:,{label}"

    with serving(maps=maps) as other:
        assert other.post("/predict", files=form(LIGHT)).json()["maps"] is True
        shown = other.post("/map", params={"label": "dark"}, files=form(LIGHT))
        assert shown.json() == {"label": "dark", "view": "data:,(40, 30)", "map": "data:,dark"}
        unknown = other.post("/map", params={"label": "blue"}, files=form(LIGHT))
        assert code_of(unknown) == (422, "REQUEST-VALUE")
        bad = other.post("/map", params={"label": "dark"}, files=form(b"text"))
        assert code_of(bad) == (422, "IMG-NOT-AN-IMAGE")

    assert client.post("/predict", files=form(LIGHT)).json()["maps"] is False
    assert code_of(client.post("/map", files=form(LIGHT)))[0] == 404


def infer(client, tensor, **more):
    body = {"inputs": [{"name": "image", **tensor}], **more}
    return client.post("/v2/models/tiny/infer", json=body)


def in_base64(*files):
    data = [base64.b64encode(file).decode() for file in files]
    return {"datatype": "BYTES", "shape": [len(data)], "data": data}


def test_the_inference_protocol_takes_files_and_pixels(client):
    pixels = np.full((3, 2, 3), 230)

    files = infer(client, in_base64(LIGHT, LIGHT), id="seven").json()
    flat = {"datatype": "UINT8", "shape": [3, 2, 3], "data": pixels.ravel().tolist()}
    nested = flat | {"data": pixels.tolist()}
    named = [infer(client, one, outputs=[{"name": "label"}]).json() for one in (flat, nested)]

    assert (files["model_name"], files["id"]) == ("tiny", "seven")
    probabilities, label = files["outputs"]
    assert (probabilities["shape"], probabilities["datatype"]) == ([2, 2], "FP64")
    assert probabilities["data"] == pytest.approx([0.098, 0.902] * 2, abs=0.001)
    assert label == {"name": "label", "shape": [2], "datatype": "BYTES", "data": ["light"] * 2}
    assert [one["outputs"] for one in named] == [[{**label, "shape": [1], "data": ["light"]}]] * 2


@pytest.mark.parametrize(
    "tensor",
    [
        {"datatype": "BYTES", "shape": [1], "data": ["no base64!"]},
        {"datatype": "BYTES", "shape": [1], "data": [7]},
        {"datatype": "BYTES", "shape": [2], "data": ["eA=="]},
        {"datatype": "BYTES", "shape": [9], "data": ["eA=="] * 9},
        {"datatype": "UINT8", "shape": [1, 1, 3], "data": [0, 0, 256]},
        {"datatype": "UINT8", "shape": [1, 1, 3], "data": [0, 0, -1]},
        {"datatype": "UINT8", "shape": [1, 1, 3], "data": [0, 0, 0.5]},
        {"datatype": "UINT8", "shape": [1, 1, 3], "data": [0, 0, 10**30]},
        {"datatype": "UINT8", "shape": [1, 1, 3], "data": [0, [0], 0]},
        {"datatype": "UINT8", "shape": [1, 1, 3], "data": []},
        {"datatype": "UINT8", "shape": [3], "data": [0, 0, 0]},
        {"datatype": "UINT8", "shape": [10**9, 10**9, 3], "data": [0, 0, 0]},
        {"datatype": "FP32", "shape": [1, 1, 3], "data": [0, 0, 0]},
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(client, tensor):
    answer = infer(client, tensor)

    assert code_of(answer) == (422, "REQUEST-VALUE")
    assert answer.json()["error"] == answer.json()["message"]  # as the protocol has it


def test_the_inference_protocol_describes_server_and_model(client):
    assert client.get("/v2").json()["name"] == "regraft"
    facts = client.get("/v2/models/tiny").json()
    assert facts["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert facts["outputs"][0]["shape"] == [-1, len(CLASSES)]
    assert code_of(client.get("/v2/models/other")) == (404, "REQUEST-PATH")


def test_prometheus_finds_what_became_of_requests_and_images():
    with serving() as client:
        client.post("/predict", files=form(LIGHT, LIGHT, b""))
        client.get("/made/up/1")
        client.get("/made/up/2")
        text = client.get("/metrics").text

    assert 'regraft_requests_total{path="/predict",status="200"} 1.0' in text
    assert 'regraft_requests_total{path="other",status="404"} 2.0' in text
    assert 'regraft_images_total{code="OK"} 2.0' in text
    assert 'regraft_images_total{code="IMG-EMPTY"} 1.0' in text
    assert "regraft_batch_images_sum 2.0" in text
    assert "regraft_images_waiting 0.0" in text


def test_the_page_may_load_nothing_from_elsewhere(client):
    answer = client.get("/")

    policy = answer.headers["content-security-policy"]
    script = re.search(r"<script>(.*)</script>", answer.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "://" not in answer.text
    for path in ("/docs", "/redoc"):
        assert code_of(client.get(path)) == (404, "REQUEST-PATH")


# ---- what it refuses ---------------------------------------------------------------------------


def head(client, *lines):
    host = f"Host: {client.base_url.netloc.decode()}"
    return "\r\n".join(("POST /predict HTTP/1.1", host, *lines, "", "")).encode()


def test_s01_a_body_over_the_limit_is_refused_whether_declared_or_in_chunks(client):
    declared = said(client, head(client, "Content-Length: 300000000"))
    block = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    chunked = said(client, head(client, "Transfer-Encoding: chunked"), *[block] * 40)
    sent_whole = client.post("/predict", files=form(bytes(3 << 20)))

    assert "413" in declared.splitlines()[0]
    assert "REQUEST-TOO-LARGE" in declared
    assert "413" in chunked.splitlines()[0]
    assert code_of(sent_whole) == (413, "REQUEST-TOO-LARGE")


def test_s01_a_slow_body_is_refused():
    with serving(max_seconds=0.3) as client:
        slow = said(client, head(client, "Content-Length: 9"), *[b"x"] * 9, pause=0.1)

    assert "408" in slow.splitlines()[0]
    assert "REQUEST-SLOW" in slow


def test_s01_many_bodies_at_a_time_cannot_fill_the_memory():
    with serving(max_bytes=1000) as client:
        begun = [
            socket.create_connection((client.base_url.host, client.base_url.port), 30)
            for _ in range(8)
        ]
        for wire in begun:
            wire.sendall(head(client, "Content-Length: 1000") + bytes(999))
        wait_until(lambda: client.post("/predict", content=bytes(900)).status_code == 503)
        for wire in begun:
            wire.close()
        wait_until(lambda: client.post("/predict", content=bytes(900)).status_code == 415)


def png_of(width, height):
    """Return a file of few bytes that says it has so many pixels."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


PHOTOGRAPH = saved(photograph(), "JPEG")
BAD_IMAGES = {
    "empty": (b"", "IMG-EMPTY"),
    "page": (b"<!DOCTYPE html><title>404</title>", "IMG-NOT-AN-IMAGE"),
    "text": (b"text", "IMG-NOT-AN-IMAGE"),
    "cut": (PHOTOGRAPH[: len(PHOTOGRAPH) // 2], "IMG-TRUNCATED"),
    "checksum": (LIGHT[:40] + bytes([LIGHT[40] ^ 1]) + LIGHT[41:], "IMG-CORRUPT"),
    "bomb": (png_of(50_000, 50_000), "IMG-TOO-LARGE"),
    "thin": (saved(Image.new("L", (1, 30_000))), "IMG-ASPECT"),
    "drawing": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "IMG-FORMAT"),
    "numbers": (saved(Image.new("F", (4, 4)), "TIFF"), "IMG-RANGE"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_s02_a_bad_image_is_refused_with_its_code(client, name):
    data, code = BAD_IMAGES[name]

    assert code_of(client.post("/predict", files=form(data))) == (422, code)
    assert code_of(infer(client, in_base64(data))) == (422, code)


def test_s02_of_a_file_only_the_name_that_the_client_gave_is_repeated(client):
    names = ["/etc/passwd", "..\\..\\windows\\a.png", "\x1b[31mred.png", "x" * 5000, "/"]

    for name in names:
        told = client.post("/predict", files=[("images", (name, b"text"))]).json()["message"]
        assert "/etc" not in told
        assert "\x1b" not in told
        assert len(told) < 300


@pytest.mark.parametrize("data", [bytes(range(256)) * 4, LIGHT[:50], PHOTOGRAPH[:-2]])
def test_s02_no_bytes_make_it_fail(client, data):
    assert code_of(client.post("/predict", files=form(data)))[0] == 422


PARTS = b"".join(
    b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\nx\r\n' for _ in range(1000)
)
HUGE = (
    b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\n'
    + bytes(500_000)
    + b"\r\n--b--\r\n"
)
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"json": {"images": []}}, 415),
        ({"content": LIGHT, "headers": {"Content-Type": "image/png"}}, 415),
        ({"content": b""}, 415),
        ({"files": form(LIGHT, field="other")}, 422),
        ({"files": form(*[LIGHT] * 9)}, 400),
        ({"content": PARTS + b"--b--\r\n", "headers": FORM}, 400),
        ({"content": HUGE, "headers": FORM}, 400),
        ({"content": b"--c\r\n\r\n", "headers": FORM}, 400),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        ({"content": b"--b", "headers": FORM}, 422),
        ({"files": form(LIGHT), "params": {"top": 0}}, 422),
        ({"files": form(LIGHT), "params": {"top": "many"}}, 422),
    ],
)
def test_s03_a_request_of_another_form_is_refused(client, request_, status):
    assert code_of(client.post("/predict", **request_))[0] == status


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "9" * 30, "+5"])
def test_s03_a_length_that_is_none_is_refused(client, length):
    answer = said(client, head(client, f"Content-Length: {length}"))

    assert re.match(r"HTTP/1.1 4\d\d ", answer)


@pytest.mark.parametrize(
    "address", ["http://169.254.169.254/", "file:///etc/passwd", "https://example.org/a.png"]
)
def test_s04_an_address_is_never_fetched(client, address, monkeypatch):
    reached, connect = set(), socket.socket.connect

    def recorded(self, to):
        reached.add(to)
        return connect(self, to)

    monkeypatch.setattr(socket.socket, "connect", recorded)

    assert code_of(client.post("/predict", data={"images": address}))[0] == 415
    field = [("images", (None, address))]
    assert code_of(client.post("/predict", files=field)) == (422, "REQUEST-VALUE")
    content = form(address.encode())
    assert code_of(client.post("/predict", files=content)) == (422, "IMG-NOT-AN-IMAGE")
    named = [("images", (address, b"text"))]
    assert code_of(client.post("/predict", files=named)) == (422, "IMG-NOT-AN-IMAGE")
    text = infer(client, {"datatype": "BYTES", "shape": [1], "data": [address]})
    assert code_of(text) == (422, "REQUEST-VALUE")
    assert {host for host, *_ in reached} <= {"127.0.0.1"}


def test_s05_what_the_queue_does_not_hold_is_told_when_to_ask_again():
    model = Held()
    with serving(model, room=4) as client, ThreadPoolExecutor(12) as people:
        model.hold()
        asked = [people.submit(client.post, "/predict", files=form(LIGHT)) for _ in range(12)]
        wait_until(lambda: sum(each.done() for each in asked) == 8)
        model.open.set()
        answers = [each.result() for each in asked]

    refused = [answer for answer in answers if answer.status_code == 503]
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [503] * 8
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert {answer.json()["code"] for answer in refused} == {"SERVER-BUSY"}


def test_s06_the_place_of_a_client_that_leaves_is_free():
    model = Held()
    with serving(model, room=1) as client:
        model.hold()
        body = client.build_request("POST", "/predict", files=form(LIGHT))
        lines = (f"Content-Length: {body.headers['content-length']}",)
        lines += (f"Content-Type: {body.headers['content-type']}",)
        with socket.create_connection((client.base_url.host, client.base_url.port)) as wire:
            wire.sendall(head(client, *lines) + body.read())
            wait_until(model.begun.is_set)
            assert client.post("/predict", files=form(LIGHT)).status_code == 503
        wait_until(lambda: "regraft_images_waiting 0.0" in client.get("/metrics").text)
        model.open.set()
        assert client.post("/predict", files=form(LIGHT)).status_code == 200


def test_s07_without_the_token_nothing_is_answered_but_the_page_and_health():
    with serving(token=TOKEN) as client:
        for wrong in ("", "Bearer", "Bearer wrong", "Bearer tökén", TOKEN, f"Basic {TOKEN}"):
            headers = {"Authorization": wrong.encode()}
            answer = client.post("/predict", files=form(LIGHT), headers=headers)
            assert code_of(answer) == (401, "REQUEST-TOKEN")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert client.get("/metrics", headers=headers).status_code == 401
            assert client.get("/openapi.json", headers=headers).status_code == 401
            for path in ("/", "/v2/health/live", "/v2/health/ready"):
                assert client.get(path, headers=headers).status_code == 200
        with mock.patch("hmac.compare_digest", side_effect=[True]) as compared:
            answer = client.post("/predict", files=form(LIGHT))

    assert answer.status_code == 200
    assert compared.call_args.args == (TOKEN.encode(), TOKEN.encode())  # takes as long for all


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "example.org"])
def test_s08_other_machines_are_not_served_without_a_token(host):
    with pytest.raises(UsageError) as refused:
        ServeSettings(host=host)

    assert refused.value.code == "USAGE-TOKEN"
    assert TOKEN not in repr(ServeSettings(host=host, token=TOKEN))


@pytest.mark.parametrize("token", ["", "short", "sixteen-and-tökén", "two\nlines-of-a-token"])
def test_s07_a_token_that_protects_nothing_is_refused_and_not_repeated(token):
    with pytest.raises(UsageError, match="the token cannot be used") as refused:
        ServeSettings(token=token)

    assert not token or token not in str(refused.value)


def test_s08_this_machine_is_recognised():
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))


def test_s09_readiness_is_that_of_the_model_and_life_that_of_the_server():
    model = Held()
    model.hold()
    with serving(model, path="/v2/health/live") as client:

        def ready():
            paths = ("/v2/health/ready", "/v2/models/tiny/ready")
            status = max(client.get(path).status_code for path in paths)
            assert client.get("/v2/health/live").json() == {"live": True}
            return status

        loading = ready(), client.post("/predict", files=form(LIGHT)).status_code
        model.open.set()
        wait_until(lambda: ready() == 200)
        model.broken = True
        failed = client.post("/predict", files=form(LIGHT))
        died = ready()
        model.broken = False
        wait_until(lambda: ready() == 200)

        assert loading == (503, 503)
        assert (failed.status_code, failed.json()["code"]) == (503, "SERVER-MODEL")
        assert "secret" not in failed.text
        assert died == 503
        assert client.post("/predict", files=form(LIGHT)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "evil.example:8000"},
        {"Host": "["},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_s11_other_pages_and_other_names_are_refused(client, headers):
    answer = client.post("/predict", files=form(LIGHT), headers=headers)

    assert code_of(answer)[0] == 403
    assert "access-control-allow-origin" not in answer.headers


def test_s11_its_own_page_and_names_that_were_allowed_are_answered():
    with serving(allow_host=("Flowers.example",)) as client:
        origin = str(client.base_url).rstrip("/")
        for headers in ({"Origin": origin}, {"Host": "flowers.example:80"}, {"Host": "localhost"}):
            assert client.post("/predict", files=form(LIGHT), headers=headers).status_code == 200
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert client.options("/predict", headers=asked).status_code == 405


def test_a_failure_that_nobody_foresaw_says_nothing_of_the_inside():
    failing = mock.patch("regraft.deploy.server._shown", side_effect=KeyError("/srv/secret"))
    with failing, serving() as client:
        answer = client.post("/predict", files=form(LIGHT))

    assert (answer.status_code, answer.json()["code"]) == (500, "SERVER-ERROR")
    assert "secret" not in answer.text


CHECKS = (
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
)
DESCRIBED = make_app(Served("tiny", CLASSES, brightness), ServeSettings()).openapi()["paths"]


FORBIDDEN = [path for path, methods in DESCRIBED.items() if "post" in methods]


@pytest.mark.parametrize(
    ("path", "mode"),
    [(path, GenerationMode.POSITIVE) for path in DESCRIBED]
    + [(path, GenerationMode.NEGATIVE) for path in FORBIDDEN],
)
def test_s12_whatever_the_description_allows_or_forbids_is_answered_as_it_says(client, path, mode):
    described = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
    (method,) = DESCRIBED[path]
    asked = described[path][method.upper()].as_strategy(generation_mode=mode)

    @settings(max_examples=40)
    @given(asked, st.booleans())
    def answered(case, is_known):
        if is_known and "name" in case.path_parameters:
            case.path_parameters["name"] = "tiny"
        case.call_and_validate(checks=CHECKS)

    answered()


# ---- as a process ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a run of which nothing but the deployed model is there."""
    folder = tmp_path_factory.mktemp("runs") / "shades"
    images = [np.full((32, 32, 3), shade, np.uint8) for shade in (20, 40, 220, 240)]
    learner = FeatureClassifier(SMALL, grid=None).fit(images, ["night", "night", "day", "day"])
    write_deployed(learner, folder / "model" / "deploy", images)
    return folder


@pytest.fixture
def process(run):
    """Return a server of its own, in which nothing that trains can be imported, and a client."""
    heavy = ["torch", "timm", "torchvision", "sklearn", "scipy", "matplotlib"]
    code = f"""
import sys
sys.modules.update(dict.fromkeys({heavy}))  # an import of them fails
sys.argv = ["regraft", "serve", {str(run)!r}, "--port", "0", "--max-bytes", "1000000"]
from regraft.cli import main
main()
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    server = subprocess.Popen([sys.executable, "-c", code], **pipes)
    address = server.stdout.readline().strip()
    try:
        with httpx.Client(base_url=address, timeout=30, trust_env=False) as client:
            wait_until(lambda: client.get("/v2/health/ready").status_code == 200)
            yield server, client
    finally:
        server.kill()
        server.communicate()


def memory(server):
    """Return the resident memory of a process, and the most that it has had, in bytes."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return [1024 * int(re.search(rf"{key}:\s+(\d+)", status)[1]) for key in ("VmRSS", "VmHWM")]


linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


@linux
def test_a_run_is_served_without_torch_and_what_is_too_large_is_not_kept(process):
    server, client = process
    assert (
        client.post("/predict", files=form(LIGHT)).json()["images"][0]["top"][0]["label"] == "day"
    )
    before = memory(server)[0]
    block = b"100000\r\n" + bytes(1 << 20) + b"\r\n"

    for _ in range(3):
        said(client, head(client, "Transfer-Encoding: chunked"), *[block] * 40)

    assert memory(server)[1] < before + (16 << 20)


@pytest.mark.skipif(os.name != "posix", reason="Windows has other signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_s10_the_end_waits_for_requests_that_have_begun(process, number, code):
    server, client = process
    request = client.build_request("POST", "/predict", files=form(LIGHT))
    body = request.read()
    lines = [f"{name}: {request.headers[name]}" for name in ("content-length", "content-type")]
    target = (client.base_url.host, client.base_url.port)
    with socket.create_connection(target) as begun:
        begun.sendall(head(client, *lines) + body[:20])
        time.sleep(0.3)

        server.send_signal(number)
        ended = time.monotonic()
        wait_until(lambda: is_closed(target))
        begun.sendall(body[20:])
        answer = begun.makefile("rb").read().decode()

    assert "200 OK" in answer.splitlines()[0]
    assert '"label":"day"' in answer
    _, errors = server.communicate(timeout=10)
    assert time.monotonic() - ended < 10
    assert server.returncode == code
    assert "Traceback" not in errors


def is_closed(target):
    try:
        socket.create_connection(target, 5).close()
    except ConnectionError:
        return True
    return False


@linux
@pytest.mark.slow
def test_s13_ten_thousand_requests_are_all_answered_in_the_same_memory(process):
    server, client = process
    bad = [data for data, _ in BAD_IMAGES.values()]

    def ask(number):
        data = LIGHT if number % 4 else bad[number // 4 % len(bad)]
        return client.post("/predict", files=form(data)).status_code

    with ThreadPoolExecutor(8) as people:
        assert {*people.map(ask, range(1000))} == {200, 422}
        before = memory(server)[0]
        statuses = list(people.map(ask, range(10_000)))

    assert (statuses.count(200), statuses.count(422)) == (7500, 2500)
    assert memory(server)[0] < 1.05 * before


# ---- the command -------------------------------------------------------------------------------


def command(*arguments):
    with mock.patch("regraft.deploy.server.serve_until_stopped") as served:
        texts = [str(argument) for argument in ("serve", *arguments)]
        result = CliRunner().invoke(command_line, texts, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    model, asked, _ = served.call_args.args
    return model, asked


def test_s07_the_token_comes_from_a_file_or_the_environment_and_from_no_argument(
    run, tmp_path, monkeypatch
):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    options = ("--host", "0.0.0.0", "--allow-host", "flowers.example")

    from_file = command(run, *options, "--token-file", tmp_path / "token")[1]
    monkeypatch.setenv("REGRAFT_TOKEN", TOKEN)
    from_environment = command(run / "model", *options)[1]

    assert from_file == from_environment
    assert (from_file.token, from_file.allow_host) == (TOKEN, ("flowers.example",))
    assert "--token " not in CliRunner().invoke(command_line, ["serve", "--help"]).stdout


def test_a_run_is_served_under_its_name(run):
    model, asked = command(run / "model")

    assert (model.name, model.classes) == ("shades", ("day", "night"))
    assert (asked.host, asked.token) == ("127.0.0.1", None)


def test_a_run_that_is_there_as_a_whole_can_show_maps(tmp_path):
    images = [np.full((32, 32, 3), shade, np.uint8) for shade in (20, 220)]
    learner = FeatureClassifier(SMALL, grid=None).fit(images, ["night", "day"])
    learner.save(tmp_path / "model")
    write_deployed(learner, tmp_path / "model" / "deploy", images)

    model, _ = command(tmp_path, "--maps")

    view, strength = model.maps(Image.fromarray(images[1]), "day")
    assert view.startswith("data:image/jpeg")
    assert strength.startswith("data:image/png")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--host", "0.0.0.0"), "USAGE-TOKEN"),
        (("--token-file", "missing"), "USAGE"),
        (("--token-file", os.devnull), "USAGE-TOKEN"),
    ],
)
def test_s08_the_command_refuses_what_would_be_open_to_others(run, arguments, code):
    with pytest.raises(UsageError) as refused:
        command(run, *arguments)

    assert refused.value.code == code


def test_a_run_without_a_deployed_model_is_told_how_it_gets_one(tmp_path):
    with pytest.raises(ModelError, match="regraft export RUN"):
        command(tmp_path)


def test_a_missing_extra_is_told_how_it_comes(run):
    missing = mock.patch.dict(sys.modules, {"regraft.deploy.guard": None})
    with missing, pytest.raises(UsageError, match=r"regraft\[serve\]") as refused:
        command(run)

    assert refused.value.code == "USAGE-EXTRA"


def test_a_port_that_is_taken_is_said(run):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = ServeSettings(port=other.getsockname()[1])
        with pytest.raises(UsageError, match="cannot listen"):
            serve_until_stopped(Served("tiny", CLASSES, brightness), taken, print)
