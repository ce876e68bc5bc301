"""What a reader should know before trusting a number of a run or of a comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from regraft.data.check import CheckReport
from regraft.errors import list_names
from regraft.experiment.config import MethodConfig
from regraft.results import metrics
from regraft.results.intervals import Estimate, percent, points
from regraft.results.predictions import Predictions
from regraft.results.run import PART_TITLES, Run

_FEW = 100  # images, below which a share is uncertain by ten points or so
_FEW_TO_TRAIN = 300  # images to learn from, below which features are looked at first
_WIDE = 0.15
_GAP = 0.1
_MOST_RATE = {"sgd": 0.01}  # for weights that are trained; of the other optimizers 0.001
_RANDOM_HEAD = (
    "the head begins with random weights while the trunk is trained: its first errors change what "
    "the trunk has learned; train the head first (--strategy two_stage), or start from a run that "
    "did (--from RUN)"
)
_HIGH_RATE = (
    "a learning rate of {lr:g} is high for weights that are trained already: what they know is "
    "lost in the first steps; take at most {most:g} with {optimizer}, or ask regraft find-lr"
)
_FEATURES_FIRST = (
    "{learned} images to learn from are few to train a trunk with: look at features of the frozen "
    "network first (--strategy features), which take less time and are hard to beat with so few"
)


def advice(method: MethodConfig, learned: int | None = None) -> list[str]:
    """Return what speaks against a method before it is run, a sentence each with its reason.

    Args:
        method: The method.
        learned: How many images it learns from, if it is known and no other method stands beside.

    Example:
        >>> [text.partition(":")[0] for text in advice(MethodConfig(strategy="fine_tune"))]
        ['the head begins with random weights while the trunk is trained']
        >>> advice(MethodConfig(strategy="two_stage"))
        []
    """
    phases = [phase for phase in method.all_phases() if phase.epochs]
    opened = [phase for phase in phases if phase.opens_trunk]
    said = []
    if opened and (method.start is not None or method.spec.weights is not None):
        if opened[0] is phases[0] and method.start is None:
            said.append(_RANDOM_HEAD)
        for phase in opened:
            most = _MOST_RATE.get(phase.optimizer, 1e-3)
            if phase.lr > most:
                said.append(_HIGH_RATE.format(lr=phase.lr, most=most, optimizer=phase.optimizer))
    few = learned is not None and learned < _FEW_TO_TRAIN
    if opened and few and method.start is None:
        said.append(_FEATURES_FIRST.format(learned=learned))
    return said


def run_warnings(
    predictions: Predictions, report: CheckReport, *, notes: Sequence[str] = ()
) -> list[str]:
    """Return what to bear in mind about a run, a sentence each, what spoils it most first.

    Args:
        predictions: Of all parts.
        report: What the data check found, with the parts of the split.
        notes: What the learner and its backbone say already; each is taken over once.

    Example:
        >>> import numpy as np
        >>> from regraft.data.check import check
        >>> from regraft.data.dataset import Dataset
        >>> shares = np.array([[0.9, 0.1]] * 16)
        >>> paths, truth = tuple("0123456789abcdef"), tuple("x" * 15 + "y")
        >>> p = Predictions(paths, truth, ("x", "y"), shares, ("val",) * 16)
        >>> run_warnings(p, check(Dataset((), (), ())))[1].partition(";")[0]
        '16 validation images: 93.8 % may be anything from 72 to 99 %'
    """
    parts = {name: predictions.part(name) for name in PART_TITLES}
    accuracies = {name: metrics.accuracy(part) for name, part in parts.items()}
    findings = [f for f in report.findings if f.severity != "note"]
    said = [
        *(f"{finding.message}; {finding.advice}" for finding in findings),
        *_leaks(parts["test"], report.leaked("test")),
        *_no_test(accuracies),
        *_few(accuracies),
        *_no_better(parts["test"] if len(parts["test"]) else parts["val"]),
        *_overfitted(accuracies),
        *notes,
    ]
    return list(dict.fromkeys(said))


def comparison_warnings(methods: Sequence[tuple[str, Sequence[Run]]]) -> list[str]:
    """Return what to bear in mind about runs that stand side by side, a sentence each.

    Args:
        methods: Each method with its runs: other seeds on one split, or other splits.

    Returns:
        What concerns the methods together, then what every single run warns of.

    Example:
        >>> comparison_warnings([])
        []
    """
    measured = [(name, runs) for name, runs in methods if runs]
    runs = [run for _, several in measured for run in several]
    if not runs:
        return []
    once = [name for name, several in measured if len(several) == 1]
    splits = {run.split_hash for run in runs}
    said = []
    if once:
        rows = "every method was" if len(once) == len(measured) else f"{list_names(once, most=3)}:"
        said.append(
            f"{rows} measured once, with one seed: another seed may change an accuracy as much as "
            "the methods differ; repeat with several seeds (compare --seeds 3, or seed = [0, 1, 2] "
            "in a plan)"
        )
    if len(splits) == 1 and len(runs) > 1:
        test = runs[0].metrics.get("test")
        on = f" with {test['accuracy'].n:,} test images" if test else ""
        said.append(
            f"all runs share one split{on}: what depends on the choice of the images is not "
            "measured; use folds or another seed of the split to see it (compare --folds 5, or "
            "folds = 5 in a plan)"
        )
    strategies = {run.record.method.get("strategy", "features") for run in runs}
    learned = min(sum(run.record.data.counts.get("train", {}).values()) for run in runs)
    if 0 < learned < _FEW_TO_TRAIN and not strategies & {"features", "frozen"}:
        said.append(_FEATURES_FIRST.format(learned=learned))
    common = Counter(warning for run in runs for warning in set(run.record.warnings))
    return said + [warning for warning in runs[0].record.warnings if common[warning] == len(runs)]


def _leaks(test: Predictions, leaked: Sequence[str]) -> Iterable[str]:
    if not leaked or not len(test):
        return
    rest = test.without(leaked)
    whole, clean = metrics.accuracy(test), metrics.accuracy(rest)
    told = f"without them the test accuracy is {percent(clean)}, with them {percent(whole)}"
    yield (
        f"{len(test) - len(rest):,} of {len(test):,} test images have a copy, a similar image or "
        f"a member of their group in train or validation: "
        f"{told if clean.known else f'{percent(whole)} is too good'}; cut the set anew "
        "(--regroup) for a test without such images"
    )


def _no_test(accuracies: dict[str, Estimate]) -> Iterable[str]:
    if not accuracies["test"].known:
        there = "validation" if accuracies["val"].known else "train"
        yield (
            f"there is no test part: the numbers come from the {there} part, which the fit has "
            "seen or was tuned on, and are too good; set some images apart (--test 0.25)"
        )


def _few(accuracies: dict[str, Estimate]) -> Iterable[str]:
    for name in ("val", "test"):
        share = accuracies[name]
        if share.known and (share.n < _FEW or share.high - share.low > _WIDE):
            low, high = (percent(end, digits=0) for end in share.interval)
            yield (
                f"{share.n:,} {PART_TITLES[name]} image{'s' if share.n > 1 else ''}: "
                f"{percent(share, parts='')} may be anything from {low.removesuffix(' %')} to "
                f"{high}; set more of them apart, or cross-validate"
            )


def _no_better(p: Predictions) -> Iterable[str]:
    accuracy, baseline = metrics.accuracy(p), metrics.majority_baseline(p)
    if accuracy.known and accuracy.low <= baseline.value:
        frequent = Counter(p.truth).most_common(1)[0][0]
        yield (
            f"the model ({percent(accuracy)}) cannot be told from always predicting “{frequent}” "
            f"({percent(baseline, parts='')}); more images, another backbone or a longer "
            "training may help"
        )


def _overfitted(accuracies: dict[str, Estimate]) -> Iterable[str]:
    train = accuracies["train"]
    for name in ("val", "test"):
        new = accuracies[name]
        if train.known and new.known and train.low > new.high and train.value - new.value > _GAP:
            gap = points(train.value - new.value).removeprefix("+")
            yield (
                f"training accuracy ({percent(train)}) is {gap} above {PART_TITLES[name]} "
                f"({percent(new)}): much of what was learned does not carry over to new images; "
                "try augmentation, regularization or training less of the network"
            )
            return
