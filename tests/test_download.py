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
from regraft.errors import DownloadError, RegraftError

DATA = bytes(range(256)) * 400
NAME = f"net-{hashlib.sha256(DATA).hexdigest()[:8]}.pth"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr("regraft.download.PAUSE_SECONDS", 0.0)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / NAME


def nothing_is_left(target):
    return not target.parent.exists() or list(target.parent.iterdir()) == []


def test_a_file_arrives_whole_under_its_name(web, target):
    url = web.serve(f"/{NAME}", DATA)

    downloaded = download(url, target, verbose=False)

    assert downloaded.path == target
    assert downloaded.sha256 == hashlib.sha256(DATA).hexdigest()
    assert target.read_bytes() == DATA
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("attempts", ["once", "always"])
def test_a_body_shorter_than_announced_is_asked_for_once_more_and_never_kept(attempts, web, target):
    url = web.serve(f"/{NAME}", DATA[:1000], Content_Length=str(len(DATA)))
    short = web.pages[f"/{NAME}"]
    web.serve(f"/{NAME}", DATA)
    web.in_turn(f"/{NAME}", short, web.pages[f"/{NAME}"] if attempts == "once" else short)

    if attempts == "once":
        download(url, target, verbose=False)
        assert target.read_bytes() == DATA
    else:
        with pytest.raises(DownloadError, match=f"1000 of {len(DATA)} bytes|broke") as refusal:
            download(url, target, verbose=False)
        assert NAME in str(refusal.value)
        assert nothing_is_left(target)
    assert len(web.asked("GET")) == 2


@pytest.mark.parametrize(
    ("published", "found"),
    [
        (Checksums(sha256="0" * 64), hashlib.sha256(DATA).hexdigest()),
        (Checksums(size=7), str(len(DATA))),
    ],
)
def test_a_file_that_is_not_the_published_one_is_refused_at_once_with_both_sums(
    published, found, web, target
):
    url = web.serve(f"/{NAME}", DATA)

    with pytest.raises(DownloadError) as refusal:
        download(url, target, checksums=published, resume=True, verbose=False)

    assert refusal.value.code == "DOWNLOAD-CHECKSUM"
    assert found in refusal.value.why
    assert str(published.sha256 or published.size) in refusal.value.why
    assert nothing_is_left(target)
    assert len(web.asked("GET")) == 1


@pytest.mark.parametrize(("status", "tries"), [(403, 1), (404, 1), (429, 2), (500, 2), (503, 2)])
def test_errors_of_the_server_are_named_and_tried_again_only_where_it_helps(
    status, tries, web, target
):
    url = web.serve(f"/{NAME}", b"no", status=status)

    with pytest.raises(DownloadError, match=str(status)) as refusal:
        download(url, target, verbose=False)

    assert refusal.value.code == "DOWNLOAD"
    assert nothing_is_left(target)
    assert len(web.asked("GET")) == tries


def test_a_redirect_loop_ends(web, target):
    url = web.serve(f"/{NAME}", b"", status=302, Location=f"/{NAME}")

    with pytest.raises(DownloadError, match="loop"):
        download(url, target, verbose=False)

    assert len(web.asked("GET")) <= 6


def test_a_redirect_on_the_same_footing_is_followed(web, target):
    web.serve("/mirror", DATA)
    url = web.serve(f"/{NAME}", b"", status=302, Location="/mirror")

    assert download(url, target, verbose=False).path.read_bytes() == DATA


@pytest.mark.parametrize("url", ["http://example.org/a", "http://127.0.0.1/a", "ftp://a.org/a"])
def test_an_encrypted_address_never_leads_to_an_open_one(url):
    with pytest.raises(DownloadError, match="unencrypted"):
        check_address(url, before="https://example.org/net.pth")


@pytest.mark.parametrize("url", ["http://example.org/net.pth", "file:///etc/passwd", "net.pth"])
def test_open_addresses_elsewhere_are_refused_from_the_start(url, target):
    with pytest.raises(DownloadError, match="unencrypted"):
        download(url, target)


def test_a_redirect_to_a_local_file_is_refused(web, target):
    url = web.serve(f"/{NAME}", b"", status=302, Location="file:///etc/passwd")

    with pytest.raises(DownloadError):
        download(url, target, verbose=False)

    assert nothing_is_left(target)


