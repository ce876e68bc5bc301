"""A server for a deployed model: a page, one plain endpoint, and the Open Inference Protocol v2.

``GET /`` is the page. ``POST /predict`` takes images of a form, and where maps
are wanted ``POST /map``. ``/v2/…`` is what KServe and Triton
speak. ``/openapi.json`` describes all of it, ``/metrics`` is for Prometheus. No address is fetched
and no file is read that a client names.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import uvicorn
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from numpy.typing import NDArray
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from regraft.backbones.views import framed, prepare
from regraft.data.images import Content, Decoding, decode
from regraft.deploy import protocol
from regraft.deploy.answers import Answerer, Promises
from regraft.deploy.batching import Batcher, Row, Rows
from regraft.deploy.guard import Guard, ServeSettings, headers_of, problem_of
from regraft.deploy.metrics import TEXT, Counted, Metrics
from regraft.deploy.predictor import Predictor
from regraft.errors import ImageError, RegraftError, RequestError, UsageError, printable
from regraft.system import __version__, threads

Maps = Callable[[Image.Image, str], tuple[str, str]]
PAGE = Path(__file__).with_name("page.html")
_BACKLOG = 1024  # connections that wait to be accepted
_GRACE = 8  # seconds for running requests when the server stops
_NAME = 100  # letters of a file's name that are repeated
_FIELD = 64 << 10  # bytes of a part that is no file
_ONE = {"type": "string", "contentMediaType": "application/octet-stream", "format": "binary"}
_IMAGES = {"images": {"type": "array", "items": _ONE, "minItems": 1}}
_SCHEMA = {"type": "object", "properties": _IMAGES, "required": ["images"]}
_FORM = {"required": True, "content": {"multipart/form-data": {"schema": _SCHEMA}}}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": protocol.Problem, "description": told}
    for status, told in {
        400: "Not a request that can be read",
        401: "No token",
        403: "Not this server's name, or another page",
        404: "No such model",
        408: "Too slow",
        413: "Too large",
        415: "No form",
        422: "An image or value that cannot be used",
        503: "No room, or no model: ask again",
    }.items()
}


@dataclass(frozen=True)
class Served:
    """A model as the server needs it.

    Args:
        name: What it is called in addresses.
        classes: The names of its classes.
        answer: What it says of images; ``top`` has every class, the most probable first.
        shrink: From a decoded image to the part of it that matters, so that little has to wait.
        decoding: How bytes become pixels.
        maps: From a decoded image and a class to what the network sees of the image and a map of
            what speaks for the class, as addresses that hold them; None for no maps.
        told: What its answers can be relied on for.
    """

    name: str
    classes: tuple[str, ...]
    answer: Rows
    shrink: Callable[[Image.Image], Image.Image] = lambda image: image
    decoding: Decoding = Decoding()
    maps: Maps | None = None
    told: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Predictor, name: str, promises: Promises | None = None) -> Served:
        """Return a deployed model under a name, and what is asked of its answers.

        Raises:
            UsageError: It cannot be promised.
        """
        classes, preprocessing = model.record.classes, model.record.preprocessing
        answer = Answerer(model, promises or Promises(), top=len(classes))

        def shrink(image: Image.Image) -> Image.Image:
            return Image.fromarray(framed(prepare(image, preprocessing), preprocessing))

        return cls(name, classes, answer, shrink, model.record.decoding, told=tuple(answer.told))


def make_app(model: Served, settings: ServeSettings) -> FastAPI:
    """Return the server of a model as an ASGI application.

    Args:
        model: What answers.
        settings: Who may ask, and how much.

    Example:
        >>> model = Served("grey", ("dark", "light"), lambda images: [{"top": []} for _ in images])
        >>> app = make_app(model, ServeSettings())
        >>> sorted(app.openapi()["paths"])[:2]
        ['/metrics', '/predict']
    """
    desk = _Desk(model, settings, Metrics())
    bearer = [Depends(HTTPBearer(auto_error=False))] if settings.token else []
    app = FastAPI(
        title=f"Regraft: {model.name}",
        version=__version__,
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
        lifespan=desk.open,
        responses=_REFUSALS,
        dependencies=bearer,
        redirect_slashes=False,
    )
    _add_page(app)
    _add_prediction(app, desk)
    if model.maps is not None:
        _add_maps(app, desk, model.maps)
    _add_health(app, desk)
    _add_inference(app, desk)
    for error in (RegraftError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(error, _tell)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Counted, metrics=desk.metrics)
    return app


def serve_until_stopped(
    model: Served, settings: ServeSettings, say: Callable[[str], object]
) -> None:
    """Serve a model until SIGTERM or Ctrl-C; requests that are being answered are finished.

    Args:
        model: What answers.
        settings: Where it listens, who may ask, and how much.
        say: Is told the address as soon as somebody can ask there.

    Raises:
        UsageError: The address or port cannot be had.
    """
    listener = _listen(settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    config = uvicorn.Config(
        make_app(model, settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_GRACE,
    )
    with listener:
        say(f"http://{host}:{listener.getsockname()[1]}/")
        uvicorn.Server(config).run([listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            host or None, port, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )
        family, kind, number, _, address = found[0]
        # With its protocol named: else asyncio leaves small packets to wait 40 ms for others.
        with ExitStack() as undo:
            listener = undo.enter_context(socket.socket(family, kind, number))
            if os.name == "posix":  # elsewhere two servers could share a port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
            undo.pop_all()
    except (OSError, OverflowError) as error:
        what, hint = f"cannot listen at {host} port {port}", "choose another --host or --port"
        raise UsageError(what, why=str(error), hint=hint) from error
    return listener


class _Desk:
    """What the endpoints share: the model behind its queue, and threads that decode."""

    def __init__(self, model: Served, settings: ServeSettings, metrics: Metrics) -> None:
        self.model, self.settings, self.metrics = model, settings, metrics
        self._threads = ThreadPoolExecutor(threads(), thread_name_prefix="decode")
        self._mapping = ThreadPoolExecutor(1, thread_name_prefix="map")
        sample = model.shrink(Image.new("RGB", (256, 256), (128, 128, 128)))
        observe = metrics.batches.observe
        self.batcher = Batcher(
            model.answer,
            sample,
            most=settings.batch,
            workers=settings.workers,
            room=settings.room,
            on_batch=observe,
        )
        metrics.waiting.set_function(lambda: self.batcher.taken)

    @asynccontextmanager
    async def open(self, _app: FastAPI) -> AsyncIterator[None]:
        """Begin, and end when all that was taken is answered."""
        self.batcher.start()
        yield
        await self.batcher.stop()
        for pool in (self._threads, self._mapping):
            pool.shutdown(wait=False, cancel_futures=True)

    async def answer(self, images: Sequence[_Given]) -> list[Row | ImageError]:
        """Return what the model says of each image, or why it cannot be used.

        Raises:
            RequestError: There is no room, or no model.
        """
        with self.batcher.places(len(images)) as ask:
            loop = asyncio.get_running_loop()
            decoded = await asyncio.gather(
                *(loop.run_in_executor(self._threads, self._decode, given) for given in images)
            )
            good = [image for image in decoded if isinstance(image, Image.Image)]
            rows = iter(await ask(good))
        for each in decoded:
            self.metrics.images.labels(each.code if isinstance(each, ImageError) else "OK").inc()
        return [each if isinstance(each, ImageError) else next(rows) for each in decoded]

    async def make_map(self, given: _Given, maps: Maps, label: str) -> tuple[str, str]:
        """Return a map of an image; one is made at a time.

        Raises:
            ImageError: The image cannot be used.
            RequestError: There is no room.
        """
        with self.batcher.places(1):
            loop = asyncio.get_running_loop()
            image = await loop.run_in_executor(self._threads, self._decode_whole, given)
            if isinstance(image, ImageError):
                raise image
            return await loop.run_in_executor(self._mapping, maps, image, label)

    def _decode(self, given: _Given) -> Image.Image | ImageError:
        image = self._decode_whole(given)
        try:
            return image if isinstance(image, ImageError) else self.model.shrink(image)
        except ImageError as error:  # too long and thin for this model
            return error

    def _decode_whole(self, given: _Given) -> Image.Image | ImageError:
        name, data = given
        if isinstance(data, bytes) and not data:
            return ImageError("file is empty", path=name, hint="send it again", code="IMG-EMPTY")
        try:
            return decode(Content(name, "", data), self.model.decoding)
        except ImageError as error:
            return error


_Given = tuple[str, bytes | Image.Image]  # the name of an image, and its file or pixels


def _add_page(app: FastAPI) -> None:
    page = PAGE.read_text(encoding="utf-8")
    sources = []
    for kind in ("script", "style"):
        found = re.search(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = hashlib.sha256((found[1] if found else "").encode()).digest()
        sources.append(f"{kind}-src 'sha256-{base64.b64encode(digest).decode()}'")
    policy = "; ".join(
        (
            *("default-src 'none'", *sources, "img-src data: blob:", "connect-src 'self'"),
            *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
        )
    )

    @app.get("/", include_in_schema=False)
    async def show() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def _add_prediction(app: FastAPI, desk: _Desk) -> None:
    @app.post(
        "/predict",
        response_model=protocol.Predicted,
        response_model_exclude_none=True,
        openapi_extra={"requestBody": _FORM},
    )
    async def predict(
        request: Request, top: Annotated[int, Query(ge=1, le=1000)] = 5
    ) -> dict[str, Any]:
        """Classify the images of a form: its parts called `images`.

        An image that cannot be used has `error` and `message` instead; where none can, the answer
        is 422.
        """
        given = await _form(request, desk.settings.max_images)
        found = await desk.answer(given)
        errors = [each for each in found if isinstance(each, ImageError)]
        if len(errors) == len(found):
            raise errors[0]
        rows = [_row(name, each, top) for (name, _), each in zip(given, found, strict=True)]
        maps = desk.model.maps is not None
        return {"model": desk.model.name, "maps": maps, "images": rows}

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> PlainTextResponse:
        """Return counters for Prometheus."""
        return PlainTextResponse(desk.metrics.text(), media_type=TEXT)


def _add_maps(app: FastAPI, desk: _Desk, maps: Maps) -> None:
    @app.post("/map", response_model=protocol.Map, openapi_extra={"requestBody": _FORM})
    async def show_map(request: Request, label: str) -> dict[str, Any]:
        """Show which parts of one image, the part called `images`, speak for a class."""
        given = await _form(request, 1)
        if label not in desk.model.classes:
            raise RequestError("there is no such class", code="REQUEST-VALUE")
        view, strength = await desk.make_map(given[0], maps, label)
        return {"label": label, "view": view, "map": strength}


def _add_health(app: FastAPI, desk: _Desk) -> None:
    unready: dict[int | str, dict[str, Any]] = {503: {"model": protocol.Ready}}
    classes = len(desk.model.classes)

    def readiness() -> JSONResponse:
        ready = desk.batcher.ready
        told = {"name": desk.model.name, "ready": ready}
        return JSONResponse(told, 200 if ready else 503, headers_of(200 if ready else 503))

    @app.get("/v2", response_model=protocol.ServerFacts)
    async def server() -> dict[str, Any]:
        """Return what the server is."""
        return {"name": "regraft", "version": __version__, "extensions": []}

    @app.get("/v2/health/live", response_model=protocol.Live)
    async def live() -> dict[str, Any]:
        """Return whether the server is there."""
        return {"live": True}

    @app.get("/v2/health/ready", response_model=protocol.Ready, responses=unready)
    async def ready() -> JSONResponse:
        """Return whether the model answers."""
        return readiness()

    @app.get("/v2/models/{name}/ready", response_model=protocol.Ready, responses=unready)
    async def model_ready(name: str) -> JSONResponse:
        """Return whether the model answers."""
        _check_name(name, desk)
        return readiness()

    @app.get("/v2/models/{name}", response_model=protocol.ModelFacts)
    async def model(name: str) -> dict[str, Any]:
        """Return what the model takes and gives."""
        _check_name(name, desk)
        return {
            "name": name,
            "versions": [],
            "platform": "onnx_onnxv1",
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "probabilities", "datatype": "FP64", "shape": [-1, classes]},
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
            ],
        }


def _add_inference(app: FastAPI, desk: _Desk) -> None:
    @app.post(
        "/v2/models/{name}/infer",
        response_model=protocol.InferResponse,
        response_model_exclude_none=True,
    )
    async def infer(name: str, asked: protocol.InferRequest) -> dict[str, Any]:
        """Classify images: files in base64 (BYTES), or the pixels of one (UINT8, h × w × 3)."""
        _check_name(name, desk)
        given = await asyncio.to_thread(_tensor_images, asked.inputs[0], desk.settings.max_images)
        rows = []
        for each in await desk.answer(given):
            if isinstance(each, ImageError):
                raise each
            rows.append({entry["label"]: entry["probability"] for entry in each["top"]})
        classes, n = desk.model.classes, len(rows)
        outputs: dict[str, tuple[str, list[int], list[Any]]] = {
            "probabilities": ("FP64", [n, len(classes)], [row[c] for row in rows for c in classes]),
            "label": ("BYTES", [n], [next(iter(row)) for row in rows]),
        }
        wanted: list[str] = [one.name for one in asked.outputs or ()]
        tensors = [
            dict(zip(("name", "datatype", "shape", "data"), (key, *outputs[key]), strict=True))
            for key in dict.fromkeys(wanted or outputs)
        ]
        return {"model_name": name, "id": asked.id, "outputs": tensors}


async def _form(request: Request, most: int) -> list[_Given]:
    """Return the names and contents of the files of a form."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        hint = "send a form with parts called images"
        raise RequestError("not a form with files", hint=hint, code="REQUEST-TYPE")
    async with request.form(max_files=most, max_fields=most, max_part_size=_FIELD) as form:
        parts = form.getlist("images")
        if not parts or not all(isinstance(part, UploadFile) for part in parts):
            why, hint = "a part called images is a file", "addresses are not fetched"
            raise RequestError("no image in the form", why=why, hint=hint, code="REQUEST-VALUE")
        files = [part for part in parts if isinstance(part, UploadFile)]
        return [(_shown(file.filename or "image"), await file.read()) for file in files]


