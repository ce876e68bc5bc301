"""What runs the frozen trunk: 8-bit images in, one float32 row per image out.

Torch runs it anywhere. OpenVINO gives the same rows to 1e-4, several times faster on processors: a
network is converted once, compared with torch on one batch, compiled, and the result is kept in
``home()/engines``; the next process starts from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import threading
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regraft.backbones.network import Apply
from regraft.backbones.spec import EngineName, PrecisionName, Preprocessing
from regraft.errors import BackboneError, RegraftError, UsageError
from regraft.files import home, sha256_json, write_bytes
from regraft.system import choose_device, exact_float32, within_memory

TOLERANCE = 1e-3  # relative; what passes is near 1e-6, what was traced wrongly is near 1
_DIGEST = 32  # bytes of SHA-256 before the compiled network
_TRACED, _COMPARED = 2, 3  # images: another number shows whether the batch axis stayed free


class Normalise(nn.Module):
    """Turn 8-bit RGB images (n, size, size, 3) into a float32 batch (n, 3, size, size).

    Blended images may hold any float between 0 and 255.

    Args:
        preprocessing: Its scale, mean, standard deviation and channel order are used.

    Example:
        >>> Normalise(Preprocessing.tf(2))(torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)).max()
        tensor(1.)
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.reverse = preprocessing.channels == "BGR"
        self.scale = preprocessing.scale
        self.mean = nn.Buffer(torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the normalised batch."""
        batch = images.permute(0, 3, 1, 2).float()
        if self.reverse:
            batch = batch.flip(1)
        normalised: Tensor = (batch / self.scale - self.mean) / self.std
        return normalised


class Embedder(nn.Module):
    """From 8-bit images to rows: normalisation, trunk and pooling in one module.

    Args:
        module: The whole network; held here so that its weights move and convert with the embedder.
        preprocessing: The network's.
        rows: From a normalised batch to rows.
    """

    def __init__(self, module: nn.Module, preprocessing: Preprocessing, rows: Apply) -> None:
        super().__init__()
        self.module = module
        self.size = preprocessing.size
        self.normalise = Normalise(preprocessing)
        self.rows = rows

    def forward(self, images: Tensor) -> Tensor:
        """Return the rows (n, feature_dim) in float32 of images (n, size, size, 3) in uint8."""
        return self.rows(self.normalise(images)).float()


class Engine(Protocol):
    """A function from prepared images to rows, with a record of how it computes.

    Attributes:
        name: One of ``EngineName``.
        precision: ``"fp32"`` or ``"bf16"``.
        notes: What a reader of the result should know, one sentence each.
    """

    name: str
    precision: str
    notes: tuple[str, ...]

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the rows (n, feature_dim) of images (n, size, size, 3)."""
        ...


class TorchEngine:
    """Run an embedder with torch, channels last, on the best device there is.

    Args:
        embedder: What to run.
        precision: ``"fp32"``, or ``"bf16"`` for automatic mixed precision.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        notes: What a reader of the rows should know, one sentence each.

    Example:
        >>> from regraft.backbones.backbone import build
        >>> from regraft.backbones.spec import BackboneSpec
        >>> engine = build(BackboneSpec("simple_cnn", weights=None)).engine("torch")
        >>> engine(np.zeros((2, 224, 224, 3), np.uint8)).shape
        (2, 128)
    """

    name = "torch"

    def __init__(
        self,
        embedder: Embedder,
        *,
        precision: PrecisionName = "fp32",
        device: str = "auto",
        notes: tuple[str, ...] = (),
    ) -> None:
        self.precision: str = precision
        self.notes = notes
        self._device = choose_device(device)
        self._embedder = embedder.to(self._device).to(memory_format=torch.channels_last)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the rows (n, feature_dim) of images (n, size, size, 3)."""
        return within_memory(self._run, images)

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        batch = torch.from_numpy(images).to(self._device)
        kind, half = self._device.partition(":")[0], self.precision == "bf16"
        autocast = torch.autocast(kind, dtype=torch.bfloat16, enabled=half)
        with torch.inference_mode(), exact_float32(self._device), autocast:
            rows: NDArray[np.float32] = self._embedder(batch).cpu().numpy()
        return rows


class OpenVINOEngine:
    """Run an embedder with OpenVINO on the processor.

    Args:
        embedder: What to run.
        precision: ``"fp32"``, or ``"bf16"``, which a processor without it computes in fp32.
        fingerprint: What the compiled network is kept under.

    Raises:
        UsageError: OpenVINO is not installed (``USAGE-ENGINE``).
        BackboneError: The network cannot be converted, or the result differs from torch by more
            than a thousandth (``BACKBONE-ENGINE``).
    """

    name = "openvino"

    def __init__(self, embedder: Embedder, *, precision: str, fingerprint: str) -> None:
        openvino = _import_openvino()
        core = openvino.Core()
        self.precision = precision
        self.notes: tuple[str, ...] = ()
        self._lock = threading.Lock()  # a compiled network runs one batch at a time
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # Pinned threads of two processes would share the same cores and leave others idle.
            "ENABLE_CPU_PINNING": False,
        }
        key = {
            "backbone": fingerprint,
            "settings": settings,
            "openvino": openvino.get_version(),
            "torch": torch.__version__,
            "processor": core.get_property("CPU", "FULL_DEVICE_NAME"),
        }
        path = home() / "engines" / f"{sha256_json(key)[:40]}.blob"
        compiled = _kept(core, path, settings)
        if compiled is None:
            converted = _convert(openvino, core, embedder)
            compiled = core.compile_model(converted, "CPU", settings)
            # Kept or not, it computes; what is not kept is compiled again next time.
            with contextlib.suppress(RegraftError, OSError):
                blob = compiled.export_model().getvalue()
                write_bytes(path, hashlib.sha256(blob).digest() + blob)
        self._compiled = compiled

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the rows (n, feature_dim) of images (n, size, size, 3)."""
        with self._lock:
            rows: NDArray[np.float32] = self._compiled(np.ascontiguousarray(images))[0].copy()
        return rows


def _import_openvino() -> Any:
    """Return OpenVINO, without the part that reports its use to its makers."""
    name = "openvino_telemetry"
    if "openvino" not in sys.modules:
        # The documented way to make an import fail: OpenVINO then takes its own empty stand-in.
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        what, hint = "the engine openvino is not installed", 'use "torch", or install openvino'
        raise UsageError(what, why=str(error), hint=hint, code="USAGE-ENGINE") from error
    telemetry = getattr(sys.modules.get(name), "Telemetry", None)
    if telemetry is not None:  # somebody imported OpenVINO before us
        with contextlib.suppress(RuntimeError):  # never set up: nothing to send
            telemetry().consent = False
    return openvino


def _convert(openvino: Any, core: Any, embedder: Embedder) -> Any:
    """Return the network as OpenVINO's model, after comparing it with torch on one batch."""
    shape = (_COMPARED, embedder.size, embedder.size, 3)
    drawn = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    batch = torch.from_numpy(drawn)
    # Not inference_mode(): the tracer cannot record tensors that were made there.
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns about every shape that Python looks at
        try:
            expected = embedder(batch).numpy()
            model = openvino.convert_model(embedder, example_input=batch[:_TRACED])
            model.reshape([-1, *shape[1:]])
            plain = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            found = plain(drawn)[0]
        except Exception as error:
            raise _refused(f"{type(error).__name__}: {error}") from error
    scale = float(np.abs(expected).max()) or 1.0
    difference = float(np.abs(found - expected).max()) / scale
    if not difference <= TOLERANCE:
        raise _refused(f"its rows differ from torch's by {difference:.1e}")
    return model


def expected_engine(name: EngineName = "auto") -> str:
    """Return the engine that a name most likely stands for on this machine, without building it.

    Args:
        name: ``"auto"`` is OpenVINO where only a processor computes and OpenVINO is installed.

    Example:
        >>> expected_engine("torch")
        'torch'
    """
    if name != "auto":
        return name
    fast = choose_device() == "cpu" and find_spec("openvino") is not None
    return "openvino" if fast else "torch"


def make_engine(
    embedder: Embedder,
    *,
    name: EngineName = "auto",
    precision: PrecisionName = "fp32",
    fingerprint: str,
    device: str = "auto",
) -> Engine:
    """Return the engine of a name; ``"auto"`` is the fastest that is as exact as torch.

    Args:
        embedder: What to run.
        name: ``"auto"``, ``"torch"`` or ``"openvino"``.
        precision: ``"fp32"`` or ``"bf16"``.
        fingerprint: What identifies the embedder among all others.
        device: Where torch computes: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.

    Raises:
        UsageError: The name or precision is unknown, or the engine is not installed.
        BackboneError: OpenVINO was asked for by name and cannot run the network.
    """
    known = (*get_args(EngineName), *get_args(PrecisionName))
    if name not in known or precision not in known:
        why, hint = f"{name!r}, {precision!r}", "known: " + ", ".join(known)
        raise UsageError("unknown engine or precision", why=why, hint=hint, code="USAGE-ENGINE")
    if expected_engine(name) == "torch":
        return TorchEngine(embedder, precision=precision, device=device)
    try:
        return OpenVINOEngine(embedder, precision=precision, fingerprint=fingerprint)
    except (BackboneError, UsageError) as error:
        if name != "auto":
            raise
        notes = (f"Computed with torch: {error}.",)
        return TorchEngine(embedder, precision=precision, device=device, notes=notes)


def _refused(why: str) -> BackboneError:
    what, why = "OpenVINO cannot run this network", " ".join(why.split())[:200]
    return BackboneError(what, why=why, hint='use the engine "torch"', code="BACKBONE-ENGINE")


def _kept(core: Any, path: Path, settings: dict[str, Any]) -> Any | None:
    """Return the compiled network of an earlier process, or None."""
    # It is not there, or was made by a build that this one does not read.
    with contextlib.suppress(OSError, RuntimeError):
        data = path.read_bytes()
        if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:
            return core.import_model(data[_DIGEST:], "CPU", settings)
    return None  # or it is damaged; it is written anew
