"""A web server on this machine that behaves well or badly, as a test asks."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Web:
    """Pages by path; a page is a function of the request's handler."""

    def __init__(self, server):
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.pages = {}
        self.log = []

    def serve(self, path, data, *, status=200, **headers):
        """Serve ``data``; ``Content_Length`` and other headers may lie."""

        def page(handler):
            handler.send_response(status)
            sent = {"Content-Length": str(len(data))}
            sent.update({name.replace("_", "-"): value for name, value in headers.items()})
            for name, value in sent.items():
                if value is not None:
                    handler.send_header(name, value)
            handler.end_headers()
            if handler.command == "GET":
                handler.wfile.write(data)

        self.pages[path] = page
        return self.url + path

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
