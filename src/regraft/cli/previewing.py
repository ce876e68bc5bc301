"""The command that shows what an augmentation does to pictures: `data preview`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import DataArgument, FollowLinksOption, NamesOption, RootOption
from regraft.cli.output import JsonOption, say, say_json
from regraft.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from regraft.data.dataset import Dataset


def add_to(data: typer.Typer) -> None:
    """Add the command to `data`."""
    data.command("preview")(preview_data)


def preview_data(
    source: DataArgument,
    *,
    augment: Annotated[
        str,
        typer.Option(
            "--augment",
            metavar="NAME",
            help="A named augmentation, or settings: rotation=30,zoom=0.2,flip=true,fill=reflect.",
        ),
    ] = "standard",
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where the sheet shall stand, a PNG.")
    ],
    pictures: Annotated[
        int, typer.Option(help="How many pictures, one of each class first.", min=1, max=50)
    ] = 4,
    views: Annotated[int, typer.Option(help="How many views of each.", min=1, max=50)] = 7,
    size: Annotated[
        int, typer.Option(help="Height and width that enter the network.", min=8, max=1024)
    ] = 224,
    seed: Annotated[
        int, typer.Option(help="Seed of the choice and of the views.", min=0, max=2**32 - 1)
    ] = 0,
    label_from_name: NamesOption = None,
    root: RootOption = None,
    follow_links: FollowLinksOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show a few pictures as they are and augmented, on one sheet."""
    if out.suffix.lower() != ".png":
        raise UsageError("the sheet is a PNG file", path=out, hint="end its name in .png")
    from regraft.experiment.preparation import DataPlan
    from regraft.files import atomic_path
    from regraft.report.preview import preview_sheet
    from regraft.settings import changed_fields, to_json
    from regraft.training.augment import AUGMENTATIONS, find_augmentation

    found = find_augmentation(augment)
    if found is None:
        raise UsageError("there is no augmentation to show", hint="give --augment a name")
    plan = DataPlan(
        source,
        label_from_name=label_from_name,
        root=root,
        follow_links=follow_links,
        allow_empty_class=True,
    )
    changes = changed_fields(found)
    sheet = preview_sheet(
        _squares(plan.read(), pictures, size, seed),
        found,
        views=views,
        seed=seed,
        title=f"Augmentation {augment}" if augment in AUGMENTATIONS else "Augmentation",
        subtitle=", ".join(f"{key}={_shown(value)}" for key, value in changes.items()),
    )
    with atomic_path(out) as part:
        sheet.save(part, "PNG")
    if as_json:
        say_json({"sheet": str(out), "augmentation": to_json(found)})
    else:
        say(str(out))


def _squares(
    data: Dataset, count: int, size: int, seed: int
) -> list[tuple[str, NDArray[np.uint8]]]:
    """Return the names and squares of a few pictures, one of each class first."""
    from regraft.backbones.prepare import prepare
    from regraft.backbones.spec import Preprocessing
    from regraft.data.images import open_image
    from regraft.data.sampling import chance_key, stratified_order

    queues: dict[str, list[tuple[bytes, Path]]] = {}
    for name, path, label in zip(data.relative_paths(), data.paths, data.labels, strict=True):
        key = chance_key(str(name), seed=seed, purpose="preview")
        queues.setdefault(label, []).append((key, path))
    by_class = [(label, sorted(queues[label])) for label in data.classes if label in queues]
    chosen = stratified_order([len(queue) for _, queue in by_class])[:count]
    preprocessing = Preprocessing.torch(size)
    squares = []
    for number, place in chosen:
        label, queue = by_class[number]
        path = queue[place][1]
        squares.append((f"{label}: {path.name}", prepare(open_image(path), preprocessing)))
    return squares


def _shown(value: object) -> str:
    """Return a value as it is written on the command line."""
    return f"{value:g}" if isinstance(value, float) else str(value).lower()
