"""Commands that use what was learned: `classify predict explain export evaluate` and more."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import regraft.cli.options as cli
from regraft.cli.options import Fields, FormatOption, JsonLinesOption, JsonOption, arg, opt
from regraft.errors import UsageError, printable

if TYPE_CHECKING:
    from regraft.experiment.config import DataConfig, MethodConfig

FilesArgument = Annotated[list[str], arg("Images or folders; '-' reads their paths.", "FILES…")]
RunArgument = Annotated[Path, arg("A run's folder, or the model folder in it.", "RUN")]
RunsArgument = Annotated[list[Path], arg("Folders of runs, or folders that hold runs.", "RUNS…")]
RepositoryArgument = Annotated[str, arg("Its name on the hub, OWNER/NAME.", "REPO")]
TopOption = Annotated[int, opt("How many classes to show.", min=1)]
_SHARE = {"min": 0.0, "max": 1.0}
AbstainOption = Annotated[
    float | None, opt("Say unknown, so that at most this share is wrong.", "SHARE", **_SHARE)
]
CoverageOption = Annotated[
    float | None, opt("Give sets that hold the true class so often.", "SHARE", **_SHARE)
]
EachClassOption = Annotated[bool, opt("Let --coverage hold for every class by itself.")]
UnlikeOption = Annotated[
    float | None,
    opt("Say unknown of what is unlike, and of this share of others.", "SHARE", **_SHARE),
]
NearestOption = Annotated[int, opt("How many training images to show.", min=1)]


def classify(
    files: FilesArgument,
    method: Annotated[MethodConfig, Fields("weights arguments")],
    *,
    backbone: Annotated[
        list[str] | None, opt("A network, or several times one.", "NAME", panel="Network")
    ] = None,
    top: TopOption = 5,
    label_from_name: Annotated[
        str | None, opt("Read the true class from the file name: '(?P<label>[0-9]+)_'.", "REGEX")
    ] = None,
    out: Annotated[Path | None, cli.out("Also write a page with images and bars.", "FILE")] = None,
    as_json: JsonLinesOption = False,
) -> int:
    """Say what networks trained on ImageNet see in images, with probabilities.

    Where the name of an image or of its folder tells its ImageNet class (wnid, index or name),
    the top-1 and top-5 errors are measured, too.
    """
    from regraft.backbones.catalog import DEFAULT_BACKBONE
    from regraft.experiment.evaluate import classify_images
    from regraft.report.gallery import write_seen
    from regraft.report.tables import error_table
    from regraft.settings import to_json

    if backbone is None:
        cli.echo_default(DEFAULT_BACKBONE)
    specs = [replace(method, backbone=name).spec for name in backbone or [DEFAULT_BACKBONE]]
    seen = classify_images(
        list_images(files), specs, top=max(top, 5), label_from_name=label_from_name
    )
    rows, refused = _echo_rows(seen, top=top, as_json=as_json)
    errors = error_table(rows)
    if errors.rows and as_json:
        cli.echo_json({"errors": to_json(errors.rows)}, indent=None)
    elif errors.rows:
        cli.echo_table(errors)
    if out is not None:
        cli.echo_err(f"page:   {write_seen(rows, out, top=top)}")
    return refused


def predict(
    run: RunArgument,
    files: FilesArgument,
    *,
    top: TopOption = 1,
    abstain_error: AbstainOption = None,
    coverage: CoverageOption = None,
    each_class: EachClassOption = False,
    unlike: UnlikeOption = None,
    as_csv: Annotated[bool, opt("Print CSV, a row each.", None, "--csv", panel="Output")] = False,
    as_json: JsonLinesOption = False,
) -> int:
    """Predict the classes of new images with a fitted model.

    Where it was exported, nothing of what it was trained with is loaded, and it begins at once;
    only then it can say "unknown" or give sets of classes.
    """
    from regraft.deploy.answers import Answerer, Promises
    from regraft.deploy.predictor import answer_files, find_deployed, load, predict_files

    if as_csv and as_json:
        raise UsageError("--csv and --json contradict each other", hint="choose one")
    promises = Promises(
        abstain_error=abstain_error, coverage=coverage, each_class=each_class, unlike=unlike
    )
    if find_deployed(run) or promises != Promises():
        answerer = Answerer(load(run), promises, top=top)
        for sentence in answerer.told:
            cli.echo_err(sentence)
        rows = answer_files(list_images(files), {"": answerer})
    else:
        from regraft.classifiers.network_classifier import load_model

        model = load_model(run / "model" if (run / "model").is_dir() else run)
        rows = predict_files(model, list_images(files), top)
    if as_csv:
        return _echo_csv(rows, top=top)
    return _echo_rows(rows, top=top, as_json=as_json)[1]


def export(
    run: RunArgument,
    *,
    to: Annotated[
        Literal["folder", "onnx", "bundle", "torch-export", "web"],
        opt("For `predict`; an ONNX file; a ZIP with an example; a .pt2 file; a page."),
    ] = "folder",
    int8: Annotated[
        bool, opt("In whole numbers of 8 bits, and say what that costs on the test part.")
    ] = False,
    with_images: Annotated[
        bool, opt("Small copies of the training images go with the model, for `serve`.")
    ] = False,
    data: Annotated[Path | None, opt("Where the images are, if moved.", "FOLDER")] = None,
    runtime: Annotated[
        Path | None, opt("What `npm pack onnxruntime-web` gave, for a page.", "FILE")
    ] = None,
    out: Annotated[Path | None, cli.out("The file, or folder of the page, to write.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the model of a run so that it predicts without torch, and check it on the test part."""
    from regraft.experiment.export import export_run
    from regraft.features.hdf5 import refuse_existing

    if out is not None:
        refuse_existing(out)
    folder = run.parent if run.name == "model" else run
    found = export_run(
        folder, to=to, out=out, int8=int8, with_images=with_images, data=data, runtime=runtime
    )
    cli.echo_either(found.to_json(), str(found), as_json=as_json)


