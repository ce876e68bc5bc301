"""Commands about images before anything is learned: `data check | split | preview | fetch`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from regraft.cli.options import Fields, JsonOption, arg, opt
from regraft.cli.output import EXIT_FAILED, echo, echo_err, echo_json, echo_refused, echo_table
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.data.named import FetchedData
    from regraft.experiment.config import DataConfig

_MOST = 20  # that are listed by name


def check(
    data: Annotated[
        DataConfig, Fields("source group_by label_from_name root follow_links allow_empty_class")
    ],
    *,
    out: Annotated[
        Path | None, opt("Also write check.json and bad_files.csv here.", "FOLDER")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Decode every image and list what is wrong: bad files, duplicates, groups in two parts."""
    from regraft.data.check import check as check_images
    from regraft.experiment.prepare import read_images

    report = check_images(read_images(data), verbose=not as_json)
    if out is not None:
        report.write(out)
    if as_json:
        echo_json(report.to_json())
    else:
        echo(report.to_text())
    return EXIT_FAILED if report.has_errors else 0


def split(
    data: Annotated[DataConfig, Fields(without="per_class size fraction")],
    *,
    out: Annotated[Path, opt("Where split.csv and split.json are written.", "FOLDER")],
    as_json: JsonOption = False,
) -> int:
    """Split the images into train, validation and test, and write the manifest with its hash."""
    from regraft.experiment.prepare import write_split

    prepared = write_split(data, out, verbose=not as_json)
    split, bad = prepared.split, prepared.report.bad
    sizes = {name: len(part) for name, part in split.parts().items()}
    manifest = str(out / "split.csv")
    if as_json:
        refused = [error.to_json() for error in bad]
        echo_json({"hash": split.hash, "manifest": manifest, "images": sizes, "bad_files": refused})
    else:
        echo("  ".join(f"{name} {size}" for name, size in sizes.items()))
        echo_err(f"written to {manifest}; hash {split.hash[:16]}")
    return echo_refused(bad, as_json=as_json)


def preview(
    data: Annotated[DataConfig, Fields("source label_from_name root follow_links")],
    *,
    augment: Annotated[
        str, opt("A named augmentation, or settings: rotation=30,zoom=0.2,flip=true.", "NAME")
    ] = "standard",
    out: Annotated[Path, opt("Where the sheet is written, a PNG.", "FILE")],
    images: Annotated[int, opt("How many images, one of each class first.", min=1, max=50)] = 4,
    views: Annotated[int, opt("How many views of each.", min=1, max=50)] = 7,
    size: Annotated[int, opt("Height and width that enter the network.", min=8, max=1024)] = 224,
    seed: Annotated[int, opt("Seed of the choice and of the views.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show a few images as they are and augmented, on one sheet."""
    if out.suffix.lower() != ".png":
        raise UsageError("the sheet is a PNG file", path=out, hint="end its name in .png")
    from regraft.backbones.backbone import prepare
    from regraft.backbones.spec import Preprocessing
    from regraft.data.images import open_image
    from regraft.experiment.prepare import read_images
    from regraft.files import atomic_path
    from regraft.report.gallery import preview_sheet
    from regraft.settings import changed_fields, to_json
    from regraft.training.augment import AUGMENTATIONS, find_augmentation

    found = find_augmentation(augment)
    if found is None:
        raise UsageError("there is no augmentation to show", hint="give --augment a name")
    listed = read_images(replace(data, allow_empty_class=True))
    chosen = listed.subset(size=min(images, len(listed)), seed=seed)
    preprocessing = found.before(Preprocessing.torch(size))
    sheet = preview_sheet(
        [
            (f"{label}: {path.name}", prepare(open_image(path), preprocessing))
            for path, label in zip(chosen.paths, chosen.labels, strict=True)
        ],
        partial(found, size=size),
        views=views,
        seed=seed,
        title=f"Augmentation {augment}" if augment in AUGMENTATIONS else "Augmentation",
        subtitle=", ".join(f"{key}={value}" for key, value in changed_fields(found).items()),
    )
    with atomic_path(out) as part:
        sheet.save(part, "PNG")
    if as_json:
        echo_json({"sheet": str(out), "augmentation": to_json(found)})
    else:
        echo(str(out))


def fetch(
    name: Annotated[str | None, arg("Without a name: list what there is.", "[NAME]")] = None,
    *,
    to: Annotated[Path | None, opt("Where it is written; by default ./NAME.", "FOLDER")] = None,
    source: Annotated[
        Path | None, opt("An archive or folder to take it from.", "FILE_OR_FOLDER", "--from")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a named data set into a folder for each class, checked and without known junk."""
    from regraft.data.named import fetch_data

    if name is None:
        if to is not None or source is not None:
            raise UsageError("which data set?", hint="`regraft data fetch` lists the names")
        _list_named(as_json=as_json)
        return
    try:
        fetched = fetch_data(name, to, source=source, verbose=not as_json)
    except KeyboardInterrupt:
        echo_err("what has come so far is kept; the same command resumes it")
        raise
    if as_json:
        echo_json(fetched.to_json())
    else:
        _echo_fetched(fetched, to or Path(name))


def _list_named(*, as_json: bool) -> None:
    from regraft.data.named import named_data
    from regraft.report.tables import Table

    if as_json:
        names = ("name", "title", "classes", "images", "licence", "page")
        listed = [
            {name: getattr(data, name) for name in names}
            | {"bytes": data.size or None, "url": data.url}
            for data in named_data()
        ]
        echo_json({"data_sets": listed})
        return
    rows = tuple(
        (
            *(data.name, data.classes, f"{data.images:,}"),
            *(_size(data.size) if data.url else "by hand", data.title, data.licence),
        )
        for data in named_data()
    )
    echo_table(Table(("name", "classes", "images", "download", "what", "licence"), rows))
    echo_err(
        "by hand: get it from its publisher, then `regraft data fetch NAME --from FILE_OR_FOLDER`"
    )


def _echo_fetched(fetched: FetchedData, folder: Path) -> None:
    source = fetched.source
    counts = [f"{label} {count:,}" for label, count in source.classes.items()]
    more = f" and {len(counts) - _MOST} more" if len(counts) > _MOST else ""
    parts = ", ".join(f"{part} {count:,}" for part, count in source.parts.items())
    broken = ", ".join(source.broken[:5]) + (", …" if len(source.broken) > 5 else "")
    lines = [
        f"{source.name} is there already, nothing was done" if fetched.already else "",
        f"{source.images:,} images of {len(counts)} classes in {folder}",
        f"classes: {', '.join(counts[:_MOST])}{more}",
        f"parts, as published: {parts}" if parts else "",
        f"licence: {source.licence}",
        f"cite: {source.citation}",
        f"file: {source.archive}, SHA-256 {source.sha256} (compared: {source.checked})"
        if source.archive
        else "",
        *(f"left out: {count:,} {what}" for what, count in source.removed.items()),
        f"left out, not images ({len(source.broken):,}): {broken}" if broken else "",
        *(f"note: {note}" for note in source.notes),
    ]
    echo("\n".join(filter(None, lines)))
    if not fetched.already:
        echo_err(f"recorded in {folder / 'SOURCE.json'}; next: regraft data check {folder}")


def _size(count: int) -> str:
    """Return a number of bytes as people say it."""
    if not count:
        return "size unknown"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


COMMANDS: dict[str, Any] = {"check": check, "split": split, "preview": preview, "fetch": fetch}
