"""The demonstration: three methods on two small sets of images, without a download."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from regraft.data.synthetic import make_flowers, write_digits
from regraft.errors import RunError
from regraft.experiment.batch import PlanRunner, Say, compare_rows
from regraft.experiment.plan import Plan, read_plan
from regraft.files import write_text
from regraft.report.tables import Duration
from regraft.results.comparison import Comparison

FLOWERS_PER_CLASS = 80
DIGITS_PER_CLASS = 120
LEARNED_PER_CLASS = 20
EPOCHS = {"scratch": 30, "fine": 12}
SIDES = {"flowers": 80, "digits": 48}  # pixels that enter the network
SCRATCH = "training from scratch"
IMAGES = "images"
PLAN = """\
# Change what you like, and run it:  regraft run {name}.toml
title = "Three methods on {name}"

[data]
source = "{images}/{name}"

[defaults]
backbone = "efficientnet_lite0"
per_class = {per_class}  # images of each class to learn from; the test part stays the same

[defaults.preprocessing]  # smaller than the network's own 224 pixels, to save time
size = {side}
resize = {side}
mode = "squash"

[[rows]]
id = "{name}-1"
description = "{scratch}"
backbone = "simple_cnn"  # four convolutions, few enough to be trained to the end
strategy = "from_scratch"
head = "mlp_512_512"
epochs = {scratch_epochs}

[[rows]]
id = "{name}-2"
description = "features + logistic regression"
strategy = "features"
classifier = "logistic"

[[rows]]
id = "{name}-3"
description = "fine-tuning the upper half"
strategy = "two_stage"
unfreeze = 0.5
head_epochs = {fine_epochs}
epochs = {fine_epochs}
lr = 3e-4
"""


@dataclass(frozen=True)
class Shown:
    """What the demonstration leaves of one set of images.

    Args:
        name: ``"flowers"`` or ``"digits"``.
        images: Their folder.
        plan: The plan that was run.
        comparison: What came of it.
        page: The comparison as a page.
    """

    name: str
    images: Path
    plan: Path
    comparison: Comparison
    page: Path

    @property
    def lesson(self) -> str:
        """What the comparison says about transfer, whichever way it went."""
        known = [
            (row.validation.estimate.value, row.description)
            for row in self.comparison.rows
            if row.validation is not None and row.description != SCRATCH
        ]
        pair = {SCRATCH, max(known, default=(0.0, ""))[1]}
        verdict = next((v for v in self.comparison.verdicts if {v.a, v.b} == pair), None)
        if verdict is None:
            why = "; ".join(self.comparison.failures)
            return f"For the {self.name} nothing can be said: {why}."
        says = "no gain in accuracy from transfer can be seen"
        if verdict.better is not None:
            better = getattr(verdict, verdict.better)
            says = "transfer does harm" if better == SCRATCH else "transfer helps"
        times = [f"{Duration(row.seconds)} for {row.description}" for row in self.comparison.rows]
        took = f"{', '.join(times[:-1])} and {times[-1]}"
        return f"For the {self.name} {says}: {verdict.verdict}. It took {took}."


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
) -> list[Shown]:
    """Learn drawn flowers and handwritten digits by three methods each, and compare these.

    A small network is trained from scratch; a classifier learns on the features of another with
    ImageNet weights; and its upper half is fine-tuned from these weights. Flowers resemble the
    photographs that the weights were learned from, and digits do not.

    Args:
        folder: Where images, plans, runs and pages shall stand; it must be empty or absent.
        seed: Seed of the drawings.
        jobs: How many runs at the same time, in processes that share the processor's cores.
        verbose: Whether to show progress on standard error.
        say: Gets a line before each step.

    Returns:
        The flowers and the digits.

    Raises:
        RunError: Something stands in the folder (``RUN-EXISTS``).
    """
    place = Path(folder)
    if place.exists() and any(place.iterdir()):
        raise RunError("something stands here already", path=place, code="RUN-EXISTS")
    say("drawing flowers …")
    make_flowers(place / IMAGES / "flowers", per_class=FLOWERS_PER_CLASS, seed=seed)
    write_digits(place / IMAGES / "digits", per_class=DIGITS_PER_CLASS)
    plans = {name: _plan(name, place) for name in SIDES}
    rows = tuple(row for plan in plans.values() for row in plan.rows)
    runner = PlanRunner(place, command=f"regraft demo --out {place.name}", verbose=verbose, say=say)
    runner.run(Plan("", rows), jobs=jobs)  # all of them together, so that no core waits
    return [_shown(name, plan, runner) for name, plan in plans.items()]


def _plan(name: str, place: Path) -> Plan:
    """Write the plan of one set of images as a file, and read it."""
    sizes = {"side": SIDES[name], "per_class": LEARNED_PER_CLASS}
    epochs = {f"{stage}_epochs": count for stage, count in EPOCHS.items()}
    text = PLAN.format(name=name, images=IMAGES, scratch=SCRATCH, **sizes, **epochs)
    write_text(place / f"{name}.toml", text)
    return read_plan(place / f"{name}.toml")


def _shown(name: str, plan: Plan, runner: PlanRunner) -> Shown:
    """Compare the finished runs of one plan, and write its page."""
    outcome = replace(runner, say=lambda _line: None).run(plan)
    page = runner.folder / f"{name}.html"
    comparison, _ = compare_rows(outcome, page, title=plan.title, command=runner.command)
    images, file = runner.folder / IMAGES / name, runner.folder / f"{name}.toml"
    return Shown(name, images, file, comparison, page)
