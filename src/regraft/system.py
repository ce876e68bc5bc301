"""Where arithmetic runs and how long it takes: device, threads, stopwatch, progress."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

from regraft.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__version__ = "0.1.0"
_LINE_EVERY_SECONDS = 15.0
_RECORDED = ("torch", "torchvision", "timm", "openvino", "scikit-learn", "numpy", "pillow")


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


def shows_bars() -> bool:
    """Return whether standard error has a place for a bar: a terminal, or a notebook with widgets.

    Example:
        >>> shows_bars() in (True, False)
        True
    """
    in_notebook = "ipykernel" in sys.modules and _is_installed("ipywidgets")
    return sys.stderr.isatty() or in_notebook


@contextmanager
def progress_bar(
    description: str, total: int, *, unit: str = "images", visible: bool = True
) -> Iterator[Callable[[int], None]]:
    """Show how far a piece of work is, on standard error.

    Args:
        description: What is being done, for example ``"Embedding"``.
        total: How many units there are in all.
        unit: What is counted, in the plural.
        visible: Whether to show anything at all.

    Yields:
        A function to call with the number of units done since the last call.

    Example:
        >>> with progress_bar("Embedding", 2, visible=False) as advance:
        ...     advance(2)
    """
    if not visible or total == 0:
        yield lambda _count: None
    elif shows_bars():
        from rich import progress
        from rich.console import Console

        name, left = progress.TextColumn("{task.description}"), progress.TimeRemainingColumn()
        columns = (name, progress.BarColumn(), progress.MofNCompleteColumn(), unit, left)
        with progress.Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(description, total=total)
            yield lambda count: bar.advance(task, count)
            bar.refresh()  # which a notebook does not do at the end
    else:
        yield _lines(description, total, unit)


def _lines(description: str, total: int, unit: str) -> Callable[[int], None]:
    start = shown = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        now = time.monotonic()
        if done and now - shown >= _LINE_EVERY_SECONDS:
            shown = now
            rate = done / (now - start)
            speed = f"{rate:,.{0 if rate >= 10 else 1}f} {unit}/s"
            left = f"{(total - done) / rate:.0f} s left"
            print(f"{description}: {done} of {total} {unit}, {speed}, {left}", file=sys.stderr)

    return advance


def threads() -> int:
    """Return how many processors this process may use.

    Example:
        >>> threads() >= 1
        True
    """
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


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

    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    working = {"cuda": cuda, "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if device == "auto":
        return next(kind for kind, count in working.items() if count)
    kind, _, number = str(device).partition(":")
    if (number or "0").isdecimal() and int(number or 0) < working.get(kind, 0):
        return device
    why = f"{device!r}; torch finds {working.get(kind, 0)} of this kind"
    hint = "use auto, cpu, mps, cuda, or cuda:1 and so on; CUDA needs its driver"
    raise UsageError("unknown device", why=why, hint=hint, code="USAGE-DEVICE")


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
    if kind == "mps" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return kind == "mps"  # without mkldnn torch cannot even be asked
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - no public name


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


def within_memory(run: Callable[[Any], NDArray[Any]], batch: NDArray[Any]) -> NDArray[Any]:
    """Return what a function gives for a batch; where the memory is not enough, half by half.

    Args:
        run: From a batch to one row per sample, each of which depends on its sample alone.
        batch: Samples along the first axis.

    Raises:
        MemoryError: Not even one sample fits; a graphics processor's memory has errors of its own.

    Example:
        >>> import numpy as np
        >>> def double_two(rows):
        ...     if len(rows) > 2:
        ...         raise MemoryError
        ...     return 2 * rows
        >>> within_memory(double_two, np.arange(5)).tolist()
        [0, 2, 4, 6, 8]
    """
    import numpy as np
    import torch

    try:
        return run(batch)
    except (RuntimeError, MemoryError) as error:
        if len(batch) < 2 or not is_out_of_memory(error):
            raise
    # Outside of the handler: the exception holds the tensors of the failed pass.
    torch.cuda.empty_cache()
    return np.concatenate([within_memory(run, half) for half in np.array_split(batch, 2)])


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of a computation says that the memory is not enough.

    Example:
        >>> is_out_of_memory(RuntimeError("MPS backend out of memory"))
        True
    """
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(sign in text for sign in ("not enough memory", "can't allocate", "out of memory"))


def environment() -> dict[str, Any]:
    """Return what a run depended on: versions and threads; no host name, no path, no user.

    Example:
        >>> environment()["python"] == platform.python_version()
        True
    """
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "threads": threads(),
        "packages": {name: metadata.version(name) for name in _RECORDED if _is_installed(name)},
    }


def _is_installed(package: str) -> bool:
    return any(metadata.Distribution.discover(name=package))
