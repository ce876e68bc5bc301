"""What runs the frozen trunk: 8-bit pictures in, one float32 row per picture out."""

from __future__ import annotations

import contextlib
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regraft.backbones.network import Apply
from regraft.backbones.spec import Preprocessing
from regraft.compute import choose_device

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


class Normalise(nn.Module):
    """Turn 8-bit RGB pictures (n, size, size, 3) into a float32 batch (n, 3, size, size).

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

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the normalised batch."""
        batch = pictures.permute(0, 3, 1, 2).float()
        if self.reverse:
            batch = batch.flip(1)
        normalised: Tensor = (batch / self.scale - self.mean) / self.std
        return normalised


class Embedder(nn.Module):
    """From 8-bit pictures to rows: normalisation, trunk and pooling in one module.

    Args:
        module: The whole network; held here so that its weights move and convert with the embedder.
        preprocessing: The network's.
        rows: From a normalised batch to rows.
    """

    def __init__(self, module: nn.Module, preprocessing: Preprocessing, rows: Apply) -> None:
        super().__init__()
        self.module = module
        self.normalise = Normalise(preprocessing)
        self.rows = rows

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the rows (n, feature_dim) in float32 of pictures (n, size, size, 3) in uint8."""
        return self.rows(self.normalise(pictures)).float()


class TorchEngine:
    """Run an embedder with torch, channels last, on the best device there is.

    Args:
        embedder: What to run.
        precision: ``"fp32"``, or ``"bf16"`` for automatic mixed precision.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.

    Example:
        >>> from regraft.backbones.backbone import build
        >>> from regraft.backbones.spec import BackboneSpec
        >>> engine = build(BackboneSpec("small_cnn", weights=None)).engine("torch")
        >>> engine(np.zeros((2, 96, 96, 3), np.uint8)).shape
        (2, 128)
    """

    name = "torch"

    def __init__(
        self, embedder: Embedder, *, precision: Precision = "fp32", device: str = "auto"
    ) -> None:
        self.precision = precision
        self.notes: tuple[str, ...] = ()
        self._device = choose_device(device)
        self._embedder = embedder.to(self._device).to(memory_format=torch.channels_last)

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the rows (n, feature_dim) of pictures (n, size, size, 3)."""
        batch = torch.from_numpy(pictures).to(self._device)
        with torch.inference_mode(), self._autocast():
            rows: NDArray[np.float32] = self._embedder(batch).cpu().numpy()
        return rows

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        kind = self._device.split(":", maxsplit=1)[0]
        return torch.autocast(kind, dtype=torch.bfloat16)


def make_engine(
    embedder: Embedder,
    *,
    name: EngineName = "auto",
    precision: Precision = "fp32",
    fingerprint: str,
    size: int,
) -> Engine:
    """Return the engine of a name; ``"auto"`` is the fastest that is as exact as torch."""
    return TorchEngine(embedder, precision=precision)
