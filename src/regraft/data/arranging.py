"""Putting the pictures of a published layout into one folder for each class."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from regraft.data.layouts import Arrangement, Layout, Placement, files_below, is_picture
from regraft.data.scan import SOURCE_PREFIX
from regraft.errors import DataError
from regraft.files import sha256_file

# How files begin that a program for pictures would open, whatever their names say.
_BEGINNINGS = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"RIFF",  # WebP
    b"BM",
    b"II*\0",  # TIFF, both byte orders
    b"MM\0*",
    *(b"P%d" % number for number in range(1, 7)),  # PPM and its relatives
    b"\0\0\0",  # the length of the first box: AVIF, HEIC, JPEG 2000, JPEG XL
)


@dataclass(frozen=True)
class Arranged:
    """What was put where.

    Args:
        classes: How many pictures each class has.
        parts: How many pictures each part has; {} where the source is not cut.
        removed: What was left out, and how many of each.
        broken: Files that are meant to be pictures and are none.
    """

    classes: dict[str, int]
    parts: dict[str, int]
    removed: dict[str, int]
    broken: tuple[str, ...]


def arrange(layout: Layout, source: Path, into: Path, *, move: bool) -> Arranged:
    """Put pictures into ``[PART/]CLASS/NAME`` and papers beside, as ``SOURCE.NAME``.

    Args:
        layout: How ``source`` is laid out.
        source: A folder with all files of a data set.
        into: Where the folders of the parts or classes shall stand.
        move: Whether files are moved; else they are copied, and ``source`` stays as it is.

    Raises:
        DataError: ``DATA-LAYOUT``: the folder is laid out in another way.
        OSError: A file cannot be read or written.
    """
    found = layout.arrange(source)
    broken = [each for each in found.placements if not _begins_like_a_picture(each.source)]
    left_out = set(broken)
    whole = [each for each in found.placements if each not in left_out]
    targets = [into / each.part / each.label / each.source.name for each in whole]
    _refuse_twins(source, whole, targets)
    removed = _left_over(source, found)  # looks for copies, so before anything is moved
    for each, target in zip(whole, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        _put(each.source, target, move=move)
    for paper in found.papers:
        _put(paper, into / f"{SOURCE_PREFIX}{paper.name.removeprefix(SOURCE_PREFIX)}", move=move)
    parts = Counter(each.part for each in whole if each.part)
    return Arranged(
        classes=dict(sorted(Counter(each.label for each in whole).items())),
        parts={part: parts[part] for part in ("train", "val", "test") if part in parts},
        removed=removed,
        broken=tuple(each.source.relative_to(source).as_posix() for each in broken),
    )


def _put(source: Path, target: Path, *, move: bool) -> None:
    if move:
        source.replace(target)
    else:
        shutil.copyfile(source, target)  # not its mode: a read-only copy could not be deleted


def _begins_like_a_picture(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(16).startswith(_BEGINNINGS)


def _refuse_twins(source: Path, whole: list[Placement], targets: list[Path]) -> None:
    first: dict[str, Placement] = {}
    for each, target in zip(whole, targets, strict=True):
        other = first.setdefault(str(target).casefold(), each)
        if other is not each:
            raise DataError(
                "two pictures of one class have the same name",
                path=source,
                why=f"{other.source.relative_to(source)} and {each.source.relative_to(source)}",
                hint="give the archive or folder as it was published",
                code="DATA-LAYOUT",
            )


def _left_over(source: Path, found: Arrangement) -> dict[str, int]:
    """Say what is not among the placed pictures, and how much of it there is."""
    removed = {
        f"pictures in {name}, which is no class": len(pictures)
        for name, pictures in found.removed.items()
        if pictures
    }
    used = {each.source for each in found.placements} | set(found.papers)
    used.update(picture for pictures in found.removed.values() for picture in pictures)
    rest = [file for file in files_below(source) if file not in used]
    pictures = [file for file in rest if is_picture(file)]
    copies = _copies(pictures, [each.source for each in found.placements])
    other = [file for file in pictures if file not in copies]
    for what, files in (("copies of other pictures", sorted(copies)), ("other pictures", other)):
        if files:
            removed[f"{what}, in {_common_folder(source, files)}"] = len(files)
    suffixes = Counter(file.suffix.lower() for file in rest if not is_picture(file))
    for suffix, count in sorted(suffixes.items()):
        removed[f"{suffix or 'no suffix'}: not a picture"] = count
    return removed


def _copies(files: list[Path], originals: Iterable[Path]) -> set[Path]:
    """Return those files that have the same content as one of the originals."""
    if not files:
        return set()
    sizes = {file: file.stat().st_size for file in files}
    wanted = set(sizes.values())
    alike = [file for file in originals if file.stat().st_size in wanted]
    hashes = {sha256_file(file) for file in alike}
    there = {file.stat().st_size for file in alike}
    return {file for file in files if sizes[file] in there and sha256_file(file) in hashes}


def _common_folder(source: Path, files: Iterable[Path]) -> str:
    folder = os.path.commonpath([file.parent for file in files])
    relative = Path(folder).relative_to(source).as_posix()
    return "the folder itself" if relative == "." else relative