def push(
    run: RunArgument,
    repository: RepositoryArgument,
    *,
    private: Annotated[bool, opt("Only you may see the repository, if it is made now.")] = False,
    message: Annotated[str | None, opt("What the commit says.", "TEXT")] = None,
) -> None:
    """Upload the model of a run and its card to the Hugging Face hub, or to that of HF_ENDPOINT.

    Images and their names, predictions and pages stay here. The token is that of `hf auth login`,
    or HF_TOKEN.
    """
    from regraft.deploy.hub import Hub

    hub = Hub(repository)
    hub.require_token()  # before what takes a while to be imported
    from regraft.deploy.sharing import push_run

    folder = run.parent if run.name == "model" else run
    cli.echo(push_run(folder, hub, private=private, message=message, say=cli.echo_err))


def pull(
    repository: RepositoryArgument,
    folder: Annotated[Path, arg("The folder to write.", "FOLDER")],
    *,
    revision: Annotated[
        str | None, opt("A branch, a tag or a commit; the newest if not given.", "NAME")
    ] = None,
) -> None:
    """Download a model that `push` has uploaded, and verify it before it gets its name.

    Nothing that could run code is taken. `predict`, `serve` and the others take the folder as a
    run.
    """
    from regraft.deploy.hub import Hub

    hub = Hub(repository)
    from regraft.deploy.sharing import pull_model

    cli.echo(str(pull_model(hub, folder, revision=revision, say=cli.echo_err)))
    cli.echo_err(f"next:   regraft predict {quote(str(folder))} IMAGES")


