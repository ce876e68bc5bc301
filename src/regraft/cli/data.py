"""Commands of `data`: check, split, preview, fetch, suspects, next and apply-review."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import regraft.cli.options as cli
from regraft.cli.options import Fields, JsonOption, arg, opt
from regraft.cli.use import FilesArgument, list_images
from regraft.errors import UsageError, printable

if TYPE_CHECKING:
    from regraft.experiment.config import DataConfig, MethodConfig
    from regraft.features.extractor import FeatureExtractor

_NETWORK = Fields("backbone weights arguments device engine precision cache")


def check(
    data: Annotated[
        DataConfig, Fields("source group_by label_from_name root follow_links allow_empty_class")
    ],
    *,
    out: Annotated[Path | None, cli.out("Also write check.json and bad_files.csv here.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Decode every image and list what is wrong: bad files, duplicates, groups in two parts."""
    from regraft.data.check import check as check_images
    from regraft.experiment.prepare import read_images

    report = check_images(read_images(data), verbose=not as_json)
    if out is not None:
        report.write(out)
    text = f"{report.to_text()}\n\n{report.balance()}"
    cli.echo_either(report.to_json(), text, as_json=as_json)
    return cli.EXIT_FAILED if report.has_errors else 0


def split(
    data: DataConfig,
    *,
    out: Annotated[Path, opt("Where split.csv and split.json are written.", "FOLDER")],
    as_json: JsonOption = False,
) -> int:
    """Split the images into train, validation and test, and write the manifest with its hash."""
    from regraft.experiment.prepare import write_split

    prepared = write_split(data, out, verbose=not as_json)
    split, bad = prepared.split, prepared.report.bad
    sizes = {name: len(part) for name, part in split.parts().items()}
    told: dict[str, Any] = {"hash": split.hash, "manifest": str(out / "split.csv"), "images": sizes}
    told["bad_files"] = [error.to_json() for error in bad]
    text = "  ".join(f"{name} {size}" for name, size in sizes.items())
    cli.echo_either(told, text, as_json=as_json)
    cli.echo_err(f"written to {told['manifest']}; hash {split.hash[:16]}")
    return cli.echo_refused(bad, as_json=as_json)


def preview(
    data: Annotated[DataConfig, Fields("source label_from_name root follow_links")],
    *,
    augment: Annotated[
        str, opt("A named augmentation, or settings: rotation=30,zoom=0.2,flip=true.", "NAME")
    ] = "standard",
    out: Annotated[Path, opt("Where the sheet is written, a PNG.", "FILE")],
    images: Annotated[int, opt("How many images, one of each class first.", min=1, max=50)] = 4,
    views: Annotated[int, opt("How many views of each.", min=1, max=50)] = 7,
    seed: Annotated[int, opt("Seed of the choice and of the views.", min=0)] = 0,
) -> None:
    """Show a few images as they are and augmented, on one sheet."""
    if out.suffix.lower() != ".png":
        raise UsageError("the sheet is a PNG file", path=out, hint="end its name in .png")
    from regraft.backbones.spec import Preprocessing
    from regraft.backbones.views import prepare
    from regraft.data.images import open_image
    from regraft.experiment.prepare import read_images
    from regraft.files import atomic_path
    from regraft.report.gallery import preview_sheet
    from regraft.training.augment import find_augmentation

    found = find_augmentation(augment)
    if found is None:
        raise UsageError("there is no augmentation to show", hint="give --augment a name")
    listed = read_images(replace(data, allow_empty_class=True))
    chosen = listed.subset(size=min(images, len(listed)), seed=seed)
    preprocessing = found.before(Preprocessing.torch())
    pixels = [prepare(open_image(path), preprocessing) for path in chosen.paths]
    augmented = partial(found, size=Preprocessing.torch().size)
    sheet = preview_sheet(pixels, augmented, views=views, seed=seed)
    with atomic_path(out) as part:
        sheet.save(part, "PNG")
    cli.echo(str(out))


