"""Many runs into one folder: finished ones are skipped, a killed one resumes where it was."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regraft.backbones.backbone import build as build_backbone
from regraft.backbones.spec import BackboneSpec
from regraft.data.dataset import Dataset
from regraft.errors import RegraftError, RunError, list_names
from regraft.experiment.config import DataConfig, MethodConfig, RunConfig
from regraft.experiment.plan import Plan
from regraft.experiment.prepare import PreparedData, prepare, read_images
from regraft.experiment.run import fit_run
from regraft.experiment.staleness import refuse_changed_images, refuse_changed_weights
from regraft.experiment.warnings import advice, comparison_warnings
from regraft.report.comparison_page import write_comparison
from regraft.report.tables import Cell, Duration, Table
from regraft.results.comparison import Comparison, Row
from regraft.results.run import RECORD, Run
from regraft.system import choose_device, threads
from regraft.training.heads import Head, find_head
from regraft.training.network import TransferNetwork
from regraft.training.phases import Phase

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
    """

    folder: Path
    command: str = ""
    verbose: bool = False
    say: Say = lambda _line: None
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
            RunError: The images (``RUN-DATA-CHANGED``) or the weights (``RUN-WEIGHTS-CHANGED``)
                have changed since, or the run is damaged.
            DataError: The images are not there any more.
        """
        place = self.place(config)
        if not (place / RECORD).is_file():
            return None
        run = Run.open(place)
        key = config.data.images_key
        if key not in self._images:  # they are listed once for all runs
            self._images[key] = read_images(config.data)
        refuse_changed_images(run, self._images[key])
        refuse_changed_weights(run, config.method)
        return run

    def fit(self, config: RunConfig, *, time_budget: float | None = None) -> Run:
        """Fit one run, or resume it; its images are checked once for all runs on them.

        Args:
            config: The run; its folder is called by it.
            time_budget: Minutes after which its training stops itself.

        Raises:
            RegraftError: The run cannot be made.
        """
        method = config.method
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
            yield config, _caught(self.fit, config)

    def _together(self, configs: Sequence[RunConfig], jobs: int) -> _Results:
        """Yield what became of runs that are fitted in processes of their own."""
        waiting = []
        for config in configs:  # here and once; the processes get what was found
            try:
                self.prepared(config)
            except RegraftError as error:
                yield config, error
            else:
                waiting.append(config)
        while waiting:  # those first that start from none that waits
            links = {config.link for config in waiting}
            ready = [one for one in waiting if str(one.method.start) not in links]
            waiting = [config for config in waiting if config not in ready]
            with shared_cores(jobs), ThreadPoolExecutor(jobs) as threads:
                begun = {threads.submit(_caught, self._apart, one): one for one in ready}
                try:
                    for future in as_completed(begun):
                        yield begun[future], future.result()
                finally:
                    threads.shutdown(cancel_futures=True)

    def _apart(self, config: RunConfig) -> Run:
        """Fit one run in a process that can die without the others."""
        quiet = replace(self, verbose=False, say=print)
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            try:
                return Run.open(pool.submit(_fit_quietly, quiet, config).result())
            except BrokenProcessPool as error:
                what, why = "its process was ended by the system", "perhaps for want of memory"
                hint = "free some, or learn with a smaller batch_size; training resumes then"
                raise RunError(what, why=why, hint=hint, code="RUN-ENDED") from error

    def _with_start(self, config: RunConfig) -> RunConfig:
        """Return the configuration with the whole path of the run that it starts from.

        Raises:
            RunError: That run is not finished.
        """
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


def _caught(fit: Callable[[RunConfig], Run], config: RunConfig) -> Run | RegraftError:
    """Return the run, or what went wrong with it: that is the failure of one row, and is said."""
    try:
        return fit(config)
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
    whole = 0.0
    for row in plan.rows:
        data, method = row.configs[0].data, row.configs[0].method
        images, phases = _listed(data), method.all_phases()
        learned = _learned(images, data, method)
        outputs = 1 if method.output == "sigmoid" else len(images.classes)
        network = (method.spec, method.head, phases, outputs, choose_device(method.device))
        size, trained, forward, each = _measured(*network)
        steps, seconds = 0, forward * len(images)
        for phase, (live, kept) in zip(phases, each, strict=True):
            batches = min(-(-learned // method.batch_size), phase.steps or learned)
            cached = method.augment is None or method.views is not None
            seconds += (
                phase.epochs
                * min(learned, batches * method.batch_size)
                * (kept if cached else live)
            )
            steps += phase.epochs * batches
        runs, whole = len(row.configs), whole + seconds * len(row.configs)
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
) -> tuple[int, int, float, list[tuple[float, float]]]:
    """Return how large a network is and how long an image takes, with random weights.

    Returns:
        The parameters of trunk and head (without phases of the trunk alone), how many of them the
        last phase trains, the seconds to look at an image, and for each phase the seconds to learn
        from one: as a whole, and where what is frozen of it is kept.
    """
    backbone = build_backbone(replace(spec, weights=None))
    network = TransferNetwork(backbone, find_head(head), outputs=outputs).to(device)
    batch, each, trained = network.blank(_FEW), [], 0
    with torch.inference_mode():
        forward = _seconds(lambda: network(batch)) / _FEW
    for phase in phases:
        share = network.freeze(phase).stages
        network.set_mode()
        live = _seconds(lambda: _step(network, batch)) / _FEW
        each.append((live, max(live - (1 - share) * forward, 0.0)))
        trained = sum(own.numel() for own in network.parameters() if own.requires_grad)
    return network.size() if phases else backbone.parameters, trained, forward, each


def _step(network: TransferNetwork, batch: Tensor) -> None:
    network(batch).sum().backward()
    first = next(own for own in network.parameters() if own.requires_grad)
    first.grad.sum().item()  # type: ignore[union-attr] # an accelerator is done with its work then


def _seconds(work: Callable[[], Any]) -> float:
    work()  # the first time pays for what is allocated
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@contextlib.contextmanager
def shared_cores(jobs: int) -> Iterator[None]:
    """Let each process that begins meanwhile use its share of the cores.

    Libraries count cores while they are imported, which a process does before it is asked anything.
    """
    share = str(max(1, threads() // jobs))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, share))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
