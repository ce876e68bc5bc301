"""Many runs into one folder: finished ones are skipped, a killed one resumes where it was."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from regraft.errors import RegraftError, RunError
from regraft.experiment.config import RunConfig
from regraft.experiment.plan import Plan
from regraft.experiment.prepare import PreparedData, prepare, read_images
from regraft.experiment.run import fit_run
from regraft.experiment.staleness import FolderState, refuse_changed_images, refuse_changed_weights
from regraft.experiment.warnings import comparison_warnings
from regraft.report.comparison_page import write_comparison
from regraft.report.tables import Duration
from regraft.results.comparison import Comparison, Row
from regraft.results.run import RECORD, Run
from regraft.system import threads

RUNS = "runs"
Say = Callable[[str], None]
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
    _states: dict[str, FolderState] = field(default_factory=dict, repr=False)

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
        if key not in self._states:  # the images are listed once for all runs
            self._states[key] = FolderState.of(read_images(config.data))
        refuse_changed_images(run, self._states[key])
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

    def run(self, plan: Plan, *, jobs: int = 1, resume: bool = False) -> Outcome:
        """Fit what is not finished of a plan.

        Args:
            plan: What to run.
            jobs: How many runs are fitted at the same time, in processes of their own that share
                the processor's cores.
            resume: Whether there must be runs already.

        Raises:
            RunError: There are none to resume (``RUN-RESUME``), or a finished run cannot be used;
                see :meth:`finished`. What cannot be fitted is no error but a failure of its row.
            DataError: The images of a finished run are not there any more.
        """
        if resume and not (self.folder / RUNS).is_dir():
            raise RunError(
                "there is nothing to resume",
                path=self.folder,
                hint="leave resume (--resume) out to begin anew",
                code="RUN-RESUME",
            )
        configs = plan.configs()
        runs = {config.folder: run for config in configs if (run := self.finished(config))}
        waiting = [config for config in configs if config.folder not in runs]
        if runs:
            self.say(f"{len(runs)} of {len(configs)} runs are finished already")
        failures: list[str] = []
        fit = self._one_by_one(waiting) if jobs == 1 else self._together(waiting, jobs)
        begun = time.perf_counter()
        for done, (config, result) in enumerate(fit, start=1):
            if isinstance(result, Run):
                runs[config.folder] = result
            else:
                failures.append(f"{config.description}: {result}")
                self.say(f"failed: {failures[-1]}")
            left = (len(waiting) - done) * (time.perf_counter() - begun) / done
            if left:
                self.say(f"{done} of {len(waiting)} runs done, about {Duration(left)} left")
        rows = []
        for row in plan.rows:
            found = tuple(runs[config.folder] for config in row.configs if config.folder in runs)
            rows += [Row(row.description, found, row.published)] if found else []
        return Outcome(tuple(rows), tuple(failures), len(waiting) - len(failures))

    def _one_by_one(
        self, configs: Sequence[RunConfig]
    ) -> Iterator[tuple[RunConfig, Run | RegraftError]]:
        for number, config in enumerate(configs, start=1):
            seed = config.method.seed
            self.say(f"run {number} of {len(configs)}: {config.description}, seed {seed}")
            try:
                yield config, self.fit(config)
            except Exception as error:  # noqa: BLE001 - it is the failure of one row, and is said
                yield config, _failure(error)

    def _together(
        self, configs: Sequence[RunConfig], jobs: int
    ) -> Iterator[tuple[RunConfig, Run | RegraftError]]:
        """Yield what became of runs that are fitted in processes of their own."""
        waiting = []
        for config in configs:  # here and once; the processes get what was found
            try:
                self.prepared(config)
            except RegraftError as error:
                yield config, error
            else:
                waiting.append(config)
        while waiting:
            links = {config.link for config in waiting}
            ready = [one for one in waiting if str(one.method.start) not in links]
            waiting = [config for config in waiting if config not in ready]
            yield from self._wave(ready, jobs)

    def _wave(
        self, configs: Sequence[RunConfig], jobs: int
    ) -> Iterator[tuple[RunConfig, Run | RegraftError]]:
        """Yield what became of runs that do not wait for one another.

        A process that dies takes all those of its pool with it; alone, each is the only suspect.
        """
        ended = []
        for config, result in self._pool(configs, jobs):
            if result is None:
                ended.append(config)
            else:
                yield config, result
        for config in ended:
            found = self.finished(config)  # it may have been ready when its pool was ended
            if found is None:
                ((_, result),) = self._pool([config], 1)
                yield config, result or _ended()
            else:
                yield config, found

    def _pool(
        self, configs: Sequence[RunConfig], jobs: int
    ) -> Iterator[tuple[RunConfig, Run | RegraftError | None]]:
        """Yield what became of runs in processes of one pool; None where these were ended."""
        quiet = replace(self, verbose=False, say=print)
        with shared_cores(jobs), ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
            begun: dict[Future[Path], RunConfig] = {}
            for config in configs:
                try:
                    begun[pool.submit(_fit_quietly, quiet, config)] = config
                except BrokenProcessPool:  # a first one died before all of them were handed out
                    yield config, None
            for future in as_completed(begun):
                yield begun[future], _result(future)

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


def _result(future: Future[Path]) -> Run | RegraftError | None:
    try:
        return Run.open(future.result())
    except BrokenProcessPool:
        return None
    except Exception as error:  # noqa: BLE001 - it is the failure of one row, and is said
        return _failure(error)


def _ended() -> RunError:
    return RunError(
        "its process was ended by the system",
        why="perhaps for want of memory",
        hint="free some, or learn with a smaller batch_size; training resumes where it was",
        code="RUN-ENDED",
    )


def _failure(error: Exception) -> RegraftError:
    """Return an error that says what went wrong; of what nobody foresaw also the kind."""
    if isinstance(error, RegraftError):
        return error
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
