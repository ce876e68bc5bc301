"""What a run says in plain English: what was done, what came out and how far it can be trusted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from regraft.report.tables import accuracy_of
from regraft.report.training import in_words
from regraft.results import metrics
from regraft.results.intervals import Estimate, percent
from regraft.results.predictions import Predictions, part_name
from regraft.results.run import PART_TITLES, Run, RunRecord

_CLASSIFIERS = {
    "logistic": "Logistic regression",
    "linear_svm": "A linear support vector machine",
    "knn": "A nearest-neighbour classifier",
    "random_forest": "A random forest",
    "gradient_boosting": "Gradient boosting",
    "xgboost": "XGBoost",
}


@dataclass(frozen=True)
class Headline:
    """The top of a run's page.

    Args:
        part: The part the page speaks about: ``test``, or what there is instead.
        predictions: The predictions of that part.
        accuracy: Its accuracy.
        baseline: The accuracy of always naming its most frequent class.
        done: What was done, one sentence.
        found: What came out, one or two sentences.
        clean: The test accuracy on pictures that nothing the fit has seen gives away, where there
            are others.
        remarks: What to bear in mind, a sentence each.
    """

    part: str
    predictions: Predictions
    accuracy: Estimate
    baseline: Estimate
    done: str
    found: str
    clean: Estimate
    remarks: tuple[str, ...]


def headline(run: Run) -> Headline:
    """Return what the page of a run begins with."""
    part = next((title for title in ("test", "validation") if title in run.metrics), "train")
    p = run.predictions.part(part_name(part))
    accuracy, baseline = metrics.accuracy(p), metrics.majority_baseline(p)
    return Headline(
        part=part,
        predictions=p,
        accuracy=accuracy,
        baseline=baseline,
        done=_done(run.record),
        found=_found(p, part, accuracy, baseline),
        clean=accuracy_of((run.metrics.get("test") or {}).get("without_leaks")),
        remarks=(*run.record.warnings, *_looks(run)),
    )


def _done(record: RunRecord) -> str:
    backbone, method = record.backbone.name, record.method
    if record.training is not None:
        random = method.get("strategy") == "from_scratch" or method.get("weights") == "random"
        random = random and not method.get("start")
        fitted = in_words(record.training["phases"], backbone, random=random)
    else:
        on = f" on the features of {backbone}" if backbone else ""
        chosen = method.get("classifier")
        fitted = f"{_CLASSIFIERS.get(str(chosen), chosen) or 'A classifier'} was fitted{on}"
    learned = (record.metrics.get("train") or {}).get("n")
    pictures = f" from {count(learned, 'picture')}" if learned else ""
    source = f" of {record.data.root_name}" if record.data.root_name else ""
    classes = count(len(record.data.classes), "class")
    return f"{fitted}{pictures}{source} to tell {classes} apart."


def _found(p: Predictions, part: str, accuracy: Estimate, baseline: Estimate) -> str:
    if not accuracy.known:
        return "No picture was set apart to measure it on."
    right, n = int(p.correct.sum()), len(p)
    fresh = " that it had never seen" if part == "test" else ""
    named = "every one" if right == n else f"{right:,}"
    text = f"Of {count(n, f'{part} picture')}{fresh} it named {named} correctly. "
    frequent = Counter(p.truth).most_common(1)[0][0]
    always = (
        f"Always answering “{frequent}” would be right in {percent(baseline, parts='')} of them"
    )
    if accuracy.low <= baseline.value:
        return f"{text}{always}."
    return text + (
        f"{always}. On other pictures like these expect between {percent(accuracy.low)} "
        f"and {percent(accuracy.high)}."
    )


def _looks(run: Run) -> list[str]:
    """Return a remark if the test part was looked at again, which a finished run cannot know."""
    remark = (
        f"the test part of this split was looked at {run.test_looks} times: whoever chooses by "
        "what is seen there makes the accuracy look better than it is"
    )
    return [remark] if run.test_looks > 1 else []


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> count(1, "picture"), count(1200, "class")
        ('1 picture', '1,200 classes')
    """
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith(('s', 'x')) else 's'}"


def part_titles(run: Run) -> list[str]:
    """Return the parts the run measured, in their order."""
    return [title for title in PART_TITLES.values() if title in run.metrics]
