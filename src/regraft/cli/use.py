"""Commands that use what was learned: `classify predict evaluate report compare-runs demo`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import regraft.cli.options as cli
from regraft.cli.options import Fields, FormatOption, JsonLinesOption, JsonOption, arg, opt
from regraft.errors import ImageError, UsageError, printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from regraft.experiment.config import DataConfig, MethodConfig

Answers = Callable[[Sequence["Image"]], list[Any]]  # the entries of each image
FilesArgument = Annotated[
    list[str],
    arg("Images or folders of images; '-' reads paths from standard input.", "FILES…"),
]
RunArgument = Annotated[Path, arg("A run's folder, or the model folder in it.", "RUN")]
RunsArgument = Annotated[list[Path], arg("Folders of runs, or folders that hold runs.", "RUNS…")]
TopOption = Annotated[int, opt("How many classes to show.", min=1)]


def classify(
    files: FilesArgument,
    method: Annotated[MethodConfig, Fields("backbone weights arguments")],
    *,
    top: TopOption = 5,
    as_json: JsonLinesOption = False,
) -> int:
    """Say what a network trained on ImageNet sees in images, with probabilities."""
    return _answer(files, _seen_by(method, top), as_json=as_json)


def _seen_by(method: MethodConfig, top: int) -> Answers:
    from regraft.backbones.backbone import build

    network = build(method.spec)

    def answers(images: Sequence[Image]) -> list[Any]:
        return [[asdict(entry) for entry in entries] for entries in network.top_k(images, k=top)]

    return answers


def predict(
    run: RunArgument, files: FilesArgument, *, top: TopOption = 1, as_json: JsonLinesOption = False
) -> int:
    """Predict the classes of new images with a fitted model."""
    from regraft.classifiers.network_classifier import load_model

    model = load_model(run / "model" if (run / "model").is_dir() else run)
    classes = [str(name) for name in model.classes_]

    def answers(images: Sequence[Image]) -> list[Any]:
        rows = model.predict_proba(images)
        best = (-rows).argsort(axis=1, kind="stable")[:, :top]
        return [
            [{"label": classes[k], "probability": float(row[k])} for k in order]
            for row, order in zip(rows, best, strict=True)
        ]

    return _answer(files, answers, as_json=as_json)


def evaluate(
    run: RunArgument,
    data: Annotated[
        DataConfig, Fields("source label_from_name root follow_links skip_bad max_bad")
    ],
    *,
    test_views: Annotated[
        int | None, opt("Views of each test image: 1, 2 or 10; by default the run's own.", "N")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Measure a fitted model on labelled images, apart by whether it learned from them."""
    from regraft.experiment.evaluate import evaluate_on
    from regraft.report.tables import parts_table

    everything = replace(data, allow_empty_class=True)
    result = evaluate_on(run, everything, test_views=test_views, verbose=not as_json)
    if as_json:
        cli.echo_json(result.to_json())
    else:
        cli.echo_table(parts_table(result.metrics))
        cli.echo_err(result.comment())
    return cli.echo_refused(result.bad, as_json=as_json)


