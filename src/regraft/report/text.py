"""What pages say in plain English, only as far as the numbers carry it; templates to HTML."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from regraft.errors import list_names, printable
from regraft.files import write_text
from regraft.report.tables import NOTHING, NUMBERS, Duration, Table, show, spread
from regraft.results.comparison import Comparison, Row, best_validated
from regraft.results.intervals import Estimate, percent
from regraft.results.metrics import accuracy, majority_baseline
from regraft.results.paired import Verdict
from regraft.results.predictions import Predictions
from regraft.results.run import Run, RunRecord
from regraft.system import __version__

Phases = Sequence[Mapping[str, Any]]

_NAMES = {"n": "Training images", "d": "Features per image"}
_MOST_NAMES = 4
_QUICKER = 0.7  # of the time of the chosen method: what counts as less


@dataclass(frozen=True)
class Conclusion:
    """What a comparison comes to.

    Args:
        best: The row that is better than every other, if there is one.
        sentences: The best row first, or why there is none.
    """

    best: int | None
    sentences: tuple[str, ...]


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> count(1, "image"), count(1200, "class")
        ('1 image', '1,200 classes')
    """
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith(('s', 'x')) else 's'}"


def flat(value: Any) -> str:
    """Return a JSON value on one line.

    Example:
        >>> flat({"size": 224, "mean": [0.5, 0.25]})
        'size 224 · mean 0.5, 0.25'
    """
    if isinstance(value, Mapping):
        return " · ".join(f"{key} {flat(item)}" for key, item in value.items()) or NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(map(flat, value)) or NOTHING
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# ---- one run ------------------------------------------------------------------------------------


def what_was_done(record: RunRecord) -> str:
    """Return what was fitted, on which images, in a sentence.

    Example:
        >>> what_was_done(RunRecord(description="", config={"method": {"classifier": "knn"}}))
        'A knn classifier was fitted to distinguish 0 classes.'
    """
    backbone, method = record.backbone.name, record.method
    if record.training is not None:
        random = method.get("strategy") == "from_scratch" or method.get("weights") == "random"
        random = random and not method.get("start")
        fitted = training_in_words(record.training["phases"], backbone, random=random)
    else:
        on = f" on the features of {backbone}" if backbone else ""
        fitted = f"A {str(method.get('classifier')).replace('_', ' ')} classifier was fitted{on}"
    learned = record.metrics.get("train")
    images = f" from {count(learned['accuracy'].n, 'image')}" if learned else ""
    source = f" of {record.data.root_name}" if record.data.root_name else ""
    return f"{fitted}{images}{source} to distinguish {count(len(record.data.classes), 'class')}."


def what_was_found(p: Predictions, part: str) -> str:
    """Return what came out on a part, in one or two sentences."""
    share, baseline = accuracy(p), majority_baseline(p)
    if not share.known:
        return "No image was set aside to measure it on."
    unseen = " that it had never seen" if part == "test" else ""
    frequent = Counter(p.truth).most_common(1)[0][0]
    said = (
        f"Of {count(len(p), f'{part} image')}{unseen} it predicted {int(p.correct.sum()):,} "
        f"correctly. Always predicting “{frequent}” would be right for "
        f"{percent(baseline, parts='')} of them."
    )
    if share.low <= baseline.value:
        return said
    low, high = map(percent, share.interval)
    return f"{said} On other images like these expect between {low} and {high}."


def remarks(run: Run) -> list[str]:
    """Return what to bear in mind: the warnings of a run, and later looks at the test part."""
    looked = (
        f"the test part of this split was looked at {run.test_looks} times: choosing by what is "
        "seen there makes the accuracy look better than it is"
    )
    return [*run.record.warnings, *([looked] if run.test_looks > 1 else [])]