def _shown(name: str) -> str:
    """Return the name of a client's file, without folders and what cannot be printed."""
    return printable(re.split(r"[/\\]", name)[-1])[:_NAME] or "image"


def _row(name: str, found: Row | ImageError, top: int) -> Row:
    if isinstance(found, ImageError):
        return found.to_json()
    return {"file": name, **found, "top": found["top"][:top]}


def _tensor_images(tensor: protocol.ImageTensor, most: int) -> list[_Given]:
    """Return the images of a tensor."""
    what, code = "the tensor does not fit", "REQUEST-VALUE"
    if math.prod(tensor.shape) > most and tensor.datatype == "BYTES":
        why = f"it has more than {most} images"
        raise RequestError(what, why=why, hint="send fewer", code=code)
    try:
        if tensor.datatype == "BYTES":
            files = [base64.b64decode(text, validate=True) for text in tensor.data]
            return [(f"image {n}", file) for n, file in enumerate(_shaped(files, tensor.shape))]
        return [("image", Image.fromarray(_pixels(tensor)))]
    except (ValueError, TypeError, OverflowError) as error:
        hint = "send files in base64 as BYTES of shape [n], or pixels as UINT8 of [h, w, 3]"
        raise RequestError(what, why=str(error)[:200], hint=hint, code=code) from error


