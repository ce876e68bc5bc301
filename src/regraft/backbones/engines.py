"""What runs the frozen trunk: 8-bit pictures in, one float32 row per picture out."""

from __future__ import annotations

import contextlib
from importlib.util import find_spec
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from regraft.backbones.embedder import Embedder
from regraft.errors import BackboneError, UsageError
from regraft.system import choose_device, exact_float32, within_memory

EngineName = Literal["auto", "torch", "openvino"]
Precision = Literal["fp32", "bf16"]


class Engine(Protocol):
    """A function from prepared pictures to rows, with a record of how it computes."""

    @property
    def name(self) -> str:
        """``"torch"`` or ``"openvino"``."""
        ...

    @property
    def precision(self) -> str:
        """``"fp32"`` or ``"bf16"``."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know, one sentence each."""
        ...

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the rows (n, feature_dim) of pictures (n, size, size, 3)."""
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
        precision: Precision = "fp32",
        device: str = "auto",
        notes: tuple[str, ...] = (),
    ) -> None:
        self.precision = precision
        self.notes = notes
        self._device = choose_device(device)
        self._embedder = embedder.to(self._device).to(memory_format=torch.channels_last)

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the rows (n, feature_dim) of pictures (n, size, size, 3)."""
        return within_memory(self._run, pictures)

    def _run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        batch = torch.from_numpy(pictures).to(self._device)
        with torch.inference_mode(), exact_float32(self._device), self._autocast():
            rows: NDArray[np.float32] = self._embedder(batch).cpu().numpy()
        return rows

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        kind = self._device.split(":", maxsplit=1)[0]
        return torch.autocast(kind, dtype=torch.bfloat16)


def expected_engine(name: EngineName = "auto") -> str:
    """Return the engine that a name most likely stands for on this machine, without building it.

    Args:
        name: ``"auto"`` is OpenVINO where only a processor computes and OpenVINO is installed.

    Raises:
        UsageError: The name is unknown (``USAGE-ENGINE``).

    Example:
        >>> expected_engine("torch")
        'torch'
    """
    if name not in get_args(EngineName):
        raise UsageError(
            "unknown engine",
            why=repr(name),
            hint="use one of " + ", ".join(get_args(EngineName)),
            code="USAGE-ENGINE",
        )
    if name != "auto":
        return name
    fast = choose_device() == "cpu" and find_spec("openvino") is not None
    return "openvino" if fast else "torch"


def make_engine(
    embedder: Embedder,
    *,
    name: EngineName = "auto",
    precision: Precision = "fp32",
    fingerprint: str,
    size: int,
    device: str = "auto",
) -> Engine:
    """Return the engine of a name; ``"auto"`` is the fastest that is as exact as torch.

    Args:
        embedder: What to run.
        name: ``"auto"``, ``"torch"`` or ``"openvino"``.
        precision: ``"fp32"`` or ``"bf16"``.
        fingerprint: What identifies the embedder among all others.
        size: Height and width of the pictures, in pixels.
        device: Where torch computes: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.

    Raises:
        UsageError: The name or precision is unknown, or the engine is not installed.
        BackboneError: OpenVINO was asked for by name and cannot run the network.
    """
    if precision not in get_args(Precision):
        raise UsageError(
            "unknown precision", why=repr(precision), hint="use fp32 or bf16", code="USAGE-ENGINE"
        )
    if expected_engine(name) == "torch":
        return TorchEngine(embedder, precision=precision, device=device)
    from regraft.backbones.openvino_engine import OpenVINOEngine

    try:
        return OpenVINOEngine(embedder, precision=precision, fingerprint=fingerprint, size=size)
    except (BackboneError, UsageError) as error:
        if name != "auto":
            raise
        notes = (f"Computed with torch: {error}.",)
        return TorchEngine(embedder, precision=precision, device=device, notes=notes)