def fetch(
    name: Annotated[str | None, arg("Without a name: list what there is.", "[NAME]")] = None,
    *,
    to: Annotated[Path | None, opt("Where it is written; by default ./NAME.", "FOLDER")] = None,
    source: Annotated[Path | None, opt("What to take it from.", "FILE_OR_FOLDER", "--from")] = None,
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
        cli.echo_err("what has come so far is kept; the same command resumes it")
        raise
    found = fetched.source
    classes = ", ".join(f"{label} {count:,}" for label, count in found.classes.items())
    counted = f"{found.images:,} images of {len(found.classes)} classes in {fetched.folder}"
    lines = [
        *([f"{found.name} is there already, nothing was done"] if fetched.already else []),
        f"{counted}: {shorten(classes, 500, placeholder=' …')}",
        f"licence: {found.licence}",
        f"cite: {found.citation}",
        *(f"left out: {count:,} {what}" for what, count in found.removed.items()),
        *(f"left out, not an image: {path}" for path in found.broken),
        *(f"note: {note}" for note in found.notes),
    ]
    cli.echo_either(fetched.to_json(), "\n".join(lines), as_json=as_json)
    cli.echo_err(f"next:   regraft data check {fetched.folder}")


def _list_named(*, as_json: bool) -> None:
    from regraft.data.named import named_data
    from regraft.report.tables import Table, size
    from regraft.settings import to_json

    every = named_data()
    sizes = [size(data.size) if data.url else "by hand" for data in every]
    rows = tuple(
        (data.name, data.classes, data.images, download, data.title, data.licence)
        for data, download in zip(every, sizes, strict=True)
    )
    table = Table(("name", "classes", "images", "download", "what", "licence"), rows)
    cli.echo_either({"data_sets": to_json(every)}, table, as_json=as_json)
    cli.echo_err("by hand: get it, then `regraft data fetch NAME --from FILE_OR_FOLDER`")


def suspects(
    data: Annotated[
        DataConfig,
        Fields(
            "source seed group_by small_classes label_from_name root follow_links skip_bad max_bad"
        ),
    ],
    method: Annotated[MethodConfig, _NETWORK],
    *,
    folds: Annotated[int, opt("Folds of the cross-validation.", min=2)] = 5,
    out: Annotated[
        Path | None,
        opt("Also write a page: each image with its neighbours.", "FILE", panel="Output"),
    ] = None,
    table: Annotated[
        Path | None,
        opt("Also write a table to decide in: see `data apply-review`.", "FILE", "--csv"),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Find labels that are probably wrong, the surest first, by confident learning.

    Classifiers on features of a frozen network, which have not seen an image, say which class it
    is. Beside each suspect stand the images most like it that have other labels.
    """
    from regraft.features.hdf5 import refuse_existing
    from regraft.labels.review import write_review
    from regraft.labels.suspects import find_suspects
    from regraft.report.gallery import write_suspects

    if table is not None:
        refuse_existing(table)
    found = find_suspects(data, _extractor(method, verbose=not as_json), folds=folds)
    known = found.to_json()
    cli.echo_either(known, found.table(), as_json=as_json)
    if out is not None:
        page = write_suspects(
            known["suspects"], known["conflicts"], out, root=found.root, told=found.told()
        )
        cli.echo_err(f"page:   {page}")
    if table is not None:
        write_review(found, table)
        cli.echo_err(f"table:  {table}; fill in its last column for `regraft data apply-review`")
    return cli.echo_refused(found.bad, as_json=as_json)


def next_labels(
    data: Annotated[
        DataConfig, Fields("source seed label_from_name root follow_links skip_bad max_bad")
    ],
    files: FilesArgument,
    method: Annotated[MethodConfig, _NETWORK],
    *,
    count: Annotated[int, opt("How many to label next.", min=1)] = 20,
    as_json: JsonOption = False,
) -> int:
    """Say which unlabelled images to label next: uncertain ones that differ from each other.

    Printed are the images, the most uncertain first, with the most probable class of each and how
    uncertain it is. With few labels it need not beat random choice: of three easy kinds of animals
    it did not until 39 images were labelled, of five kinds of flowers not at 35.
    """
    from regraft.labels.next_labels import rank_next

    images = list(list_images(files))
    found = rank_next(data, images, _extractor(method, verbose=not as_json), count=count)
    if as_json:
        cli.echo_json(found.to_json())
    else:
        for one in found.wanted:
            cli.echo(f"{printable(one.path)}\t{one.predicted}\t{one.uncertainty:.4f}")
        copies = f"; {found.known:,} copies were left out" if found.known else ""
        cli.echo_err(
            f"{len(found.wanted):,} of {found.unlabelled:,} unlabelled images, by what"
            f" {found.labelled:,} labelled ones teach{copies}"
        )
    return cli.echo_refused(found.bad, as_json=as_json)


def apply_review(
    data: Annotated[
        DataConfig, Fields("source group_by label_from_name root follow_links allow_empty_class")
    ],
    review: Annotated[Path, arg("What `data suspects --csv` wrote, filled in.", "REVIEW")],
    *,
    out: Annotated[Path, opt("The table to write; never overwritten.", "FILE")],
    as_json: JsonOption = False,
) -> None:
    """Write a table of all images with the labels that a review decided; `fit` reads it.

    The images and the table that they came from stay as they are.
    """
    from regraft.experiment.prepare import read_images
    from regraft.labels.review import apply_review as apply

    images = read_images(data)
    done = apply(images, review, out)
    if as_json:
        cli.echo_json({**done.to_json(), "root": str(images.root)})
        return
    cli.echo(str(out))
    changes = ", ".join(f"{a} → {b} {n:,}" for (a, b), n in done.changes.items())
    cli.echo_err(f"{sum(done.changes.values()):,} of {done.images:,} labels changed: {changes}")
    cli.echo_err(f"next:   regraft fit {quote(str(out))} --root {quote(str(images.root))}")


def _extractor(method: MethodConfig, *, verbose: bool) -> FeatureExtractor:
    from regraft.features.extractor import FeatureExtractor

    return FeatureExtractor(method.spec, compute=method.compute, verbose=verbose)


COMMANDS: dict[str, Any] = {
    "check": check,
    "split": split,
    "preview": preview,
    "fetch": fetch,
    "suspects": suspects,
    "next": next_labels,
    "apply-review": apply_review,
}
