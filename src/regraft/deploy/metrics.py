"""What a server counts, for Prometheus."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TEXT = "text/plain; version=0.0.4; charset=utf-8"
_IMAGES = (1, 2, 4, 8, 16, 32)
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """Counters of one server, apart from those of any other in the process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kept = self.registry
        self.requests = Counter(
            "regraft_requests", "Requests answered.", ("path", "status"), registry=kept
        )
        self.seconds = Histogram(
            "regraft_request_seconds", "To the end of an answer.", buckets=_SECONDS, registry=kept
        )
        self.images = Counter("regraft_images", "What became of images.", ("code",), registry=kept)
        self.batches = Histogram(
            "regraft_batch_images", "Images answered at once.", buckets=_IMAGES, registry=kept
        )
        self.waiting = Gauge("regraft_images_waiting", "Images not yet answered.", registry=kept)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)


class Counted:
    """Counts what ``app`` answers, by route and status; addresses that clients make up are one.

    Args:
        app: What answers.
        metrics: Where it is counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), "left"

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(path, status).inc()
            self.metrics.seconds.observe(time.perf_counter() - begun)
