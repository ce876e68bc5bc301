"""The named shallow classifiers, each with the scaling and the grid that suit it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from regraft.errors import UsageError
from regraft.system import threads


@dataclass(frozen=True)
class Shallow:
    """A named classifier.

    Attributes:
        make: From a seed to the unfitted classifier.
        scale: The scaling that suits it, a key of ``scaling.SCALES``.
        grid: Parameter names and the values to try; empty where no search pays.
    """

    make: Callable[[int], Any]
    scale: str
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def _logistic(_: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10.0, max_iter=2000)


def _linear_svm(seed: int) -> Any:
    from sklearn.svm import LinearSVC

    return LinearSVC(C=1.0, max_iter=10_000, random_state=seed)


def _knn(_: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=5, weights="distance", metric="cosine")


def _random_forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=300, random_state=seed, n_jobs=threads())


def _gradient_boosting(seed: int) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    # The square root of the columns at each split: on 25,088 columns the difference between
    # half a minute and hours.
    return GradientBoostingClassifier(n_estimators=100, max_features="sqrt", random_state=seed)


def _xgboost(seed: int) -> Any:
    try:
        from xgboost import XGBClassifier
    except ImportError as error:
        raise UsageError(
            "the classifier 'xgboost' needs a package that is not installed",
            hint='pip install "regraft[boost]"',
            code="USAGE-EXTRA",
        ) from error

    # One thread: the trees are so small that threads would mostly wait for each other.
    return XGBClassifier(
        n_estimators=100,
        max_depth=3,
        learning_rate=0.2,
        subsample=0.5,
        colsample_bytree=0.3,
        tree_method="hist",
        random_state=seed,
        n_jobs=1,
    )


NAMED: Mapping[str, Shallow] = {
    "logistic": Shallow(_logistic, "unit", {"C": (1.0, 10.0, 100.0)}),
    "linear_svm": Shallow(_linear_svm, "unit", {"C": (0.1, 1.0, 10.0)}),
    "knn": Shallow(_knn, "unit", {"n_neighbors": (1, 3, 5, 9)}),
    "random_forest": Shallow(_random_forest, "none"),
    "gradient_boosting": Shallow(_gradient_boosting, "none"),
    "xgboost": Shallow(_xgboost, "principal"),
}


def find_shallow(classifier: Any, *, seed: int = 0) -> tuple[Any, Shallow]:
    """Return a fresh unfitted classifier and its named entry.

    Args:
        classifier: A name of ``NAMED``, or a scikit-learn classifier, which is cloned.
        seed: For a classifier whose ``random_state`` is not set.

    Raises:
        UsageError: The name is unknown, or the object is no classifier.

    Example:
        >>> find_shallow("knn")[1].scale
        'unit'
        >>> try:
        ...     find_shallow("logistics")
        ... except UsageError as error:
        ...     print(error.hint.partition("?")[0])
        did you mean 'logistic'
    """
    if isinstance(classifier, str):
        if classifier not in NAMED:
            raise _unknown(classifier)
        return NAMED[classifier].make(seed), NAMED[classifier]
    from sklearn.base import clone, is_classifier

    usable = hasattr(classifier, "get_params") and not isinstance(classifier, type)
    if not usable or not is_classifier(classifier):
        raise UsageError(
            "this is no classifier",
            why=f"found {classifier!r:.80}",
            hint="pass one of " + ", ".join(NAMED) + ", or a scikit-learn classifier object",
            code="USAGE-CLASSIFIER",
        )
    fresh = clone(classifier)
    seeds = {
        name: seed
        for name, value in fresh.get_params().items()
        if value is None and (name == "random_state" or name.endswith("__random_state"))
    }
    return fresh.set_params(**seeds), Shallow(lambda _: classifier, "unit")


def _unknown(name: str) -> UsageError:
    near = difflib.get_close_matches(name, NAMED, n=1)
    known = "known: " + ", ".join(NAMED)
    return UsageError(
        f"unknown classifier {name!r}",
        hint=f"did you mean {near[0]!r}? {known}" if near else known,
        code="USAGE-CLASSIFIER",
    )
