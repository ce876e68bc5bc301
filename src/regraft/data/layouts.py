"""From the archive and the layout in which a data set is published to one folder for each class.

Archives are untrusted. One is unpacked whole or not at all, and a member that leads out of the
folder, is a link or a device, is encrypted, or has the name of another one on some system
(``A.jpg`` and ``a.jpg``) refuses it, as does what would become too large.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from regraft.data.image_errors import looks_like
from regraft.data.sources import PART_NAMES, PARTS, SOURCE_PREFIX, is_image_name, is_junk
from regraft.errors import DataError, list_names
from regraft.files import atomic_folder, free_bytes
from regraft.settings import settings_class

_BLOCK = 1 << 20
_TAR_BLOCK = 512
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError),
    *(RecursionError, NotImplementedError),  # the last one of a zip that is packed in another way
)
_NUMBER = re.compile(r"^image_(\d+)\.jpg$", re.IGNORECASE)
# What an archive may become; images hardly shrink, so what unpacks a lot is no image.
MOST_BYTES = 64 << 30
MOST_RATIO = 100  # bytes of all files for each byte of the archive, beyond the first 16 MiB


@settings_class(DataError)
class Layout:
    """How a data set is published.

    Args:
        kind: ``class_folders``: a folder for each class, in the parts train, val and test or not,
            at any depth, of which the highest are taken. ``leaf_folders``: a folder for each class
            at different depths. ``number_ranges``: images ``image_0001.jpg`` …, a fixed number for
            each class in turn. ``name_prefixes``: one folder of images whose names begin with their
            class.
        names: All classes, in the order of their numbers where they have some.
        among: Some of the classes, by which the data set is known where not all are named.
        leave_out: Folders that are no class.
        each: How many images a class has, for ``number_ranges``.
    """

    kind: Literal["class_folders", "leaf_folders", "number_ranges", "name_prefixes"]
    names: tuple[str, ...] = ()
    among: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    each: int = 0


@dataclass(frozen=True)
class Arranged:
    """How many images each class and part has, what was left out, and files that are no images."""

    classes: dict[str, int]
    parts: dict[str, int]
    removed: dict[str, int]
    broken: tuple[str, ...]


class _Placement(NamedTuple):
    """Where one image belongs; the part is empty where the source has none."""

    source: Path
    part: str
    label: str


def arrange(layout: Layout, source: Path, into: Path, *, move: bool) -> Arranged:
    """Put images into ``[PART/]CLASS/NAME`` and licences beside, as ``SOURCE.NAME``.

    Args:
        layout: How ``source`` is laid out.
        source: A folder with all files of a data set.
        into: Where the folders of the parts or classes shall stand.
        move: Whether files are moved; else they are copied, and ``source`` stays as it is.

    Raises:
        DataError: ``DATA-LAYOUT``: the folder is laid out in another way.
        OSError: A file cannot be read or written.
    """
    every = _LAYOUTS[layout.kind](layout, source)
    broken = {each.source for each in every if not _begins_like_an_image(each.source)}
    whole = [each for each in every if each.source not in broken]
    targets = {each: into / each.part / each.label / each.source.name for each in whole}
    first: dict[str, Path] = {}
    for each, target in targets.items():
        other = first.setdefault(str(target).casefold(), each.source)
        if other is not each.source:
            why = f"{other.relative_to(source)} and {each.source.relative_to(source)}"
            raise _other_layout(source, why, "two images of one class have the same name")
    rest = sorted(set(files_below(source)) - {each.source for each in every})
    papers = [file for file in rest if file.stem.lower().startswith("licen")]
    removed = _left_over(source, [file for file in rest if file not in papers])
    # Not shutil.copy: with the mode of a read-only source a copy could not be deleted.
    put: Callable[[Path, Path], Any] = Path.replace if move else shutil.copyfile
    for each, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        put(each.source, target)
    for paper in papers:
        put(paper, into / f"{SOURCE_PREFIX}{paper.name.removeprefix(SOURCE_PREFIX)}")
    parts = Counter(each.part for each in whole if each.part)
    return Arranged(
        classes=dict(sorted(Counter(each.label for each in whole).items())),
        parts={part: parts[part] for part in PARTS if part in parts},
        removed=removed,
        broken=tuple(file.relative_to(source).as_posix() for file in sorted(broken)),
    )


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file in a folder and below but what systems leave behind, in a fixed order."""
    for place in _folders_below(folder):
        yield from _files_in(place)


