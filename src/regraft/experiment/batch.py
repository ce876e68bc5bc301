"""Many runs into one folder: finished ones are skipped, a killed one resumes where it was."""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits

from regraft.backbones.backbone import build as build_backbone
from regraft.backbones.spec import BackboneSpec
from regraft.data.dataset import Dataset
from regraft.data.split import division
from regraft.errors import RegraftError, RunError, list_names
from regraft.experiment.config import DataConfig, MethodConfig, RunConfig
from regraft.experiment.plan import Plan
from regraft.experiment.prepare import PreparedData, prepare, read_images
from regraft.experiment.run import fit_run, initial_weights
from regraft.experiment.warnings import advice, comparison_warnings
from regraft.report.comparison_page import write_comparison
from regraft.report.tables import Cell, Duration, Table
from regraft.results.comparison import Comparison, Row
from regraft.results.run import RECORD, Run
from regraft.system import choose_device, threads
from regraft.training.heads import Head, find_head
from regraft.training.network import TransferNetwork
from regraft.training.phases import Phase

A = TypeVar("A")
T = TypeVar("T")
RUNS = "runs"
_FEW = 4  # blank images that pass through a network to see how long one takes
Say = Callable[[str], None]
_Results = Iterator[tuple[RunConfig, Run | RegraftError]]
_LINK = re.compile(r"run-([0-9a-f]{8})")  # see RunConfig.link


@dataclass(frozen=True)
class Outcome:
    """What became of a plan.

    Args:
        rows: The rows whose runs are all finished.
        failures: What went wrong, a sentence for each run that could not be finished.
        fitted: How many runs were fitted now; the others were there already.
    """

    rows: tuple[Row, ...]
    failures: tuple[str, ...]
    fitted: int


