"""Many runs into one folder: finished ones are skipped, a killed one resumes where it was."""

from __future__ import annotations

import contextlib
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

from regraft.data.dataset import Dataset
from regraft.errors import RegraftError, RunError
from regraft.experiment.config import RunConfig
from regraft.experiment.plan import Plan
from regraft.experiment.prepare import PreparedData, prepare, read_images
from regraft.experiment.run import fit_run
from regraft.experiment.staleness import refuse_changed_images, refuse_changed_weights
from regraft.experiment.warnings import comparison_warnings
from regraft.report.comparison_page import write_comparison
from regraft.report.tables import Duration
from regraft.results.comparison import Comparison, Row
from regraft.results.run import RECORD, Run
from regraft.system import threads

RUNS = "runs"
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

    def fit(self, config: RunConfig) -> Run:
        """Fit one run, or resume it; its images are checked once for all runs on them.

        Raises:
            RegraftError: The run cannot be made.
        """
        return fit_run(
            self._with_start(config),
            out=self.place(config),
            command=self.command,
            shared=self.prepared(config),
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
