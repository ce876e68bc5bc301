"""Measure `regraft serve` beside a naive server: one request, one forward pass.

Eight clients of another process send images, some of them broken, to both servers in turn: a block
of requests to one, then to the other. Every answer is counted, and what it says is checked.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image

from regraft.deploy.predictor import load

BOUNDARY = "a-boundary-that-is-in-no-image"
HEAD = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
COMMAND = "from regraft.cli import main; main()"
TICKS = os.sysconf("SC_CLK_TCK")


def forward_pass(run: str) -> Callable[[Image.Image], dict[str, object]]:
    """Return what a fitted network says of an image, by a pass of torch, as timm's examples do."""
    import torch

    from regraft.backbones.views import prepare
    from regraft.classifiers.network_classifier import load_model

    learner = load_model(Path(run) / "model")
    network, preprocessing = learner.network_.eval(), learner.backbone_.preprocessing

    def answer(image: Image.Image) -> dict[str, object]:
        view = torch.from_numpy(prepare(image.convert("RGB"), preprocessing)[None])
        with torch.inference_mode():
            row = network(view).softmax(1)[0]
        best = int(row.argmax())
        return {"label": str(learner.classes_[best]), "probability": float(row[best])}

    return answer


def naive(run: str, kind: str) -> None:
    """Serve a run as a first try would do it: the exported model, or the network in torch."""
    app = FastAPI()
    if kind == "torch":
        say = forward_pass(run)
    else:
        model = load(run)

        def say(image: Image.Image) -> dict[str, object]:
            row = model.predict_proba([image])[0]
            return {"label": str(model.classes_[row.argmax()]), "probability": float(row.max())}

    def answer(data: bytes) -> dict[str, object]:
        return say(Image.open(io.BytesIO(data)))

    if kind == "async":

        @app.post("/predict")
        async def predict(images: UploadFile) -> dict[str, object]:
            return answer(await images.read())

    else:

        @app.post("/predict")
        def predict_in_thread(images: UploadFile) -> dict[str, object]:
            return answer(images.file.read())

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    print(f"http://127.0.0.1:{port}/", flush=True)
    uvicorn.run(app, port=port, log_level="critical", access_log=False)


@dataclass
class Measured:
    """What a server did.

    Args:
        port: Where it listens.
        pid: Its process.
    """

    port: int
    pid: int
    seconds: float = 0.0  # while clients were asking
    latencies: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    processor: float = 0.0  # seconds
    memory: list[int] = field(default_factory=list)  # bytes, behind each block

    def row(self, name: str) -> dict[str, object]:
        """Return a row of the table."""
        latencies, n = sorted(self.latencies), len(self.latencies)
        return {
            "server": name,
            "requests": n,
            "answered_200": self.statuses.count(200),
            "answered_422": self.statuses.count(422),
            "answered_500": self.statuses.count(500),
            "lost": self.statuses.count(0),
            "requests_per_s": round(n / self.seconds, 1),
            "p50_ms": round(1000 * latencies[n // 2], 1),
            "p95_ms": round(1000 * latencies[int(0.95 * n)], 1),
            "processor_ms_per_request": round(1000 * self.processor / n, 1),
            "memory_growth": f"{self.memory[-1] / self.memory[0] - 1:+.1%}",
        }


@contextmanager
def running(*command: str) -> Iterator[Measured]:
    """Run a server and yield where it is."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    try:
        port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
        yield Measured(port, process.pid)
    finally:
        if process.poll() is not None:
            print(f"a server ended by itself, code {process.returncode}", file=sys.stderr)
        process.terminate()
        process.wait(20)


def processor_seconds(pid: int) -> float:
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / TICKS


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ask(server: Measured, bodies: Sequence[bytes], clients: int) -> None:
    """Send requests from several clients, each over one connection, and note the answers."""
    left, lock, begun = iter(bodies), threading.Lock(), time.perf_counter()
    processor = processor_seconds(server.pid)

    def send(connection: http.client.HTTPConnection, body: bytes) -> int:
        """Return the status of an answer; 0 for none."""
        for _ in range(2):  # a server may have closed a connection behind its last answer
            with suppress(OSError, http.client.HTTPException):
                if connection.sock is None:
                    connection.connect()
                    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.request("POST", "/predict", body, HEADERS)
                answer = connection.getresponse()
                text = answer.read()
                return answer.status if answer.status != 200 or b'"probability"' in text else 0
            connection.close()
        return 0

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        while True:
            with lock:
                body = next(left, None)
            if body is None:
                return
            asked = time.perf_counter()
            server.statuses.append(send(connection, body))
            server.latencies.append(time.perf_counter() - asked)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.seconds += time.perf_counter() - begun
    server.processor += processor_seconds(server.pid) - processor
    server.memory.append(resident(server.pid))


def requests_of(folder: Path, bad: float) -> Callable[[int, int], list[bytes]]:
    """Return a function that gives the bodies of the requests with these numbers."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    good = [path.read_bytes() for path in files[:: max(1, len(files) // 200)]]
    broken = [b"", b"<html>404", good[0][: len(good[0]) // 2], b"%!PS-Adobe", good[1][:20]]

    def body(number: int) -> bytes:
        is_bad = int((number + 1) * bad) > int(number * bad)
        kinds = broken if is_bad else good
        return HEAD.encode() + kinds[number % len(kinds)] + f"\r\n--{BOUNDARY}--\r\n".encode()

    return lambda first, count: [body(number) for number in range(first, first + count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--block", type=int, default=500)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--bad", type=float, default=0.2, help="share of broken images")
    parser.add_argument(
        "--naive", choices=["async", "threads", "torch"], help="only serve, naively"
    )
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    if options.naive:
        naive(options.run, options.naive)
        return
    bodies = requests_of(options.images, options.bad)
    commands = {
        "regraft serve": ("-c", COMMAND, "serve", options.run, "--port", "0"),
        "naive, async def": (__file__, options.run, "--naive", "async"),
        "naive, def in threads": (__file__, options.run, "--naive", "threads"),
        "naive, def in threads, torch": (__file__, options.run, "--naive", "torch"),
    }
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(*each)) for name, each in commands.items()}
        for name, server in servers.items():
            time.sleep(2)
            ask(server, bodies(0, options.block), options.clients)  # to warm up
            servers[name] = Measured(server.port, server.pid, memory=server.memory)
        for first in range(0, options.requests, options.block):
            for server in servers.values():
                ask(server, bodies(first, options.block), options.clients)
        rows = [server.row(name) for name, server in servers.items()]
    for row in rows:
        print(json.dumps(row))
    if options.csv:
        with options.csv.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)


if __name__ == "__main__":
    main()