def serve(
    run: RunArgument,
    *,
    host: Annotated[str, opt("Where it listens; others than this machine need a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, opt("Where it listens; 0 for any port that is free.", min=0)] = 8000,
    token_file: Annotated[
        Path | None, opt("Clients must bear what stands in it, or in REGRAFT_TOKEN.", "FILE")
    ] = None,
    allow_host: Annotated[
        list[str] | None, opt("A further name under which clients reach it.", "NAME")
    ] = None,
    max_bytes: Annotated[int, opt("How many bytes a request may have.", min=1)] = 32 << 20,
    abstain_error: AbstainOption = None,
    coverage: CoverageOption = None,
    each_class: EachClassOption = False,
    unlike: UnlikeOption = None,
    maps: Annotated[bool, opt("Also show what speaks for a class; this loads torch.")] = False,
) -> None:
    """Serve an exported model: a page for a browser, and an interface for programs.

    The page is at `/`, its interface in `/openapi.json`. Ctrl-C ends it when running requests are
    answered.
    """
    from regraft.deploy.answers import Promises
    from regraft.deploy.predictor import load

    try:
        from regraft.deploy.guard import ServeSettings
        from regraft.deploy.server import Served, serve_until_stopped
    except ModuleNotFoundError as error:
        what, hint = f"serving needs the package {error.name}", 'pip install "regraft[serve]"'
        raise UsageError(what, hint=hint, code="USAGE-EXTRA") from error

    settings = ServeSettings(
        host=host,
        port=port,
        token=_token(token_file),
        allow_host=tuple(allow_host or ()),
        max_bytes=max_bytes,
    )
    folder = run.resolve()
    name = folder.parent.name if folder.name == "model" else folder.name
    promises = Promises(
        abstain_error=abstain_error,
        coverage=coverage,
        each_class=each_class,
        unlike=unlike,
        nearest=3,
    )
    model = Served.of(load(run, processors=1), name, promises)
    for sentence in model.told:
        cli.echo_err(sentence)
    if maps:
        from regraft.experiment.evaluate import map_maker

        model = replace(model, maps=map_maker(run))

    def say(address: str) -> None:
        cli.echo(address)
        cli.echo_err("open this address in a browser; Ctrl-C ends it")

    serve_until_stopped(model, settings, say)


def explain(
    files: Annotated[
        list[str],
        arg("A run's folder, unless --backbone is given; then images or folders.", "[RUN] FILES…"),
    ],
    method: Annotated[MethodConfig, Fields("weights arguments")],
    *,
    backbone: Annotated[
        str | None, opt("Explain a network with its ImageNet classes.", "NAME", panel="Network")
    ] = None,
    class_name: Annotated[
        str | None, opt("Explain this class, beside the predicted one.", "NAME", "--class")
    ] = None,
    channel: Annotated[
        int | None, opt("The channel of the last feature map to look into.", "N", min=0)
    ] = None,
    out: Annotated[Path, cli.out("The page.", "FILE")] = Path("explained.html"),
) -> None:
    """Write a page that shows what a network looks at in images, and what it has learned.

    Shown are the parts of each image that speak for its class, filters, feature maps from edges to
    parts, and what excites a channel and a class. It takes a minute, with a large network several.
    """
    from regraft.experiment.evaluate import explain_backbone, explain_run

    wanted: dict[str, Any] = {"class_name": class_name, "channel": channel}
    if backbone is not None:
        spec = replace(method, backbone=backbone).spec
        page = explain_backbone(spec, list(list_images(files)), out, **wanted)
    else:
        page = explain_run(Path(files[0]), list(list_images(files[1:])), out, **wanted)
    cli.echo_err(f"page:   {page}")


def neighbours(
    run: RunArgument,
    files: FilesArgument,
    *,
    top: NearestOption = 3,
    as_json: JsonLinesOption = False,
) -> int:
    """Find the training images of a run that are nearest to new images, with their distances."""
    from regraft.experiment.evaluate import nearest_images

    rows = nearest_images(run, list_images(files), top)
    return _echo_rows(rows, top=top, as_json=as_json)[1]


def evaluate(
    run: RunArgument,
    data: Annotated[
        DataConfig, Fields("source label_from_name root follow_links skip_bad max_bad")
    ],
    *,
    test_views: Annotated[int | None, opt("Views of a test image: 1, 2 or 10.", "N")] = None,
    as_json: JsonOption = False,
) -> int:
    """Measure a fitted model on labelled images, apart by whether it learned from them."""
    from regraft.experiment.evaluate import evaluate_on
    from regraft.report.tables import parts_table

    everything = replace(data, allow_empty_class=True)
    result = evaluate_on(run, everything, test_views=test_views, verbose=not as_json)
    cli.echo_either(result.to_json(), parts_table(result.metrics), as_json=as_json)
    cli.echo_err(result.comment())
    return cli.echo_refused(result.bad, as_json=as_json)


def report(
    runs: RunsArgument,
    *,
    data: Annotated[Path | None, opt("Where the images are, if moved.", "FOLDER")] = None,
) -> None:
    """Write the page and the card of each run again, from its folder alone."""
    from regraft.report.model_card import write_card
    from regraft.report.run_page import write_page
    from regraft.results.comparison import open_runs

    if data is not None and not data.exists():
        raise UsageError("no such folder of images", path=data, hint="check --data")
    for run in open_runs(runs):
        cli.echo(str(write_page(run, data_root=data)))
        write_card(run)


def watch(
    runs: RunsArgument,
    *,
    port: Annotated[int, opt("Where it listens; 0 for any port that is free.", min=0)] = 8765,
) -> None:
    """Serve a page that follows runs while they are trained, to this machine only.

    Runs may be started before or after it, in any terminal; Ctrl-C ends it and no run.
    """
    from regraft.report.watch import make_server

    with make_server(runs, port) as server:
        cli.echo(f"http://127.0.0.1:{server.server_port}/")
        cli.echo_err("open this address in a browser; Ctrl-C ends it")
        server.serve_forever()


def compare_runs(
    runs: RunsArgument,
    *,
    classes: Annotated[bool, opt("Show precision, recall and F1 of every class.")] = False,
    apart: Annotated[bool, opt("Make a table of each folder, on one page.")] = False,
    out: Annotated[Path | None, cli.out("Also write the comparison as a page.", "FILE")] = None,
    form: FormatOption = "text",
    as_json: JsonOption = False,
) -> None:
    """Put several runs in one table: description, data, epochs, accuracies and time."""
    from regraft.report import comparison_page as pages
    from regraft.results.comparison import open_runs
    from regraft.settings import to_json

    found = [
        pages.compare_runs(open_runs(places), title=places[0].resolve().name if apart else "")
        for places in ([[run] for run in runs] if apart else [runs])
    ]
    address = None
    if out is not None:
        page = pages.write_tables_of(found, out) if apart else pages.write_comparison(found[0], out)
        address = str(page)
        cli.echo_err(f"page:   {page}")
    reports = [pages.class_reports(each.rows) for each in found] if classes else []
    if as_json:
        told = [dict(each) for each in reports]
        values = to_json(told) if classes else [each.to_json(address) for each in found]
        cli.echo_json(values if apart else values[0])
        return
    tables = map(pages.reports_table, reports) if classes else map(pages.comparison_table, found)
    for comparison, table in zip(found, tables, strict=True):
        if apart:
            cli.echo(f"\n{comparison.title}\n")
        cli.echo_table(table, form=form)


def demo(*, out: Annotated[Path | None, cli.out("Where everything is written.")] = None) -> None:
    """Show what a network sees in two photographs, then learn drawn flowers in three ways."""
    from regraft.experiment.config import MethodConfig
    from regraft.experiment.demo import photographs, run_demo
    from regraft.experiment.evaluate import classify_images
    from regraft.report.comparison_page import comparison_table
    from regraft.results.comparison import RunStore

    begun, network = time.monotonic(), MethodConfig()
    folder = out or RunStore(Path()).free_folder("regraft demo")
    cli.echo_err(f"What {network.backbone} sees in two photographs:")
    _echo_rows(classify_images(map(str, photographs()), [network.spec]), top=3, as_json=False)
    cli.echo_err("Drawn flowers: from scratch, or with what the network knows already?")
    # Two processes of one thread each do not wait for each other where other programs are at work.
    shown = run_demo(folder, jobs=2, verbose=True, say=cli.echo_err)
    cli.echo(f"\n{shown.comparison.title}\n")
    cli.echo_table(comparison_table(shown.comparison))
    cli.echo(f"\n{shown.lesson}")
    cli.echo_err(f"page:   {shown.page}\nplan:   {shown.plan}")
    run = shown.comparison.rows[-1].runs[0].folder
    cli.echo_err(f"\nDone in {time.monotonic() - begun:.0f} s. Open the page. Try next:")
    cli.echo_err(f"  regraft predict {quote(str(run))} {quote(str(shown.images / 'daisy'))}")
    cli.echo_err("  regraft compare YOUR_FOLDER")


def _echo_rows(
    rows: Iterable[dict[str, Any]], *, top: int, as_json: bool
) -> tuple[list[dict[str, Any]], int]:
    """Print each row as it comes; return those without an error, and the exit code."""
    good, refused = [], False
    for row in rows:
        file = printable(row["file"])
        refused |= "error" in row
        if as_json:
            cli.echo_json(row | ({"top": row["top"][:top]} if "top" in row else {}), indent=None)
        elif "error" in row:
            cli.echo(f"{file}\trefused\t{row['error']}")
            cli.echo_err(f"refused: {row['message']}")
        for entry in row["top"][:top] if "top" in row and not as_json else ():
            names = (row.get("backbone"), entry.get("wnid"), printable(entry.get("path", "")))
            number = entry.get("probability", entry.get("distance"))
            label = f"unknown ({entry['label']}?)" if row.get("unknown") else entry["label"]
            kept = f"{{{', '.join(row['labels'])}}}" if "labels" in row else ""
            cli.echo("\t".join(filter(None, (file, *names, label, f"{number:.4f}", kept))))
        good += [row] * ("top" in row)
    return good, cli.EXIT_REFUSED if refused else 0


def _echo_csv(rows: Iterable[dict[str, Any]], *, top: int) -> int:
    """Print rows as a table whose cells no spreadsheet takes for formulas; return the exit code."""
    from regraft.data.tables import table_line

    numbered = [f"{name}_{k}" for k in range(1, top + 1) for name in ("label", "probability")]
    cli.echo(table_line(["file", "error", "unknown", "labels", *numbered]))
    refused = False
    for row in rows:
        refused |= "error" in row
        unknown, labels = "yes" if row.get("unknown") else "", "; ".join(row.get("labels", ()))
        best = row.get("top", ())[:top]
        cells = [cell for one in best for cell in (one["label"], f"{one['probability']:.6f}")]
        blank = [""] * (2 * top - len(cells))
        cells = [row["file"], row.get("error", ""), unknown, labels, *cells, *blank]
        cli.echo(table_line([printable(cell) for cell in cells]))
    return cli.EXIT_REFUSED if refused else 0


def _token(file: Path | None) -> str | None:
    """Return what clients must bear: from a file, or from the environment; never an argument."""
    if file is None:
        return os.environ.get("REGRAFT_TOKEN") or None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError("cannot read the token", path=file, why=str(error)) from error


def list_images(files: Iterable[str]) -> Iterable[str]:
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


COMMANDS: dict[str, Any] = {"classify": classify, "predict": predict, "explain": explain}
COMMANDS |= {"neighbours": neighbours, "export": export, "evaluate": evaluate}
COMMANDS |= {"push": push, "pull": pull, "serve": serve}
COMMANDS |= {"report": report, "watch": watch}
COMMANDS |= {"compare-runs": compare_runs, "demo": demo}
