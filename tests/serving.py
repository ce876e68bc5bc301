"""Servers for tests: one of a small model in this process, and ways to speak to it."""

import contextlib
import socket
import threading
import time

import httpx
import numpy as np
import uvicorn

from regraft.deploy.guard import ServeSettings
from regraft.deploy.server import Served, make_app

CLASSES = ("dark", "light")


def brightness(images):
    """Answer how light images are."""
    shares = [float(np.asarray(image).mean()) / 255 for image in images]
    pairs = [((1 - share, "dark"), (share, "light")) for share in shares]
    return [
        {"top": [{"label": label, "probability": p} for p, label in sorted(pair, reverse=True)]}
        for pair in pairs
    ]


class Held:
    """A model that answers when it may, and can be broken."""

    def __init__(self, answer=brightness):
        self.answer, self.broken = answer, False
        self.open, self.begun = threading.Event(), threading.Event()
        self.open.set()

    def __call__(self, images):
        """Answer images."""
        self.begun.set()
        assert self.open.wait(30)
        if self.broken:
            raise RuntimeError("broken at /srv/secret/model.onnx")
        return self.answer(images)

    def hold(self):
        """Let what is asked from now on wait."""
        self.open.clear()
        self.begun.clear()


def wait_until(holds, seconds=30):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


@contextlib.contextmanager
def serving(answer=brightness, *, path="/v2/health/ready", maps=None, token=None, **settings):
    """Run a server in a thread; yield a client of it once `path` is answered with 200."""
    app = make_app(
        Served("tiny", CLASSES, answer, maps=maps), ServeSettings(token=token, **settings)
    )
    listener = socket.socket(proto=socket.IPPROTO_TCP)  # named, so that asyncio sends at once
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    options = {"log_level": "critical", "access_log": False, "ws": "none"}
    server = uvicorn.Server(uvicorn.Config(app, **options, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=address, headers=headers, timeout=30, trust_env=False) as client:
        try:
            wait_until(lambda: client.get(path).status_code == 200)
            yield client
        finally:
            getattr(answer, "open", threading.Event()).set()
            server.should_exit = True
            thread.join()
            listener.close()


def said(client, *pieces, pause=0.0):
    """Send bytes as they are, and return status and headers of the answer as text."""
    with socket.create_connection((client.base_url.host, client.base_url.port), 30) as wire:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                wire.sendall(piece)
                time.sleep(pause)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while b"}" not in answer and (more := wire.recv(65536)):
                answer += more
    return answer.decode()