@dataclass
class PlanRunner:
    """The folder of a plan's runs.

    Args:
        folder: Its ``runs`` folder gets one folder for each run.
        command: How to repeat it; each run records it.
        verbose: Whether the runs show their progress on standard error.
        say: Gets a line before each run.
        explain: Whether runs explain their images, where their configuration says so.
    """

    folder: Path
    command: str = ""
    verbose: bool = False
    say: Say = lambda _line: None
    explain: bool = True
    _prepared: dict[str, PreparedData] = field(default_factory=dict, repr=False)
    _images: dict[str, Dataset] = field(default_factory=dict, repr=False)

    def place(self, config: RunConfig) -> Path:
        """Return the folder of a run; one of an earlier description stays where it is."""
        own = self.folder / RUNS / config.folder
        earlier = self._of(config.key)
        return own if own.is_dir() or not earlier else earlier[0]

    def finished(self, config: RunConfig) -> Run | None:
        """Return the run of a configuration if it is finished.

        Raises:
            RunError: The images or the weights have changed since (``RUN-CHANGED``), or the run is
                damaged.
            DataError: The images are not there any more.
        """
        place = self.place(config)
        if not (place / RECORD).is_file():
            return None
        run = Run.open(place)
        key = config.data.images_key
        if key not in self._images:  # they are listed once for all runs
            self._images[key] = read_images(config.data)
        refuse_changed(run, config.method, self._images[key])
        return run

    def fit(self, config: RunConfig, *, time_budget: float | None = None) -> Run:
        """Fit one run, or resume it; its images are checked once for all runs on them.

        Args:
            config: The run; its folder is called by it.
            time_budget: Minutes after which its training stops itself.

        Raises:
            RegraftError: The run cannot be made.
        """
        method = replace(config.method, explain=self.explain and config.method.explain)
        limited = replace(method, time_budget=time_budget) if time_budget else method
        return fit_run(
            self._with_start(replace(config, method=limited)),
            out=self.place(config),
            command=self.command,
            shared=self.prepared(config),
            alone=False,
            verbose=self.verbose,
        )

    def prepared(self, config: RunConfig) -> PreparedData:
        """Return checked images of a run, split in some way; they are decoded once for all."""
        key = config.data.images_key
        if key not in self._prepared:
            self._prepared[key] = prepare(config.data, verbose=self.verbose)
        return self._prepared[key]

    def run(self, plan: Plan, *, jobs: int = 1) -> Outcome:
        """Fit what is not finished of a plan.

        Args:
            plan: What to run.
            jobs: How many runs are fitted at the same time, each in a process of its own; they
                share the processor's cores.

        Raises:
            RunError: A finished run cannot be used; see :meth:`finished`. What cannot be fitted is
                no error but a failure of its row.
            DataError: The images of a finished run are not there any more.
        """
        configs = plan.configs()
        for line in _advice_lines(plan):
            self.say(f"warning: {line}")
        runs = {config.key: run for config in configs if (run := self.finished(config))}
        waiting = [config for config in configs if config.key not in runs]
        if runs:
            self.say(f"{len(runs)} of {len(configs)} runs are finished already")
        failures: list[str] = []
        fit = self._one_by_one(waiting) if jobs == 1 else self._together(waiting, jobs)
        begun = time.perf_counter()
        for done, (config, result) in enumerate(fit, start=1):
            if isinstance(result, Run):
                runs[config.key] = result
            else:
                failures.append(f"{config.description}: {result}")
                self.say(f"failed: {failures[-1]}")
            left = (len(waiting) - done) * (time.perf_counter() - begun) / done
            if left:
                self.say(f"{done} of {len(waiting)} runs done, about {Duration(left)} left")
        rows = []
        for row in plan.rows:
            found = tuple(runs[config.key] for config in row.configs if config.key in runs)
            rows += [Row(row.description, found, row.published)] if found else []
        return Outcome(tuple(rows), tuple(failures), len(waiting) - len(failures))

    def _one_by_one(self, configs: Sequence[RunConfig]) -> _Results:
        for number, config in enumerate(configs, start=1):
            seed = config.method.seed
            self.say(f"run {number} of {len(configs)}: {config.description}, seed {seed}")
            yield config, caught(self.fit, config)

    def _together(self, configs: Sequence[RunConfig], jobs: int) -> _Results:
        """Yield what became of runs that are fitted in processes of their own."""
        share, waiting = max(1, threads() // jobs), list[RunConfig]()
        for config in configs:  # here and once; the processes get what was found
            prepared = caught(self.prepared, config)
            if isinstance(prepared, RegraftError):
                yield config, prepared
            else:
                waiting.append(config)
        while waiting:  # those first that start from none that waits
            links = {config.link for config in waiting}
            ready = [one for one in waiting if str(one.method.start) not in links]
            waiting = [config for config in waiting if config not in ready]
            fit = functools.partial(_fit_quietly, replace(self, verbose=False, say=print))
            with ProcessPoolExecutor(jobs, get_context("spawn"), _use_threads, (share,)) as pool:
                futures = [pool.submit(fit, one) for one in ready]
                try:
                    for config, future in zip(ready, futures, strict=True):
                        yield config, caught(lambda begun: Run.open(begun.result()), future)
                finally:
                    pool.shutdown(cancel_futures=True)

    def _with_start(self, config: RunConfig) -> RunConfig:
        """Return the configuration with the whole path of the finished run that it starts from."""
        link = _LINK.fullmatch(str(config.method.start))
        if link is None:
            return config
        finished = [place for place in self._of(link[1]) if (place / RECORD).is_file()]
        if not finished:
            raise RunError("the run to start from is not finished", code="RUN-INCOMPLETE")
        return replace(config, method=replace(config.method, start=finished[0].absolute()))

    def _of(self, key: str) -> list[Path]:
        """Return the folders of a run, whatever it was called."""
        return sorted((self.folder / RUNS).glob(f"*-{key}"))


def refuse_changed(run: Run, method: MethodConfig, data: Dataset) -> None:
    """Refuse a finished run whose images or weights are not the ones that lie there now.

    Paths and classes are compared with the run's. Only files that were written, moved or copied
    since are opened: the content decides. An image that could not be used then, and was touched
    since, may be repaired.

    Args:
        run: The finished run.
        method: What it would begin with now.
        data: The images that lie there now; what is read of their content is kept.

    Raises:
        RunError: Images are new, gone, changed, of another class or repaired, came with other parts
            or groups, or the weights to begin with are others (``RUN-CHANGED``).
        DataError: A file cannot be read.
    """
    then = {row.path: row for row in run.rows()}
    bad = {str(entry.get("path", "")) for entry in (run.check or {}).get("bad_files", [])}
    now = {name: place for place, name in enumerate(data.relative_paths())}
    written = (run.folder / RECORD).stat().st_mtime
    touched = {name for name, place in now.items() if _touched(data.paths[place]) > written}
    again = sorted(touched & then.keys())
    contents = zip(again, data.take(now[name] for name in again).hashes(), strict=True)
    kinds = {
        "new": now.keys() - then.keys() - bad,
        "gone": then.keys() - now.keys(),
        "changed": {name for name, sha256 in contents if sha256 != then[name].sha256},
        "of another class": {n for n in now.keys() & then if data.labels[now[n]] != then[n].label},
        "perhaps repaired": touched & bad - then.keys(),
    }
    told = [f"{len(names)} {what} ({min(names)})" for what, names in kinds.items() if names]
    settings = run.record.split.settings
    divided = division(data, regroup=settings.get("regroup", False), among=then)
    if not told and divided != settings.get("division", divided):
        told.append("their own parts or groups are others")
    initial, start = run.record.backbone.initial, method.start or method.weights
    for name, sha256 in initial_weights(method).items():
        if initial.get(name, sha256) != sha256:
            told.append(f"the {name} ({start}) has other content now")
    if told:
        what, why = "its images or weights are not the ones of this run any more", ", ".join(told)
        hint = "choose another folder with out (--out), or delete this one"
        raise RunError(what, path=run.folder, why=why, hint=hint, code="RUN-CHANGED")


def _touched(file: Path) -> float:
    """Return the latest time of a file: a copy or a move may keep when its content was written."""
    try:
        facts = file.stat()
    except OSError:  # whoever opens it says what is wrong
        return math.inf
    return max(facts.st_mtime, facts.st_ctime)


def compare_rows(
    outcome: Outcome, page: Path, *, warnings: Sequence[str] = (), **facts: Any
) -> tuple[Comparison, Path | None]:
    """Return what came of a plan as a comparison, and the page of it if any run was finished."""
    found = comparison_warnings([(row.description, row.runs) for row in outcome.rows])
    comparison = Comparison.of(
        outcome.rows, failures=outcome.failures, warnings=(*warnings, *found), **facts
    )
    return comparison, write_comparison(comparison, page) if outcome.rows else None


def _advice_lines(plan: Plan) -> list[str]:
    """Return what is to be said against the methods of a plan, and the rows that it is said of."""
    found: dict[str, list[str]] = {}
    for row in plan.rows:
        for text in advice(row.configs[0].method):
            found.setdefault(text, []).append(row.description)
    return [f"{list_names(names, most=3)}: {text}" for text, names in found.items()]


def _fit_quietly(runner: PlanRunner, config: RunConfig) -> Path:
    return runner.fit(config).folder


def _use_threads(count: int) -> None:
    """Let a process compute with its share of the cores."""
    torch.set_num_threads(count)
    threadpool_limits(count)


def caught(work: Callable[[A], T], given: A) -> T | RegraftError:
    """Return what came of some work, or what went wrong: that is the failure of its row alone."""
    try:
        return work(given)
    except RegraftError as error:
        return error
    except Exception as error:  # noqa: BLE001 - what nobody foresaw is said with its kind
        return RunError(f"unexpected error: {type(error).__name__}", why=str(error))


def dry_run(plan: Plan) -> Table:
    """Return what a plan would do, a line for each of its rows; nothing is written or fetched.

    Images are counted, not opened. The time is an estimate, from blank images that pass through the
    network with random weights.

    Raises:
        DataError: The images of a row cannot be listed.
        BackboneError: A network cannot be built.
    """
    rows: list[tuple[Cell, ...]] = []
    whole, kept_features = 0.0, set[tuple[BackboneSpec, str]]()
    for row in plan.rows:
        data, method, runs = row.configs[0].data, row.configs[0].method, len(row.configs)
        images, phases = _listed(data), method.all_phases()
        learned = _learned(images, data, method)
        outputs = 1 if method.output == "sigmoid" else len(images.classes)
        network = (method.spec, method.head, phases, outputs, choose_device(method.device))
        size, trained, forward, shares = _measured(*network)
        steps, passes, seconds = 0, runs, 0.0
        for phase, share in zip(phases, shares, strict=True):
            batches = min(-(-learned // method.batch_size), phase.steps or learned)
            steps += phase.epochs * batches
            kept = method.augment is None or method.views is not None
            seen = runs * phase.epochs * min(learned, batches * method.batch_size)
            # The way back takes twice the time of the way through what is trained.
            seconds += seen * forward * ((share if kept else 1) + 2 * share)
        if method.strategy == "features":  # which are kept for all runs on the same images
            new = {(one.method.spec, one.data.images_key) for one in row.configs} - kept_features
            kept_features |= new
            passes = len(new)
        seconds += passes * forward * len(images)
        whole += seconds
        sizes = (size, trained, size - trained)
        rows.append((row.description, runs, learned, *sizes, steps, Duration(seconds)))
    columns = ("row", "runs", "images", "parameters", "trained", "frozen", "steps", "about")
    note = f"about {Duration(whole)} in all, an estimate from a few blank images; nothing was run"
    return Table(columns, tuple(rows), notes=(note, *_advice_lines(plan)))


@functools.lru_cache(maxsize=16)
def _listed(data: DataConfig) -> Dataset:
    return read_images(data)


def _learned(images: Dataset, data: DataConfig, method: MethodConfig) -> int:
    """Return how many images a method learns from, about: they are not split."""
    count, classes = len(images), len(images.classes)
    if images.parts is not None and not data.regroup:
        count = sum(part == "train" for part in images.parts)
    else:
        held = (data.val, 1 / data.folds if data.folds else data.test)
        count -= round(sum(part * (classes if part >= 1 else count) for part in held))
    amounts = (method.size, method.per_class and method.per_class * classes)
    share = round((method.fraction or 1.0) * count)
    return min(share, *(amount for amount in amounts if amount is not None), count)


@functools.lru_cache(maxsize=64)
def _measured(
    spec: BackboneSpec, head: str | Head, phases: tuple[Phase, ...], outputs: int, device: str
) -> tuple[int, int, float, list[float]]:
    """Return how large a network is and how long an image takes, with random weights.

    Returns:
        The parameters of trunk and head (without phases of the trunk alone), how many of them the
        last phase trains, the seconds to look at an image, and the share of each phase of them.
    """
    backbone = build_backbone(replace(spec, weights=None))
    network = TransferNetwork(backbone, find_head(head), outputs=outputs).to(device)
    batch, trained = network.blank(_FEW), 0
    with torch.inference_mode():
        forward = _seconds(lambda: network(batch).sum().item()) / _FEW
    shares = []
    for phase in phases:
        shares.append(network.freeze(phase).stages)
        trained = sum(own.numel() for own in network.parameters() if own.requires_grad)
    return network.size() if phases else backbone.parameters, trained, forward, shares


def _seconds(work: Callable[[], Any]) -> float:
    work()  # the first time pays for what is allocated
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