def report(
    runs: RunsArgument,
    *,
    data: Annotated[
        Path | None, opt("Where the images are now, if they have moved.", "FOLDER")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the page of each run again, from its folder alone."""
    from regraft.report.run_page import write_page
    from regraft.results.comparison import open_runs

    if data is not None and not data.exists():
        raise UsageError("no such folder of images", path=data, hint="check --data")
    pages = [str(write_page(run, data_root=data)) for run in open_runs(runs)]
    if as_json:
        cli.echo_json({"pages": pages})
    else:
        cli.echo("\n".join(pages))


def compare_runs(
    runs: RunsArgument,
    *,
    out: Annotated[
        Path | None, opt("Also write the comparison as one HTML page.", "FILE", panel="Output")
    ] = None,
    form: FormatOption = "text",
    as_json: JsonOption = False,
) -> int:
    """Put several runs in one table: description, data, epochs, accuracies and time."""
    from regraft.report import comparison_page
    from regraft.results.comparison import open_runs

    comparison = comparison_page.compare_runs(open_runs(runs))
    page = None if out is None else comparison_page.write_comparison(comparison, out)
    cli.echo_comparison(comparison, page, form=form, as_json=as_json)
    return 0


def demo(
    *, out: Annotated[Path | None, opt("Where everything is written.", "FOLDER")] = None
) -> None:
    """Show what a network sees in two photographs, then learn two small sets in three ways."""
    from regraft.experiment.config import MethodConfig
    from regraft.experiment.demo import photographs, run_demo
    from regraft.report.comparison_page import comparison_table
    from regraft.results.comparison import RunStore

    begun, network = time.monotonic(), MethodConfig()
    folder = out or RunStore(Path()).free_folder("regraft demo")
    cli.echo_err(f"What {network.backbone} sees in two photographs:")
    for row in _rows([str(path) for path in photographs()], _seen_by(network, top=3)):
        _echo_row(row)
    cli.echo_err("Two sets of small images: from scratch, or with what the network knows already?")
    # Two processes of one thread each do not wait for each other where other programs are at work.
    shown = run_demo(folder, jobs=2, verbose=True, say=cli.echo_err)
    for each in shown:
        cli.echo(f"\n{each.comparison.title}\n")
        cli.echo_table(comparison_table(each.comparison))
        cli.echo(f"\n{each.lesson}")
        cli.echo_err(f"page:   {each.page}\nplan:   {each.plan}")
    run = shown[0].comparison.rows[-1].runs[0].folder
    cli.echo_err(
        f"\nDone in {time.monotonic() - begun:.0f} s. Open the pages in a browser. Try next:\n"
        f"  regraft predict {quote(str(run))} {quote(str(shown[0].images / 'daisy'))}\n"
        "  regraft compare YOUR_FOLDER"
    )


def _answer(files: Iterable[str], answers: Answers, *, as_json: bool) -> int:
    """Print one answer per image in the order given; bad ones have a code instead."""
    refused, remaining = 0, iter(_images(files))
    while batch := tuple(islice(remaining, 32)):
        for row in _rows(batch, answers):
            refused += "error" in row
            if as_json:
                cli.echo_json(row, indent=None)
            else:
                _echo_row(row)
    return cli.EXIT_REFUSED if refused else 0


def _rows(paths: Sequence[str], answers: Answers) -> list[dict[str, Any]]:
    from regraft.data.images import open_image

    rows: list[dict[str, Any]] = [{"file": path} for path in paths]
    images, good = [], []
    for row in rows:
        try:
            images.append(open_image(row["file"]))
            good.append(row)
        except ImageError as error:
            row.update(error=error.code, message=str(error))
    for row, entries in zip(good, answers(images) if images else [], strict=True):
        row["top"] = entries
    return rows


def _echo_row(row: dict[str, Any]) -> None:
    file = printable(row["file"])
    if "error" in row:
        cli.echo(f"{file}\trefused\t{row['error']}")
        cli.echo_err(f"refused: {row['message']}")
        return
    for entry in row["top"]:
        name = "\t".join(str(entry[key]) for key in ("wnid", "label") if key in entry)
        cli.echo(f"{file}\t{name}\t{entry['probability']:.4f}")


def _images(files: Iterable[str]) -> Iterable[str]:
    """Yield what the arguments name: files, images below folders, lines of standard input."""
    from regraft.data.sources import IMAGE_SUFFIXES

    found = False
    for name in files:
        paths: Iterable[str] = (name,)
        if name == "-":
            paths = (_path_on(line) for line in sys.stdin if line.strip())
        elif Path(name).is_dir():
            below = sorted(Path(name).rglob("*"))
            images = (p for p in below if p.suffix.lower() in IMAGE_SUFFIXES)
            paths = (str(p) for p in images if not p.name.startswith("."))
        for path in paths:
            found = True
            yield path
    if not found:
        raise UsageError("no image to look at", hint="name files, a folder with images, or '-'")


def _path_on(line: str) -> str:
    """Return the path on a line, which on Windows ends in a carriage return, too."""
    name = line.removesuffix("\n")
    return name if os.path.lexists(name) else name.removesuffix("\r")


COMMANDS: dict[str, Any] = {
    "classify": classify,
    "predict": predict,
    "evaluate": evaluate,
    "report": report,
    "compare-runs": compare_runs,
    "demo": demo,
}