@pytest.mark.parametrize("name", [NAME, "net.pth"])
def test_the_sign_in_page_of_a_hotel_is_not_kept_as_weights(name, web, target):
    url = web.serve(f"/{name}", b"\n<!DOCTYPE html><html>Welcome, please sign in</html>")

    with pytest.raises(DownloadError, match="web page"):
        download(url, target.with_name(name), verbose=False)

    assert nothing_is_left(target)


def test_an_empty_file_without_a_length_is_not_kept(web, target):
    url = web.serve("/net.pth", b"", Content_Length=None)

    with pytest.raises(DownloadError, match="0 of 0 bytes"):
        download(url, target.with_name("net.pth"), verbose=False)

    assert nothing_is_left(target)


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

    with pytest.raises(DownloadError, match="longer than allowed"):
        download(f"{web.url}/{NAME}", target, seconds=0.3, verbose=False)

    assert time.monotonic() - start < 2
    assert nothing_is_left(target)


def test_a_server_that_hangs_up_or_stalls_is_named(web, target, monkeypatch):
    monkeypatch.setattr("regraft.download.READ_SECONDS", 0.2)
    web.pages["/hang-up"] = lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)
    web.pages["/stall"] = lambda _handler: time.sleep(0.6)

    for page in ("hang-up", "stall"):
        with pytest.raises(DownloadError, match="does not answer"):
            download(f"{web.url}/{page}", target, verbose=False)
    assert nothing_is_left(target)


def test_a_folder_that_cannot_be_written_is_named(web, tmp_path):
    (tmp_path / "file").write_text("in the way")
    url = web.serve(f"/{NAME}", DATA)

    with pytest.raises(RegraftError) as refusal:
        download(url, tmp_path / "file" / NAME, verbose=False)

    assert refusal.value.code == "FILE-WRITE"


SCRIPT = """
import sys
from pathlib import Path
from regraft.download import download
resume = sys.argv[3:] == ["resume"]
print(download(sys.argv[1], Path(sys.argv[2]), resume=resume, verbose=False).path.stat().st_size)
"""


def start(url, target, *, resume=False):
    command = [sys.executable, "-c", SCRIPT, url, str(target), *["resume"] * resume]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def test_eight_processes_fetch_the_same_file_and_one_good_file_is_there(web, target):
    url = web.serve(f"/{NAME}", DATA)

    processes = [start(url, target) for _ in range(8)]
    sizes = [process.communicate(timeout=60)[0] for process in processes]

    assert sizes == [f"{len(DATA)}\n"] * 8
    assert target.read_bytes() == DATA
    assert list(target.parent.iterdir()) == [target]


def test_a_kill_during_the_download_leaves_nothing_under_the_name(web, target):
    def half(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        handler.wfile.write(DATA[:50_000])
        time.sleep(1.5)

    web.pages[f"/{NAME}"] = half
    process = start(f"{web.url}/{NAME}", target)
    deadline = time.monotonic() + 30
    while not (target.parent.is_dir() and any(target.parent.iterdir())):
        assert time.monotonic() < deadline
        time.sleep(0.02)

    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    assert not target.exists()
    url = web.serve(f"/{NAME}", DATA)
    download(url, target, verbose=False)
    assert list(target.parent.iterdir()) == [target]


def test_name_resolution_that_hangs_costs_no_more_than_was_allowed(monkeypatch):
    def hang(*_arguments, **_options):
        time.sleep(2)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", hang)
    begin = time.monotonic()

    reason = unreachable("https://huggingface.co", seconds=0.2)

    assert reason == "huggingface.co does not answer"
    assert time.monotonic() - begin < 1


def test_where_a_proxy_is_set_it_is_the_proxy_that_must_answer(web, monkeypatch):
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("https_proxy", web.url)

    assert unreachable("https://unresolvable.invalid") == ""


def test_a_host_that_answers_is_reachable(web):
    assert unreachable(web.url) == ""


def halves(web, **headers):
    """Serve half of the file once, then whatever is asked for."""
    web.serve_ranges(f"/{NAME}", DATA, cut=50_000, **headers)
    first = web.pages[f"/{NAME}"]
    web.serve_ranges(f"/{NAME}", DATA, **headers)
    rest = web.pages[f"/{NAME}"]

    def hang_up(handler):
        first(handler)
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)

    return web.in_turn(f"/{NAME}", hang_up, rest)


