"""Reading and writing a network's tensors: safetensors, and PyTorch's own files on import only.

A file is data or it is refused. Nothing here ever falls back to a reader that could run code.
"""

from __future__ import annotations

import contextlib
import os
import stat
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.errors import ModelError, RegraftError, WeightsError
from regraft.files import atomic_path, sha256_file

if TYPE_CHECKING:
    from torch import Tensor

PYTORCH_SUFFIXES = frozenset({".pth", ".pt", ".bin"})
KERAS_SUFFIXES = frozenset({".h5", ".hdf5"})  # of which keras_files reads the arrays only
# What can hold more than data. Of these only PyTorch's files are ever read, on import, with its
# restricted reader.
_OTHERS = ".pkl .pickle .cpickle .joblib .dill .npy .npz .skops .zip .tar .gz .tgz .7z .mar .keras"
CODE_SUFFIXES = PYTORCH_SUFFIXES | KERAS_SUFFIXES | {".ckpt", *_OTHERS.split()}
_CODE_STARTS = (b"PK\x03\x04", b"\x93NUMPY", b"\x89HDF", *(bytes((0x80, n)) for n in range(2, 6)))
_ELEMENT_TYPES = {"float16", "bfloat16", "float32", "float64", "bool", "uint8"}
_ELEMENT_TYPES |= {"int8", "int16", "int32", "int64"}
_WRAPPERS = ("state_dict", "model_state_dict", "model", "model_ema", "state_dict_ema", "net")
_PREFIXES = ("module.", "_orig_mod.")
_ADVICE = "save the weights as safetensors: safetensors.torch.save_file(net.state_dict(), FILE)"


def may_hold_code(path: str | os.PathLike[str]) -> str:
    """Say why a file could run code when it is read in full, or "" if it is plain data.

    Args:
        path: Any file; judged by the end of its name and by its first bytes.

    Example:
        >>> may_hold_code("model.pkl"), may_hold_code("model.json")
        ('a .pkl file can hold code', '')
    """
    file = Path(path)
    if file.suffix.lower() in CODE_SUFFIXES:
        return f"a {file.suffix.lower()} file can hold code"
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return ""
        with file.open("rb") as stream:
            start = stream.read(9)
    except OSError:  # what is not there or not readable is refused later, by name
        return ""
    # The ninth byte of a safetensors file is the brace that opens its header; the eight before are
    # a length, which may look like anything.
    is_code = start.startswith(_CODE_STARTS) and start[8:] != b"{"
    return "it begins like a pickle or an archive" if is_code else ""


def read_state(
    path: str | os.PathLike[str], *, importing: bool = False, sha256: str | None = None
) -> dict[str, Tensor]:
    """Read the tensors of a network by name.

    Args:
        path: A ``.safetensors`` file; on import also ``.pth``, ``.pt`` or ``.bin``.
        importing: Whether PyTorch's own files may be read, with its restricted reader.
        sha256: The hash that the file must have; None accepts any.

    Returns:
        Tensors on the CPU, float16 and bfloat16 widened to float32, all values finite; out of the
        wrappers in which PyTorch's own files often stand.

    Raises:
        ModelError: ``MODEL-CORRUPT`` (damaged), ``MODEL-UNSAFE`` (holds more than data),
            ``MODEL-CHECKSUM`` (not the expected file) or ``MODEL-NAN``.
        WeightsError: ``WEIGHTS-MISSING`` or ``WEIGHTS-FORMAT``.

    Example:
        >>> import tempfile, torch
        >>> file = Path(tempfile.mkdtemp()) / "net.safetensors"
        >>> write_state(file, {"weight": torch.ones(2, dtype=torch.float16)})
        >>> read_state(file)["weight"].dtype
        torch.float32
    """
    file = Path(path)
    _check_readable(file, importing=importing)
    if sha256 is not None and (found := sha256_file(file)) != sha256:
        what = "the weights are not the ones that were stored"
        why = f"SHA-256 is {found[:12]}…, expected {sha256[:12]}…"
        hint = "remove the file and import or fetch the weights again"
        raise ModelError(what, path=file, why=why, hint=hint, code="MODEL-CHECKSUM")
    if file.suffix.lower() in PYTORCH_SUFFIXES:
        state = _unwrapped(_load_pytorch(file), file)
    else:
        import safetensors.torch

        with _damage_named(file):
            state = safetensors.torch.load_file(file)
    _check_tensors(state, file)
    half = ("torch.float16", "torch.bfloat16")
    plain = {name: tensor.detach() for name, tensor in state.items()}
    state = {name: t.float() if str(t.dtype) in half else t for name, t in plain.items()}
    check_finite(state, path=file)
    return state


