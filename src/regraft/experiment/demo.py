"""The demonstration: three methods on drawn flowers, without a download."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from regraft.data.synthetic import make_flowers
from regraft.errors import RunError
from regraft.experiment.batch import PlanRunner, Say, compare_rows
from regraft.experiment.plan import read_plan
from regraft.files import write_text
from regraft.report.tables import Duration
from regraft.results.comparison import Comparison

PER_CLASS = 80
SCRATCH = "training from scratch"  # as the plan calls it
IMAGES = "flowers"
PLAN = Path(__file__).with_name("demo.toml")


@dataclass(frozen=True)
class Shown:
    """What the demonstration leaves.

    Args:
        images: The folder of the flowers.
        plan: The plan that was run.
        comparison: What came of it.
        page: The comparison as a page.
    """

    images: Path
    plan: Path
    comparison: Comparison
    page: Path

    @property
    def lesson(self) -> str:
        """What the comparison says about transfer, whichever way it went."""
        verdicts = self.comparison.verdicts
        verdict = next((v for v in verdicts if SCRATCH in {v.a, v.b}), None)
        if verdict is None:
            return f"Nothing can be said: {'; '.join(self.comparison.failures)}."
        says = "No gain in accuracy from transfer can be seen"
        if verdict.better is not None:
            better = getattr(verdict, verdict.better)
            says = "Transfer does harm" if better == SCRATCH else "Transfer helps"
        times = [f"{Duration(row.seconds)} for {row.description}" for row in self.comparison.rows]
        took = f"{', '.join(times[:-1])} and {times[-1]}"
        return f"{says}: {verdict.verdict}. It took {took}."


def photographs() -> tuple[Path, ...]:
    """Return the two photographs that come with scikit-learn: a palace in China, and a daisy."""
    folder = Path(str(files("sklearn.datasets.images")))
    return (folder / "china.jpg", folder / "flower.jpg")


def run_demo(
    folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    jobs: int = 1,
    verbose: bool = False,
    say: Say = lambda _line: None,
) -> Shown:
    """Learn drawn flowers by three methods, and compare these.

    A small network is trained from scratch; a classifier learns on the features of another with
    ImageNet weights; and its upper half is fine-tuned from these weights.

    Args:
        folder: Where images, plan, runs and page shall stand; it must be empty or absent.
        seed: Seed of the drawings.
        jobs: How many runs at the same time, in processes that share the processor's cores.
        verbose: Whether to show progress on standard error.
        say: Gets a line before each step.

    Raises:
        RunError: Something stands in the folder (``RUN-EXISTS``).
    """
    place = Path(folder)
    if place.exists() and any(place.iterdir()):
        raise RunError("something stands here already", path=place, code="RUN-EXISTS")
    say("drawing flowers …")
    make_flowers(place / IMAGES, per_class=PER_CLASS, seed=seed)
    file, page = place / "flowers.toml", place / "flowers.html"
    write_text(file, PLAN.read_text(encoding="utf-8"))
    plan = read_plan(file)
    runner = PlanRunner(place, command=f"regraft demo --out {place.name}", verbose=verbose, say=say)
    outcome = runner.run(plan, jobs=jobs)
    comparison, _ = compare_rows(outcome, page, title=plan.title, command=runner.command)
    return Shown(place / IMAGES, file, comparison, page)