def unpack(archive: Path, folder: Path) -> int:
    """Unpack an archive into a new folder, which appears whole or not at all.

    Args:
        archive: A zip or tar file; the kind is read from its content.
        folder: Where the files shall stand; it must not exist.

    Returns:
        How many files that a system left behind were not taken.

    Raises:
        DataError: It is damaged, asks for a password, holds a member that must not be written, or
            is too large (``ARCHIVE-DAMAGED``, ``-ENCRYPTED``, ``-UNSAFE``, ``-TOO-LARGE``).
        RegraftError: The folder is there already (``FILE-EXISTS``) or cannot be written.
    """
    try:
        archive.open("rb").close()
    except OSError as error:
        what, why = "cannot read the archive", error.strerror or ""
        raise DataError(what, path=archive, why=why, code="DATA-UNREADABLE") from error
    with atomic_folder(folder) as part:
        if free_bytes(part) < archive.stat().st_size:
            raise _too_large(archive, "there is less free on that disk than the archive has")
        try:
            kind = _unpack_zip if zipfile.is_zipfile(archive) else _unpack_tar
            return kind(archive, part)
        except (OSError, *_DAMAGE) as error:
            if getattr(error, "errno", None) is not None:
                raise  # of the disk, not of a packer
            raise _damaged(archive, str(error)[:200] or type(error).__name__) from error


def _class_folders(layout: Layout, folder: Path) -> list[_Placement]:
    for place in _folders_below(folder):
        if found := _classes_in(layout, place):
            return [
                _Placement(image, part, each.name)
                for part, each in found
                for image in _images(each)
            ]
    wanted = list_names(layout.names or layout.among)
    raise _other_layout(folder, f"no folder that holds folders of images named {wanted}")


def _classes_in(layout: Layout, place: Path) -> list[tuple[str, Path]]:
    """Return the class folders in ``place`` with their parts; [] if it is not the one."""
    inner = _folders_in(place)
    parts = [(PART_NAMES.get(each.name.casefold(), ""), each) for each in inner]
    cut = [(part, _choose(layout, _folders_in(each))) for part, each in parts if part]
    if any(part == "train" for part, _ in cut) and all(chosen for _, chosen in cut):
        return [(part, each) for part, chosen in cut for each in chosen]
    return [("", each) for each in _choose(layout, inner)]


def _choose(layout: Layout, folders: list[Path]) -> list[Path]:
    if layout.names:
        chosen = [each for each in folders if each.name in layout.names]
        return chosen if len(chosen) == len(layout.names) else []
    chosen = [
        each for each in folders if each.name not in layout.leave_out and next(_images(each), None)
    ]
    return chosen if {each.name for each in chosen} >= set(layout.among) else []


def _leaf_folders(layout: Layout, folder: Path) -> list[_Placement]:
    found: list[_Placement] = []
    owners: dict[str, Path] = {}
    for inner in _folders_below(folder):
        images = list(_images(inner))
        is_class = images and inner != folder and inner.name not in layout.leave_out
        # Another folder of the same name holds copies, or is left over and said.
        if is_class and owners.setdefault(inner.name, inner) == inner:
            found += [_Placement(image, "", inner.name) for image in images]
    if missing := sorted(set(layout.among) - set(owners)):
        raise _other_layout(folder, f"no folder of images named {list_names(missing)}")
    return found


def _number_ranges(layout: Layout, folder: Path) -> list[_Placement]:
    # The number alone decides, so images that somebody has sorted already come out the same.
    numbered: dict[int, Path] = {}
    for file in files_below(folder):
        match = _NUMBER.match(file.name)
        if match and 0 < int(match[1]) <= layout.each * len(layout.names):
            numbered.setdefault(int(match[1]), file)  # of two alike the one that lies higher
    if not numbered:
        raise _other_layout(folder, "no folder that holds image_0001.jpg …")
    return [
        _Placement(image, "", layout.names[(n - 1) // layout.each])
        for n, image in sorted(numbered.items())
    ]


def _name_prefixes(layout: Layout, folder: Path) -> list[_Placement]:
    for place in _folders_below(folder):
        every = [_Placement(image, "", image.name.partition(".")[0]) for image in _images(place)]
        placements = [each for each in every if each.label in layout.names]
        if {each.label for each in placements} == set(layout.names):
            return placements
    wanted = list_names(f"{name}.0.jpg" for name in layout.names)
    raise _other_layout(folder, f"no folder that holds files such as {wanted}")


_LAYOUTS: dict[str, Callable[[Layout, Path], list[_Placement]]] = {
    "class_folders": _class_folders,
    "leaf_folders": _leaf_folders,
    "number_ranges": _number_ranges,
    "name_prefixes": _name_prefixes,
}


def _folders_below(folder: Path) -> Iterator[Path]:
    """Yield a folder and those below it, the highest first; links are not followed."""
    level = [folder]
    while level:
        yield from level
        level = [inner for place in level for inner in _folders_in(place)]


def _folders_in(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]


def _files_in(folder: Path) -> Iterator[Path]:
    return (Path(entry.path) for entry in _entries(folder) if entry.is_file())


def _images(folder: Path) -> Iterator[Path]:
    return (file for file in _files_in(folder) if is_image_name(file.name))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not is_junk(entry.name)]
    except OSError as error:
        what, why = "cannot read the folder", error.strerror or ""
        raise DataError(what, path=folder, why=why, code="DATA-UNREADABLE") from error
    return sorted(found, key=lambda entry: entry.name)


def _begins_like_an_image(file: Path) -> bool:
    with file.open("rb") as stream:
        kind = looks_like(stream.read(_TAR_BLOCK))
    return kind.readable or kind.image


def _left_over(source: Path, rest: list[Path]) -> dict[str, int]:
    """Say what is not among the placed images, and how much of it there is."""
    removed = {}
    images = [file for file in rest if is_image_name(file.name)]
    if images:
        folder = Path(os.path.commonpath([file.parent for file in images]))
        place = folder.relative_to(source).as_posix()
        removed[f"other images, in {'the folder itself' if place == '.' else place}"] = len(images)
    suffixes = Counter(file.suffix.lower() for file in rest if not is_image_name(file.name))
    for suffix, count in sorted(suffixes.items()):
        removed[f"{suffix or 'no suffix'}: not an image"] = count
    return removed


def _unpack_zip(archive: Path, part: Path) -> int:
    with zipfile.ZipFile(archive) as file:
        members = [info for info in file.infolist() if not info.is_dir()]
        if any(info.flag_bits & 1 for info in members):
            hint = "unpack it yourself and give the folder"
            what, code = "the archive asks for a password", "ARCHIVE-ENCRYPTED"
            raise DataError(what, path=archive, hint=hint, code=code)
        if sum(info.compress_size for info in members) > archive.stat().st_size:
            raise _damaged(archive, "its members overlap")
        written: dict[str, str] = {}
        size = 0
        for info in members:
            if stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFREG}:
                raise _unsafe(archive, info.filename, "it is a link or a device")
            size += info.file_size  # no more than that comes out
            _check_size(archive, size)
            _check_name(archive, info.orig_filename, written)
        kept = [info for info in members if not _is_junk(info.filename)]
        file.extractall(part, kept)  # noqa: S202 - their names are checked
    return len(members) - len(kept)