def _shaped(files: list[bytes], shape: list[int]) -> list[bytes]:
    if shape != [len(files)]:
        raise ValueError(f"{len(files)} texts are not of shape {shape}")
    return files


def _pixels(tensor: protocol.ImageTensor) -> NDArray[np.uint8]:
    values = np.array(tensor.data)
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise ValueError("values are whole numbers from 0 to 255")
    if len(tensor.shape) != 3 or tensor.shape[2] != 3:
        raise ValueError("the shape is height, width, 3")
    return values.astype(np.uint8).reshape(tensor.shape)


def _check_name(name: str, desk: _Desk) -> None:
    if name != desk.model.name:
        hint = f"the model is {desk.model.name}"
        raise RequestError("no such model", hint=hint, code="REQUEST-PATH")


async def _tell(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that has failed; what nobody foresaw says nothing of the inside."""
    headers: dict[str, str] = {}
    if isinstance(error, RegraftError):
        known = error
    elif isinstance(error, HTTPException):
        codes = {404: "REQUEST-PATH", 405: "REQUEST-METHOD", 413: "REQUEST-TOO-LARGE"}
        code = codes.get(error.status_code, "REQUEST-INVALID")
        known, headers = RequestError(str(error.detail), code=code), dict(error.headers or {})
    elif isinstance(error, RequestValidationError):
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        known = RequestError("a value cannot be used", why=why[:300], code="REQUEST-VALUE")
    else:
        told = {"code": "SERVER-ERROR", "message": "the server has failed"}
        return JSONResponse(told, 500)
    status, told = problem_of(known, request.url.path)
    return JSONResponse(told, status, headers_of(status) | headers)