def write_state(path: str | os.PathLike[str], state: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically; the same tensors always give the same bytes.

    Raises:
        ModelError: ``MODEL-NAN``: a value is NaN or infinite.
        RegraftError: ``FILE-WRITE``: the disk is full or the folder cannot be written.

    Example:
        >>> import tempfile, torch
        >>> file = Path(tempfile.mkdtemp()) / "net.safetensors"
        >>> write_state(file, {"weight": torch.ones(2)})
        >>> file.stat().st_size
        112
    """
    import safetensors
    import safetensors.torch

    check_finite(state, path=path)
    # A copy of its own for each tensor: safetensors refuses those that share memory.
    plain = {name: state[name].detach().cpu().contiguous().clone() for name in sorted(state)}
    with atomic_path(path) as part:
        try:
            safetensors.torch.save_file(plain, part, metadata={"format": "pt"})
        except safetensors.SafetensorError as error:  # what the library makes of a full disk
            why, hint = str(error)[:200], "free some space there or choose another folder"
            what = "cannot write"
            raise RegraftError(what, path=path, why=why, hint=hint, code="FILE-WRITE") from error


def check_finite(state: Mapping[str, Tensor], *, path: str | os.PathLike[str]) -> None:
    """Refuse tensors that hold NaN or infinity.

    Raises:
        ModelError: ``MODEL-NAN``, naming the file and the first such tensor.

    Example:
        >>> import torch
        >>> check_finite({"bias": torch.tensor([float("nan")])}, path="a.bin")
        Traceback (most recent call last):
        regraft.errors.ModelError: some weights are not finite - a.bin - NaN or infinity in bias
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            why = f"NaN or infinity in {name}"
            raise ModelError("some weights are not finite", path=path, why=why, code="MODEL-NAN")


def _check_readable(file: Path, *, importing: bool) -> None:
    try:
        regular = stat.S_ISREG(file.stat().st_mode)
    except (OSError, ValueError) as error:
        raise WeightsError("no such file of weights", path=file, code="WEIGHTS-MISSING") from error
    if not regular:  # a FIFO would block for ever
        raise WeightsError("not a regular file", path=file, code="WEIGHTS-FORMAT")
    suffix = file.suffix.lower()
    if suffix == ".safetensors" or (importing and suffix in PYTORCH_SUFFIXES):
        return
    if suffix in PYTORCH_SUFFIXES | KERAS_SUFFIXES:
        what = f"a {suffix} file is read only on import"
        hint = "regraft weights import FILE --name NAME --backbone BACKBONE"
        raise WeightsError(what, path=file, hint=hint, code="WEIGHTS-FORMAT")
    what, why = "this is no format of weights that is read", may_hold_code(file) or suffix
    if suffix in CODE_SUFFIXES:
        raise ModelError(what, path=file, why=why, hint=_ADVICE, code="MODEL-UNSAFE")
    raise WeightsError(what, path=file, why=why, hint=_ADVICE, code="WEIGHTS-FORMAT")


def _load_pytorch(file: Path) -> Any:
    import torch

    with _damage_named(file), warnings.catch_warnings():
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
            # PyTorch never compresses; what unpacks to more than its own size was made to do harm.
            large = sum(member.file_size for member in members) > file.stat().st_size
            if large or any(member.compress_type for member in members):
                raise corrupt(file, "its parts are compressed or overlap")
        warnings.simplefilter("ignore")  # on how the file was pickled; it loads or it does not
        return torch.load(file, map_location="cpu", weights_only=True)


@contextlib.contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    """Turn whatever a reader makes of damaged bytes into one error that names the file."""
    try:
        yield
    except (RegraftError, MemoryError):
        raise
    except Exception as error:
        # The readers raise SafetensorError, RuntimeError, EOFError, KeyError, IndexError, TypeError
        # and more on mutated files: no list of them would be complete. What the restricted reader
        # refuses as more than data is an UnpicklingError.
        if type(error).__name__ == "UnpicklingError":
            what = "the file holds more than tensors and was not read"
            why = "PyTorch's restricted reader refused it; reading it in full could run code"
            raise ModelError(what, path=file, why=why, hint=_ADVICE, code="MODEL-UNSAFE") from error
        line = (str(error).splitlines() or [""])[0]
        raise corrupt(file, f"{type(error).__name__}: {line[:160]}") from error


def corrupt(file: Path, why: str) -> ModelError:
    """Return the error for a file of weights that cannot be read."""
    what, hint = "the file of weights is damaged", "fetch or copy it again"
    return ModelError(what, path=file, why=why, hint=hint, code="MODEL-CORRUPT")


def _unwrapped(content: Any, file: Path) -> dict[str, Tensor]:
    table = content if isinstance(content, dict) else {}
    wrapper = next((key for key in _WRAPPERS if isinstance(table.get(key), dict)), "")
    state = table[wrapper] if wrapper else content
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise corrupt(file, f"it holds a {type(state).__name__}, no tensors by name")
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _check_tensors(state: Mapping[str, Any], file: Path) -> None:
    """Refuse what is no ordinary tensor."""
    import torch

    if not state:
        raise corrupt(file, "it holds no tensors")
    for name, value in state.items():
        if type(value) not in {torch.Tensor, torch.nn.Parameter}:
            raise corrupt(file, f"{name!r} is a {type(value).__name__}, no tensor")
        plain = value.layout == torch.strided and value.device.type == "cpu"
        if not plain or str(value.dtype).removeprefix("torch.") not in _ELEMENT_TYPES:
            raise corrupt(file, f"{name!r} is no dense tensor of an ordinary element type")
        # A few bytes are repeated by a stride of 0.
        if value.numel() * value.element_size() > file.stat().st_size:
            raise corrupt(file, f"{name!r} is larger than the whole file")
