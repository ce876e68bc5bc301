"""Many runs into one folder: finished ones are skipped, a killed one goes on where it was."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

from regraft.errors import RegraftError, RunError
from regraft.experiment.plan import Plan, PlannedRow
from regraft.experiment.preparation import PreparedData
from regraft.experiment.recipe import Recipe
from regraft.experiment.unchanged import Listing, refuse_changed_pictures, refuse_changed_weights
from regraft.report.tables import Duration
from regraft.results.comparison import Row
from regraft.results.run import RECORD, Run
from regraft.system import threads

RUNS = "runs"
_LINK = re.compile(r"run-([0-9a-f]{8})")  # see Recipe.link
Say = Callable[[str], None]
# What says how pictures are cut, not which they are.
_CUT = ("val", "test", "seed", "folds", "fold", "regroup", "keep_parts", "small_classes")


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
class Campaign:
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
    _listed: dict[str, Listing] = field(default_factory=dict, repr=False)

    def place(self, recipe: Recipe) -> Path:
        """Return the folder of a run; one of an earlier description stays where it is."""
        own = self.folder / RUNS / recipe.folder
        earlier = self._of(recipe.digest)
        return own if own.is_dir() or not earlier else earlier[0]

    def finished(self, recipe: Recipe) -> Run | None:
        """Return the run of a recipe if it is finished.

        Raises:
            RunError: The pictures (``RUN-DATA-CHANGED``) or the file of the weights
                (``RUN-WEIGHTS-CHANGED``) have changed since, or the run is damaged.
            DataError: The pictures are not there any more.
        """
        place = self.place(recipe)
        if not (place / RECORD).is_file():
            return None
        run = Run.open(place)
        refuse_changed_pictures(run, self._listing(recipe))
        start = recipe.row.get("start")
        refuse_changed_weights(run, recipe.backbone, None if _LINK.fullmatch(str(start)) else start)
        return run

    def fit(self, recipe: Recipe) -> Run:
        """Fit one recipe, or go on with it; its pictures are checked once for all runs of a split.

        Raises:
            RegraftError: The run cannot be made.
        """
        from regraft.experiment.runner import fit_run

        whole = self._resolved(recipe)
        return fit_run(
            whole.data_plan,
            whole.learner(verbose=self.verbose),
            out=self.place(recipe),
            description=recipe.description,
            command=self.command,
            recipe=whole.plan,
            shared=self.prepared(recipe),
            verbose=self.verbose,
        )

    def prepared(self, recipe: Recipe) -> PreparedData:
        """Return a checked split of a recipe's pictures; each of them is decoded once for all."""
        key = _pictures(recipe)
        if key not in self._prepared:
            self._prepared[key] = recipe.data_plan.prepare(verbose=self.verbose)
        return self._prepared[key]

    def _listing(self, recipe: Recipe) -> Listing:
        """Return the pictures that lie there now, listed once for all runs."""
        key = _pictures(recipe)
        if key not in self._listed:
            self._listed[key] = Listing.of(recipe.data_plan.read())
        return self._listed[key]

    def run(self, plan: Plan, *, jobs: int = 1) -> Outcome:
        """Fit what is not finished of a plan.

        Args:
            plan: What to run.
            jobs: How many runs are fitted at the same time, in processes of their own that share
                the processor's cores.

        Raises:
            RunError: A finished run cannot be used; see :meth:`finished`. What cannot be fitted is
                no error but a failure of its row.
            DataError: The pictures of a finished run are not there any more.
        """
        recipes = plan.recipes()
        runs = {recipe.folder: run for recipe in recipes if (run := self.finished(recipe))}
        waiting = [recipe for recipe in recipes if recipe.folder not in runs]
        if runs:
            self.say(f"{len(runs)} of {len(recipes)} runs are finished already")
        failures: list[str] = []
        fit = self._one_by_one if jobs == 1 else _Together(self, jobs)
        begun = time.perf_counter()
        for done, (recipe, result) in enumerate(fit(waiting), start=1):
            if isinstance(result, Run):
                runs[recipe.folder] = result
            else:
                failures.append(f"{recipe.description}: {result}")
                self.say(f"failed: {failures[-1]}")
            left = (len(waiting) - done) * (time.perf_counter() - begun) / done
            if left:
                self.say(f"{done} of {len(waiting)} runs done, about {Duration(left)} left")
        fitted = len(waiting) - len(failures)
        return Outcome(tuple(_rows(plan.rows, runs)), tuple(failures), fitted)

    def _one_by_one(self, recipes: Sequence[Recipe]) -> Iterator[tuple[Recipe, Run | RegraftError]]:
        for number, recipe in enumerate(recipes, start=1):
            self.say(f"run {number} of {len(recipes)}: {recipe.description}, seed {recipe.seed}")
            try:
                yield recipe, self.fit(recipe)
            except Exception as error:  # noqa: BLE001 - it is the failure of one row, and is said
                yield recipe, _failure(error)

    def _resolved(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the whole path of the run that it starts from.

        Raises:
            RunError: That run is not finished.
        """
        link = _LINK.fullmatch(str(recipe.row.get("start", "")))
        if link is None:
            return recipe
        finished = [place for place in self._of(link[1]) if (place / RECORD).is_file()]
        if not finished:
            raise RunError("the run to start from is not finished", code="RUN-INCOMPLETE")
        return replace(recipe, row={**recipe.row, "start": str(finished[0].absolute())})

    def _of(self, digest: str) -> list[Path]:
        """Return the folders of a run, whatever it was called."""
        return sorted((self.folder / RUNS).glob(f"*-{digest}"))


@dataclass
class _Together:
    """Several runs at the same time, each in a process of its own."""

    campaign: Campaign
    jobs: int

    def __call__(self, recipes: Sequence[Recipe]) -> Iterator[tuple[Recipe, Run | RegraftError]]:
        waiting = []
        for recipe in recipes:  # here and once; the processes get what was found
            try:
                self.campaign.prepared(recipe)
            except RegraftError as error:
                yield recipe, error
            else:
                waiting.append(recipe)
        while waiting:
            links = {recipe.link for recipe in waiting}
            ready = [r for r in waiting if str(r.row.get("start", "")) not in links]
            waiting = [recipe for recipe in waiting if recipe not in ready]
            yield from self._wave(ready)

    def _wave(self, recipes: Sequence[Recipe]) -> Iterator[tuple[Recipe, Run | RegraftError]]:
        """Yield what became of runs that do not wait for one another.

        A process that dies takes all those of its pool with it; alone, each is the only suspect.
        """
        ended = []
        for recipe, result in self._pool(recipes, self.jobs):
            if result is None:
                ended.append(recipe)
            else:
                yield recipe, result
        for recipe in ended:
            yield recipe, self._alone(recipe)

    def _alone(self, recipe: Recipe) -> Run | RegraftError:
        found = self.campaign.finished(recipe)  # it may have been ready when its pool was ended
        if found is not None:
            return found
        ((_, result),) = self._pool([recipe], 1)
        return result or _ended()

    def _pool(
        self, recipes: Sequence[Recipe], jobs: int
    ) -> Iterator[tuple[Recipe, Run | RegraftError | None]]:
        """Yield what became of runs in processes of one pool; None where these were ended."""
        quiet = replace(self.campaign, verbose=False, say=print)
        with ProcessPoolExecutor(
            jobs,
            mp_context=get_context("spawn"),
            initializer=_share_cores,
            initargs=(jobs,),
        ) as pool:
            begun: dict[Future[Path], Recipe] = {}
            for recipe in recipes:
                try:
                    begun[pool.submit(_fit_quietly, quiet, recipe)] = recipe
                except BrokenProcessPool:  # a first one died before all of them were handed out
                    yield recipe, None
            for future in as_completed(begun):
                yield begun[future], _result(future)


def _fit_quietly(campaign: Campaign, recipe: Recipe) -> Path:
    return campaign.fit(recipe).folder


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
        hint="free some, or learn with a smaller batch_size; what was trained is gone on with",
        code="RUN-ENDED",
    )


def _failure(error: Exception) -> RegraftError:
    """Return an error that says what went wrong; of what nobody foresaw also the kind."""
    if isinstance(error, RegraftError):
        return error
    return RunError(f"unexpected error: {type(error).__name__}", why=str(error))


def _share_cores(jobs: int) -> None:
    """Give each process its share of the cores, before any library counts them."""
    share = max(1, threads() // jobs)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(share)


def _pictures(recipe: Recipe) -> str:
    """Return what tells recipes with other pictures apart, however they are cut."""
    return recipe.without(*_CUT)[0]


def _rows(planned: Sequence[PlannedRow], runs: dict[str, Run]) -> Iterator[Row]:
    """Yield the rows that have runs."""
    for row in planned:
        found = tuple(runs[recipe.folder] for recipe in row.recipes if recipe.folder in runs)
        if found:
            yield Row(row.description, found, row.published)
