"""Where arithmetic runs and how long it takes: device, threads, stopwatch, environment."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from regraft.errors import UsageError

_RECORDED = (
    "torch",
    "torchvision",
    "timm",
    "openvino",
    "scikit-learn",
    "numpy",
    "pillow",
    "safetensors",
)


class Stopwatch:
    """Seconds spent in each named step, added up over repeated entries.

    Example:
        >>> watch = Stopwatch()
        >>> with watch.step("fit"):
        ...     pass
        >>> list(watch.seconds)
        ['fit']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time spent inside the ``with`` block to the step ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def threads() -> int:
    """Return how many processors this process may use.

    Example:
        >>> threads() >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_device(device: str = "auto") -> str:
    """Return ``device`` itself, or for ``"auto"`` the first of cuda, mps and cpu that works.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"mps"``, ``"cuda"`` or ``"cuda:1"`` and so on.

    Raises:
        UsageError: There is no such device (``USAGE-DEVICE``).

    Example:
        >>> choose_device("cpu")
        'cpu'
    """
    if device == "cpu":
        return device
    import torch

    working = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    if device == "auto":
        return next(kind for kind, count in working.items() if count)
    kind, _, number = str(device).partition(":")
    if kind not in working or not (number or "0").isdecimal():
        raise UsageError(
            "unknown device",
            why=repr(device),
            hint="use auto, cpu, mps, cuda, or cuda:1 and so on",
            code="USAGE-DEVICE",
        )
    if int(number or 0) >= working[kind]:
        raise UsageError(
            "torch cannot compute on this device",
            why=f"{device}; torch finds {working[kind]} of this kind",
            hint="use auto or cpu; CUDA needs its driver, and a torch that was built for it",
            code="USAGE-DEVICE",
        )
    return device


def has_bf16(device: str) -> bool:
    """Return whether a device computes in bfloat16; emulated, it is many times slower than float32.

    Args:
        device: ``"cpu"``, ``"mps"``, ``"cuda"`` or ``"cuda:1"`` and so on.

    Example:
        >>> has_bf16("cpu") in (True, False)
        True
    """
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "cpu":
        known = torch.backends.mkldnn.is_available()  # else torch cannot be asked
        return known and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - no public name
    return True


@contextmanager
def exact_float32(device: str) -> Iterator[None]:
    """Let CUDA compute with all 24 bits of a float32 while the block lasts.

    Its convolutions would round to the 11 bits of TensorFloat-32, and features would differ from
    those of a processor in the third digit.

    Args:
        device: Where torch computes; others than CUDA's are exact as they are.
    """
    import torch

    before = torch.backends.cudnn.allow_tf32
    if device.startswith("cuda"):
        torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def environment() -> dict[str, Any]:
    """Return what a run depended on: versions and threads; no host name, no path, no user.

    Example:
        >>> environment()["python"] == platform.python_version()
        True
    """
    versions = {}
    for name in _RECORDED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "threads": threads(),
        "packages": versions,
    }
