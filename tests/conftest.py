"""Fixtures for all tests: a private home, no network but a server here, and the real assets."""

import dataclasses
import hashlib
import os
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings

from regraft.backbones import engines
from regraft.backbones.backbone import build
from regraft.backbones.catalog import registered
from samples import SMALL
from stand_in_hub import TOKEN, standing_in

REPOSITORY = Path(__file__).resolve().parents[1]

# Tests do not time: on a busy machine everything is slow. What is green stays green: the examples
# are the same in every run, and `pytest --hypothesis-profile=searching` draws others and more.
untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", untimed, derandomize=True, max_examples=40)
settings.register_profile("searching", untimed, max_examples=300)
settings.load_profile("repeatable")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell lets what runs in its background ignore Ctrl-C, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def shared_home(tmp_path_factory):
    """Give fixtures that live longer than a test a home that is not the person's own, either."""
    before = os.environ.get("REGRAFT_HOME")
    os.environ["REGRAFT_HOME"] = str(tmp_path_factory.mktemp("shared") / "regraft")
    yield
    os.environ.pop("REGRAFT_HOME")
    if before is not None:
        os.environ["REGRAFT_HOME"] = before


@pytest.fixture(scope="module", autouse=True)
def automatic_engine(request):
    """Let "auto" stand for torch: OpenVINO compiles for seconds what most tests run once."""
    if request.path.name in {"test_engines.py", "test_golden.py"}:
        yield
    else:
        with mock.patch.object(engines, "find_spec", return_value=None):
            yield


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory, monkeypatch):
    """Keep imported weights and caches of a test away from those of the person who runs it."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("REGRAFT_HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    return home


@pytest.fixture(autouse=True)
def no_registered_networks():
    """Hide the networks that other tests, and examples in docstrings, have registered."""
    with mock.patch.dict(registered, clear=True):
        yield


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch):
    """Refuse every connection that leaves this machine: nothing in Regraft may phone home."""
    connect = socket.socket.connect

    def guarded(self, address):
        host = address[0] if isinstance(address, tuple) else None
        if host is not None and host not in {"127.0.0.1", "::1", "localhost"}:
            raise ConnectionRefusedError(f"a test tried to reach {host}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def store_mine(private_home):
    """Return a function that stores a small network of a seed under the name `mine`, anew."""
    from regraft.backbones.checkpoint_files import write_state
    from regraft.backbones.sources import import_weights

    def store(seed):
        network = build(dataclasses.replace(SMALL, seed=seed))
        file = private_home / "mine.safetensors"
        write_state(file, network.module.state_dict())
        facts = {"backbone": "simple_cnn", "preprocessing": network.preprocessing}
        import_weights(file, name="mine", overwrite=True, **facts)

    return store


@pytest.fixture(scope="session")
def assets():
    """Return the folder of real weights and photographs, or skip the test where it is absent."""
    folder = Path(os.environ.get("REGRAFT_ASSETS", REPOSITORY.parent / "shared" / "assets"))
    if not (folder / "weights").is_dir():
        pytest.skip("real weights and photographs are not here (set REGRAFT_ASSETS)")
    return folder


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Web:
    """Pages by path; a page is a function of the request's handler."""

    def __init__(self, server):
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.pages = {}
        self.log = []
        self.ranges = []

    def serve(self, path, data, *, status=200, **headers):
        """Serve ``data``; ``Content_Length`` and other headers may lie."""

        def page(handler):
            sent = {"Content-Length": str(len(data))}
            sent.update({name.replace("_", "-"): value for name, value in headers.items()})
            self.answer(handler, status, sent, data)

        self.pages[path] = page
        return self.url + path

    def serve_ranges(self, path, data, *, cut=None, **headers):
        """Serve ``data`` or the rest of it that is asked for; hang up at byte ``cut``."""

        def page(handler):
            asked = handler.headers.get("Range", "bytes=0-")
            self.ranges.append(asked)
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            sent["Content-Length"] = str(len(data) - begin)
            if begin:
                sent["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            whole = begin >= len(data)
            self.answer(handler, 416 if whole else 206 if begin else 200, sent, data[begin:cut])

        self.pages[path] = page
        return self.url + path

    @staticmethod
    def answer(handler, status, headers, data):
        """Answer one request."""
        handler.send_response(status)
        for name, value in headers.items():
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(data)

    def in_turn(self, path, *pages):
        """Serve one page after the other, the last one for ever."""
        left = list(pages)

        def page(handler):
            chosen = left.pop(0) if len(left) > 1 else left[0]
            chosen(handler)

        self.pages[path] = page
        return self.url + path

    def repository(self, name, files, *, sent=None, **headers):
        """Serve a repository of the hub: the two questions that its library asks of a file.

        ``sent`` is what really comes where it differs from what is announced.
        """
        for file, data in files.items():
            facts = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            for revision in ("main", COMMIT):
                path = f"/{name}/resolve/{revision}/{file}"
                self.serve(path, data if sent is None else sent, **{**facts, **headers})

    def asked(self, method):
        """Return the paths that were asked for with this method, in order."""
        return [path for asked, path in self.log if asked == method]


@pytest.fixture
def web(monkeypatch):
    """Run a server on 127.0.0.1 for one test."""
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(variable, "127.0.0.1,localhost")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            pages.log.append((self.command, self.path))
            missing = self.server.missing
            pages.pages.get(self.path.partition("?")[0], missing)(self)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_arguments):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64  # a connection beyond it waits for a second

        def missing(self, handler):
            handler.send_response(404)
            # What the hub says of a file that a repository does not hold.
            handler.send_header("X-Error-Code", "EntryNotFound")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        def handle_error(self, *_arguments):
            pass  # clients that leave are part of the tests

    server = Server(("127.0.0.1", 0), Handler)
    pages = Web(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield pages
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def hub(monkeypatch, private_home):
    """Run a stand-in of the hub for one test, with a token that it knows."""
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(variable, "127.0.0.1,localhost")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with standing_in() as there:
        monkeypatch.setenv("HF_ENDPOINT", there.url)
        yield there