def training_in_words(phases: Phases, backbone: str, *, random: bool = False) -> str:
    """Return what all the phases together did.

    Args:
        phases: The records of the phases, as ``history_["phases"]`` holds them.
        backbone: What the network is called.
        random: Whether its trunk began with random weights.

    Example:
        >>> training_in_words([{"share_of_stages": 0.0}, {"share_of_stages": 0.5}], "vgg16")
        'A new head was trained on the frozen vgg16, then together with 50 % of the stages of vgg16'
    """
    trunks = [trained_stages(phase) for phase in phases]
    if random and trunks[:1] == ["all stages"]:
        return f"{backbone} was trained, beginning with random weights,"
    steps = [
        f"together with {trunk} of {backbone}" if trunk else f"on the frozen {backbone}"
        for trunk in trunks
    ]
    return f"A new head was trained {', then '.join(steps)}"


def trained_stages(phase: Mapping[str, Any]) -> str:
    """Return which stages of the trunk a phase trained; nothing where it trained none."""
    share, trained = float(phase.get("share_of_stages") or 0), phase.get("trained") or {}
    start, pattern = trained.get("unfreeze_from"), trained.get("unfreeze_matching")
    if not share:
        return ""
    if pattern is not None:
        return f"what matches /{pattern}/ in {percent(share, digits=0)} of the stages"
    if share == 1:
        return "all stages"
    said = f"{percent(share, digits=0)} of the stages"
    return said if start is None else f"{said}, from {start} on"


# ---- a comparison -------------------------------------------------------------------------------


def conclude(comparison: Comparison) -> Conclusion:
    """Return what may be concluded: which method is best, or which are not distinguishable.

    The method with the highest validation accuracy stands against all others, as in the verdicts.

    Example:
        >>> conclude(Comparison("nothing", ()))
        Conclusion(best=None, sentences=())
    """
    tested = [row for row in comparison.rows if row.can_be_judged]
    best: int | None = None
    said: list[str] = []
    splits = [frozenset(run.split_hash for run in row.runs) for row in tested]
    if len(set(splits)) > 1:
        first = (
            f"These runs used {len(frozenset.union(*splits))} different splits, so their "
            "accuracies were measured on different images: fit them on one split to compare them."
        )
        said = [first, *(f"{verdict.verdict}." for verdict in comparison.verdicts[:_MOST_NAMES])]
    elif comparison.verdicts:
        place = best_validated([(row.description, row.runs) for row in tested])
        is_best, said = _against_others(place, tested, comparison.verdicts)
        best = comparison.rows.index(tested[place]) if is_best else None
    if comparison.faithful and (agreement := _published(tested)):
        said.append(agreement)
    return Conclusion(best, tuple(said))


def looks(runs: Sequence[Run]) -> str:
    """Return how often the test part was looked at, a sentence; nothing where there is none."""
    tested = [run for run in runs if "test" in run.metrics]
    if not tested:
        return ""
    more = sum(run.test_looks for run in tested) - len(tested)
    once = f"The test part was looked at once per run, {count(len(tested), 'time')} in all"
    if more > 0:
        return f"{once}, and {count(more, 'more time')} when runs were evaluated again."
    return f"{once}."