@pytest.mark.parametrize(
    ("headers", "checksums"),
    [
        ({"ETag": '"1"'}, Checksums()),
        ({"Last_Modified": "Sat, 21 Nov 2026 10:00:00 GMT"}, Checksums()),
        ({}, Checksums(sha256=hashlib.sha256(DATA).hexdigest())),
    ],
)
def test_an_interrupted_download_goes_on_where_it_was(headers, checksums, web, target):
    url = halves(web, **headers)

    downloaded = download(url, target, checksums=checksums, resume=True, verbose=False)

    assert web.ranges == ["bytes=0-", "bytes=50000-"]
    assert downloaded.resumed == 50_000
    assert downloaded.sha256 == hashlib.sha256(DATA).hexdigest()
    assert target.read_bytes() == DATA
    assert list(target.parent.iterdir()) == [target]


def test_what_was_here_is_kept_while_the_server_is_busy(web, target):
    url = halves(web, ETag='"1"')
    half = web.pages[f"/{NAME}"]
    web.serve_ranges(f"/{NAME}", DATA, ETag='"1"')
    rest = web.pages[f"/{NAME}"]
    web.serve(f"/{NAME}", b"busy", status=503)
    web.in_turn(f"/{NAME}", half, web.pages[f"/{NAME}"], rest)

    with pytest.raises(DownloadError, match="503"):
        download(url, target, resume=True, verbose=False)
    downloaded = download(url, target, resume=True, verbose=False)

    assert downloaded.resumed == 50_000
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"1"'}])
def test_without_a_sign_that_the_file_is_the_same_all_of_it_is_asked_for_again(
    headers, web, target
):
    url = halves(web, **headers)

    downloaded = download(url, target, resume=True, verbose=False)

    assert web.ranges == ["bytes=0-", "bytes=0-"]
    assert downloaded.resumed == 0
    assert target.read_bytes() == DATA


def test_a_file_that_was_changed_on_the_server_is_not_mended_with_the_old_half(web, target):
    other = bytes(reversed(DATA))
    url = halves(web, ETag='"1"')
    old = web.pages[f"/{NAME}"]
    web.serve_ranges(f"/{NAME}", other, ETag='"2"')
    web.in_turn(f"/{NAME}", old, web.pages[f"/{NAME}"])

    downloaded = download(url, target, resume=True, verbose=False)

    assert downloaded.resumed == 0
    assert target.read_bytes() == other
    assert list(target.parent.iterdir()) == [target]


def test_a_server_that_knows_no_ranges_sends_all_of_it(web, target):
    url = halves(web, ETag='"1"')
    first = web.pages[f"/{NAME}"]
    web.serve(f"/{NAME}", DATA, ETag='"1"')
    web.in_turn(f"/{NAME}", first, web.pages[f"/{NAME}"])

    assert download(url, target, resume=True, verbose=False).resumed == 0
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_download_that_was_ended_goes_on_in_the_next_process(number, web, target):
    def half(handler):
        web.answer(handler, 200, {"Content-Length": str(len(DATA)), "ETag": '"1"'}, DATA[:50_000])
        time.sleep(1.5)

    web.pages[f"/{NAME}"] = half
    process = start(f"{web.url}/{NAME}", target, resume=True)
    deadline = time.monotonic() + 30
    while not sum(path.stat().st_size for path in target.parent.glob(".*.partial")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, number)
    process.communicate()
    url = web.serve_ranges(f"/{NAME}", DATA, ETag='"1"')

    assert not target.exists()
    downloaded = download(url, target, resume=True, verbose=False)

    assert downloaded.resumed == 50_000
    assert target.read_bytes() == DATA
    assert list(target.parent.iterdir()) == [target]


def test_a_long_name_in_another_script_can_be_downloaded(web, target):
    url = web.serve_ranges("/data.bin", DATA, ETag='"1"')

    path = download(url, target.with_name("花" * 80), resume=True, verbose=False).path

    assert path.read_bytes() == DATA