def _unpack_tar(archive: Path, part: Path) -> int:
    members, size = [], 0
    written: dict[str, str] = {}
    with tarfile.open(archive) as file:
        for info in file:  # its header comes before its data, so that a bomb is noticed early
            if not (info.isreg() or info.isdir()):
                raise _unsafe(archive, info.name, "it is a link, a device or no plain file")
            if info.isreg():
                members.append(info)
                size += info.size
                _check_size(archive, size)
                _check_name(archive, info.name, written)
        assert file.fileobj is not None
        file.fileobj.seek(file.offset)
        end = file.fileobj.read(_TAR_BLOCK)
        if len(end) < _TAR_BLOCK or end.strip(b"\0"):  # tarfile takes damage for the end
            raise _damaged(archive, "it ends without a tar's end mark")
        while file.fileobj.read(_BLOCK):  # to the end, where the packers keep their checksums
            pass
        kept = [info for info in members if not _is_junk(info.name)]
        for info in kept:
            info.mode = None  # type: ignore[assignment]  # as the system has it for new files
        file.extractall(part, kept, filter="data")
    return len(members) - len(kept)


def _is_junk(name: str) -> bool:
    return any(map(is_junk, PurePosixPath(name).parts))


def _check_size(archive: Path, size: int) -> None:
    packed = archive.stat().st_size
    allowed = min(MOST_BYTES, max(16 << 20, packed * MOST_RATIO))
    if size > allowed:
        raise _too_large(archive, f"over {allowed:,} bytes would come out of {packed:,}")


def _check_name(archive: Path, name: str, written: dict[str, str]) -> None:
    """Refuse a name that leads out, or that some file system takes for one of those ``written``."""
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or any(p[1:2] == ":" for p in path.parts)
    if outside or not path.parts or "\\" in name or "\0" in name:
        raise _unsafe(archive, name, "its name leads out of the folder")
    for place in [*[*path.parents][-2::-1], path]:
        folded = unicodedata.normalize("NFC", str(place)).casefold()
        key = "/".join(part.rstrip(" .") for part in folded.split("/"))
        exact = str(place) if place is path else f"{place}/"
        if key in written and (place is path or written[key] != exact):
            raise _unsafe(archive, name, f"{written[key]!a} is the same name on some systems")
        written[key] = exact


def _damaged(archive: Path, why: str) -> DataError:
    what, hint = "not a whole zip or tar archive", "get it again"
    return DataError(what, path=archive, why=why, hint=hint, code="ARCHIVE-DAMAGED")


def _unsafe(archive: Path, name: str, why: str) -> DataError:
    what = f"the archive holds {name!a:.200}, which is not written"
    hint = "nothing was unpacked; get the archive from its publisher"
    return DataError(what, path=archive, why=why, hint=hint, code="ARCHIVE-UNSAFE")


def _too_large(archive: Path, why: str) -> DataError:
    hint = "nothing was unpacked; make room, or unpack it yourself and give the folder"
    what = "the archive is too large to unpack"
    return DataError(what, path=archive, why=why, hint=hint, code="ARCHIVE-TOO-LARGE")


def _other_layout(
    folder: Path, why: str, what: str = "the images are not laid out as this data set is published"
) -> DataError:
    hint = "give the archive or folder as it was published"
    return DataError(what, path=folder, why=why, hint=hint, code="DATA-LAYOUT")
