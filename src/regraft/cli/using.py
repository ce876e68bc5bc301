"""Commands that use what was learned or known before: `classify`, `predict`, `evaluate`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.options import (
    ArgumentOption,
    BackboneOption,
    DataArgument,
    FollowLinksOption,
    MaxBadOption,
    NamesOption,
    RootOption,
    SkipBadOption,
    WeightsOption,
    read_spec,
)
from regraft.cli.output import (
    EXIT_REFUSED,
    JsonLinesOption,
    JsonOption,
    say,
    say_json,
    say_json_line,
    talk,
    talk_of_refused,
)
from regraft.errors import ImageError, UsageError, printable

if TYPE_CHECKING:
    from PIL.Image import Image

FilesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="FILES…",
        help="Pictures or folders of pictures; '-' reads paths from standard input.",
    ),
]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder, or the model folder in it.")
]
TopOption = Annotated[int, typer.Option("--top", help="How many guesses to show.", min=1)]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command("classify")(classify)
    app.command("predict")(predict)
    app.command("evaluate")(evaluate_run)


def classify(
    files: FilesArgument,
    *,
    backbone: BackboneOption,
    weights: WeightsOption = None,
    arguments: ArgumentOption = None,
    top: TopOption = 5,
    as_json: JsonLinesOption = False,
) -> int:
    """Say what a network trained on ImageNet sees in pictures, with probabilities."""
    from regraft.backbones.backbone import build

    network = build(read_spec(backbone, weights, arguments))
    return _answer(
        files,
        lambda pictures: [
            {
                "top": [
                    {"wnid": g.wnid, "label": g.label, "probability": g.probability}
                    for g in guesses
                ]
            }
            for guesses in network.top_k(pictures, k=top)
        ],
        as_json=as_json,
    )


def predict(
    run: RunArgument, files: FilesArgument, *, top: TopOption = 1, as_json: JsonLinesOption = False
) -> int:
    """Name the class of new pictures with a fitted model."""
    from regraft.classifiers.saving import load_model

    model = load_model(_model_folder(run))
    classes = [str(name) for name in model.classes_]

    def answers(pictures: list[Image]) -> list[dict[str, Any]]:
        rows = model.predict_proba(pictures)
        best = (-rows).argsort(axis=1, kind="stable")[:, :top]
        return [
            {"top": [{"label": classes[k], "probability": float(row[k])} for k in order]}
            for row, order in zip(rows, best, strict=True)
        ]

    return _answer(files, answers, as_json=as_json)


def evaluate_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    source: DataArgument,
    *,
    label_from_name: NamesOption = None,
    root: RootOption = None,
    follow_links: FollowLinksOption = False,
    skip_bad: SkipBadOption = False,
    max_bad: MaxBadOption = 0.01,
    as_json: JsonOption = False,
) -> int:
    """Measure a fitted model on labelled pictures, apart by whether it learned from them."""
    from regraft.experiment.evaluation import evaluate_on
    from regraft.experiment.preparation import DataPlan
    from regraft.report.tables import parts_table

    plan = DataPlan(
        source,
        label_from_name=label_from_name,
        root=root,
        follow_links=follow_links,
        skip_bad=skip_bad,
        max_bad=max_bad,
        allow_empty_class=True,
    )
    result = evaluate_on(run, plan, verbose=not as_json)
    if as_json:
        say_json(result.to_json())
    else:
        say(parts_table(result.metrics).to_text())
        talk(result.comment())
        talk_of_refused(result.bad)
    return EXIT_REFUSED if result.bad else 0


def _model_folder(run: Path) -> Path:
    return run / "model" if (run / "model").is_dir() else run


def _answer(files: list[str], answers: Any, *, as_json: bool) -> int:
    """Print one answer per picture in the order given; bad ones have a code instead."""
    refused = 0
    for batch in _batches(_pictures(files), 32):
        for row in _rows(batch, answers):
            refused += "error" in row
            if as_json:
                say_json_line(row)
            else:
                _say_row(row)
    return EXIT_REFUSED if refused else 0


def _batches(items: Iterable[str], size: int) -> Iterable[tuple[str, ...]]:
    remaining = iter(items)
    while batch := tuple(islice(remaining, size)):
        yield batch


def _rows(paths: tuple[str, ...], answers: Any) -> list[dict[str, Any]]:
    from regraft.data.images import open_image

    rows: list[dict[str, Any]] = [{"file": path} for path in paths]
    pictures, good = [], []
    for row in rows:
        try:
            pictures.append(open_image(row["file"]))
            good.append(row)
        except ImageError as error:
            row.update(error=error.code, message=str(error))
    if pictures:
        for row, answer in zip(good, answers(pictures), strict=True):
            row.update(answer)
    return rows


def _say_row(row: dict[str, Any]) -> None:
    file = printable(row["file"])
    if "error" in row:
        say(f"{file}\trefused\t{row['error']}")
        talk(f"refused: {row['message']}")
        return
    for guess in row["top"]:
        name = "\t".join(str(guess[key]) for key in ("wnid", "label") if key in guess)
        say(f"{file}\t{name}\t{guess['probability']:.4f}")


def _pictures(files: Iterable[str]) -> Iterable[str]:
    """Yield what the arguments name: files, pictures below folders, lines of standard input."""
    from regraft.data.images import IMAGE_SUFFIXES

    found = False
    for name in files:
        if name == "-":
            named: Iterable[str] = (_named(line) for line in sys.stdin if line.strip())
        elif Path(name).is_dir():
            below = sorted(Path(name).rglob("*"))
            named = (
                str(p)
                for p in below
                if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
            )
        else:
            named = (name,)
        for path in named:
            found = True
            yield path
    if not found:
        raise UsageError("no picture to look at", hint="name files, a folder with pictures, or '-'")


def _named(line: str) -> str:
    """Return the path on a line, which on Windows ends in a carriage return, too."""
    name = line.removesuffix("\n")
    return name if os.path.lexists(name) else name.removesuffix("\r")
