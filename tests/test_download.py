"""Downloads of one file: whole and right under its name, or absent; bounded in time and tries."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from regraft.download import Checksums, check_address, download, unreachable
from regraft.errors import DownloadError

DATA = bytes(range(256)) * 400
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = f"net-{SHA256[:8]}.pth"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr("regraft.download.PAUSE_SECONDS", 0.0)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / NAME


def is_all(target):
    return target.read_bytes() == DATA and list(target.parent.iterdir()) == [target]


def refused(url, target, *, tells=None, code="DOWNLOAD", **options):
    """Download what must be refused; nothing may stay."""
    with pytest.raises(DownloadError, match=tells) as refusal:
        download(url, target, verbose=False, **options)
    assert refusal.value.code == code
    assert not target.parent.exists() or list(target.parent.iterdir()) == []
    return refusal.value


def test_a_file_arrives_whole_under_its_name_also_by_a_redirect(web, target):
    web.serve("/mirror", DATA)
    url = web.serve(f"/{NAME}", b"", status=302, Location="/mirror")

    for named in (target, target.parent.with_name("other") / ("花" * 80)):
        assert download(url, named, verbose=False) == 0
        assert is_all(named)


@pytest.mark.parametrize("attempts", ["once", "always"])
def test_a_body_shorter_than_announced_is_asked_for_once_more_and_never_kept(attempts, web, target):
    url = web.serve(f"/{NAME}", DATA[:1000], Content_Length=str(len(DATA)))
    short = web.pages[f"/{NAME}"]
    web.serve(f"/{NAME}", DATA)
    web.in_turn(f"/{NAME}", short, web.pages[f"/{NAME}"] if attempts == "once" else short)

    if attempts == "once":
        download(url, target, verbose=False)
        assert is_all(target)
    else:
        error = refused(url, target, tells=f"1000 of {len(DATA)} bytes|broke")
        assert NAME in str(error)
    assert len(web.asked("GET")) == 2


@pytest.mark.parametrize(
    ("published", "told"),
    [
        (Checksums(sha256="0" * 64), {SHA256, "0" * 64}),
        (Checksums(size=7), {str(len(DATA)), " 7"}),
    ],
)
def test_a_file_that_is_not_the_published_one_is_refused_at_once_with_both_sums(
    published, told, web, target
):
    url = web.serve(f"/{NAME}", DATA)

    error = refused(url, target, checksums=published, resume=True, code="DOWNLOAD-CHECKSUM")

    assert all(sum_ in error.why for sum_ in told)
    assert len(web.asked("GET")) == 1


@pytest.mark.parametrize(("status", "tries"), [(403, 1), (404, 1), (429, 2), (500, 2), (503, 2)])
def test_errors_of_the_server_are_named_and_tried_again_only_where_it_helps(
    status, tries, web, target
):
    url = web.serve(f"/{NAME}", b"no", status=status)

    refused(url, target, tells=str(status))

    assert len(web.asked("GET")) == tries


def test_a_redirect_loop_ends_and_none_leads_to_a_local_file(web, target):
    url = web.serve(f"/{NAME}", b"", status=302, Location=f"/{NAME}")

    refused(url, target, tells="302")

    assert len(web.asked("GET")) <= 6
    refused(web.serve(f"/{NAME}", b"", status=302, Location="file:///etc/passwd"), target)


def test_open_addresses_elsewhere_are_refused_and_encrypted_ones_never_lead_to_one(target):
    for url in ("http://example.org/net.pth", "file:///etc/passwd", "net.pth"):
        refused(url, target, tells="unencrypted")
    for url in ("http://example.org/a", "http://127.0.0.1/a", "ftp://a.org/a"):
        with pytest.raises(DownloadError, match="unencrypted"):
            check_address(url, before="https://example.org/net.pth")


@pytest.mark.parametrize(
    ("body", "tells"),
    [
        (b"\n<!DOCTYPE html><html>Welcome, please sign in</html>", "web page"),
        (b"", "0 of 0 bytes"),
    ],
)
def test_neither_the_sign_in_page_of_a_hotel_nor_nothing_is_kept_as_weights(
    body, tells, web, target
):
    refused(web.serve(f"/{NAME}", body, Content_Length=None), target, tells=tells)


def test_a_server_that_drips_is_left_when_the_time_is_over(web, target):
    def drip(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        for byte in DATA:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.02)

    web.pages[f"/{NAME}"] = drip
    start = time.monotonic()

    refused(f"{web.url}/{NAME}", target, seconds=0.3, tells="longer than allowed")

    assert time.monotonic() - start < 20  # all of it would take half an hour


def test_a_server_that_hangs_up_or_stalls_is_named(web, target, monkeypatch):
    monkeypatch.setattr("regraft.download.READ_SECONDS", 0.2)
    web.pages["/hang-up"] = lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)
    web.pages["/stall"] = lambda _handler: time.sleep(0.6)

    for page in ("hang-up", "stall"):
        refused(f"{web.url}/{page}", target, tells="does not answer")


SCRIPT = """
import sys
from pathlib import Path
from regraft.download import download
target = Path(sys.argv[2])
download(sys.argv[1], target, resume=sys.argv[3:] == ["resume"], verbose=False)
print(target.stat().st_size)
"""


def start(url, target, *, resume=False):
    command = [sys.executable, "-c", SCRIPT, url, str(target), *["resume"] * resume]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_download_that_was_ended_leaves_nothing_under_the_name_and_goes_on_if_asked_to(
    number, resume, web, target
):
    def half(handler):
        web.answer(handler, 200, {"Content-Length": str(len(DATA)), "ETag": '"1"'}, DATA[:50_000])
        time.sleep(1.5)

    web.pages[f"/{NAME}"] = half
    process = start(f"{web.url}/{NAME}", target, resume=resume)
    deadline = time.monotonic() + 30
    while not sum(path.stat().st_size for path in target.parent.glob(".*.part*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)

    os.kill(process.pid, number)
    process.communicate()

    assert not target.exists()
    url = web.serve_ranges(f"/{NAME}", DATA, ETag='"1"')
    assert download(url, target, resume=resume, verbose=False) == 50_000 * resume
    assert is_all(target)


def test_where_a_proxy_is_set_it_is_the_proxy_that_must_answer(web, monkeypatch):
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("https_proxy", web.url)

    assert unreachable(web.url) == unreachable("https://unresolvable.invalid") == ""


@pytest.mark.parametrize(("address", "port"), [("https://h", 443), ("http://h", 80)])
def test_a_host_is_asked_at_the_port_of_its_address(address, port, monkeypatch):
    asked = []

    def refuse(place, **_options):
        asked.append(place)
        raise ConnectionRefusedError

    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("socket.create_connection", refuse)

    assert unreachable(address) == "h does not answer"
    assert asked == [("h", port)]


def halves(web, *, then=(), **headers):
    """Serve half of the file once, then pages of ``then``, then whatever is asked for."""
    web.serve_ranges(f"/{NAME}", DATA, cut=50_000, **headers)
    first = web.pages[f"/{NAME}"]
    web.serve_ranges(f"/{NAME}", DATA, **headers)
    rest = web.pages[f"/{NAME}"]

    def hang_up(handler):
        first(handler)
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)

    return web.in_turn(f"/{NAME}", hang_up, *(then or (rest,)))


@pytest.mark.parametrize(
    ("headers", "here"),
    [
        ({"ETag": '"1"'}, 50_000),
        ({"Last_Modified": "Sat, 21 Nov 2026 10:00:00 GMT"}, 50_000),
        ({"ETag": 'W/"1"'}, 0),  # which may stand for other bytes of the same meaning
        ({}, 0),
    ],
)
def test_an_interrupted_download_resumes_where_the_server_says_that_the_file_is_the_same(
    headers, here, web, target
):
    url = halves(web, **headers)

    resumed = download(url, target, resume=True, verbose=False)

    assert web.ranges == ["bytes=0-", f"bytes={here}-"]
    assert resumed == here
    assert is_all(target)


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_file_that_was_changed_on_the_server_is_not_mended_with_the_old_half(
    knows_ranges, web, target
):
    other = bytes(reversed(DATA))
    serve, tag = (web.serve_ranges, '"2"') if knows_ranges else (web.serve, '"1"')
    serve(f"/{NAME}", other, ETag=tag)
    url = halves(web, then=(web.pages[f"/{NAME}"],), ETag='"1"')

    resumed = download(url, target, resume=True, verbose=False)

    assert resumed == 0
    assert target.read_bytes() == other
    assert list(target.parent.iterdir()) == [target]