def _against_others(
    place: int, tested: Sequence[Row], verdicts: Sequence[Verdict]
) -> tuple[bool, list[str]]:
    """Return whether the chosen row is the best, and what is said of it beside the others."""
    chosen, others = tested[place], [row for at, row in enumerate(tested) if at != place]
    own = {verdict.a: verdict for verdict in verdicts}  # the chosen one is always the second
    better, beaten, equal = (
        [row for row in others if own[row.description].better == outcome]
        for outcome in ("a", "b", None)
    )
    validated = all(row.validation is not None for row in tested)
    by = "highest validation accuracy" if validated else "highest test accuracy"
    nearest = own[max(better or equal or beaten, key=_accuracy).description].verdict + "."
    first = f"{chosen.description} has the {by}"
    if better:
        said = [f"{first}, but is not the best: {nearest}"]
    elif equal:
        equal.sort(key=_accuracy, reverse=True)
        names = list_names((row.description for row in equal), most=_MOST_NAMES)
        said = [f"{first}, but is not distinguishable from {names}.", nearest]
        quick = min((chosen, *equal), key=lambda row: row.seconds)
        if quick.seconds <= _QUICKER * chosen.seconds:
            times = f"{Duration(quick.seconds)}, where {chosen.description} takes"
            said.append(
                f"Of these the quickest is {quick.description}: {times} {Duration(chosen.seconds)}."
            )
    else:
        than = f"★ {first} and is better than each of the others by more than chance explains."
        said = [f"★ {nearest}"] if len(others) == 1 else [than, f"The nearest: {nearest}"]
    if not validated:
        said.append(
            "There is no validation part to choose by: the best of several test accuracies is "
            "higher than it would be on new images, since the choice favours luck."
        )
    return not better and not equal, said


def _accuracy(row: Row) -> float:
    return row.test.estimate.value if row.test is not None else 0.0


def _published(rows: Sequence[Row]) -> str:
    """Return how many published accuracies lie where they were measured again."""
    found = [
        (float(row.published["test"]), row.test.estimate)
        for row in rows
        if row.test is not None and row.published.get("test") is not None
    ]
    if not found:
        return ""
    above = sum(share > measured.high for share, measured in found)
    below = sum(share < measured.low for share, measured in found)
    return (
        f"{count(len(found), 'published test figure')}: {len(found) - above - below} within the "
        f"95 % interval of what was measured here, {above} above and {below} below."
    )


# ---- templates ----------------------------------------------------------------------------------


def render(template: str, **values: Any) -> str:
    """Return the page that a template makes of ``values``: everything escaped, nothing fetched.

    Args:
        template: The name of a file in ``templates/``.
        values: What the template speaks about; text in it is escaped.
    """
    return _environment().get_template(template).render(**values)


def write_tables(
    path: str | os.PathLike[str], title: str, sections: Sequence[tuple[str, Table | str, str]]
) -> Path:
    """Write a page of several tables and figures with a list of contents.

    Args:
        path: The HTML file to write.
        title: Its heading.
        sections: A heading, a table or an ``<svg>`` element, and a sentence below the heading each.
    """
    write_text(path, render("tables.html.j2", version=__version__, title=title, sections=sections))
    return Path(path)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regraft.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "value": lambda share, digits=1: percent(share, digits=digits, parts=""),
        "interval": _interval,
        "spread": spread,
        "show": show,
        "title": _title,
        "duration": lambda seconds: str(Duration(float(seconds))),
        "place": lambda share: f"{100 * share:.2f}%",
        "count": count,
        "digest": _digest,
        "svg": Markup,  # figures are our own markup; text in them was escaped when they were drawn
    }
    environment.tests |= {
        "estimate": lambda cell: isinstance(cell, Estimate),
        "number": lambda cell: isinstance(cell, NUMBERS),
    }
    return environment


def _visible(value: Any) -> Any:
    """Return text with escapes for what HTML cannot carry, such as undecodable bytes."""
    if isinstance(value, str) and not isinstance(value, Markup):
        # A percent sign must not begin a line.
        return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", printable(value))
    return value


def _digest(script: str) -> str:
    """Return what a page's policy says of the one script that it lets run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _interval(share: Estimate, counted: bool = True) -> str:
    """Return what follows the value: ``[91.6, 95.8], n = 500``, without the n if not counted."""
    if not share.known:
        return ""
    whole = percent(share, parts="interval n" if counted else "interval")
    return whole.removeprefix(percent(share, parts="")).strip()


def _title(name: str) -> str:
    """Return a key as a title: ``weights_sha256`` as ``Weights SHA-256``."""
    words = _NAMES.get(name) or str(name).replace("_", " ").replace("sha256", "SHA-256")
    return words[:1].upper() + words[1:]
