"""Shallow classifiers on features: the named ones, grid search, fit and calibration."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.base import clone, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedKFold, cross_val_predict
from threadpoolctl import threadpool_limits

from regraft.classifiers import rotation
from regraft.classifiers.shallow_files import ShallowModel, find_class, to_model
from regraft.errors import DataError, ModelError, UsageError
from regraft.settings import did_you_mean
from regraft.system import Stopwatch

FOLDS = 3
_ONE_THREAD = 4_000_000  # below so many numbers, threads cost more than they bring

Grid = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Shallow:
    """A named classifier.

    Attributes:
        kind: Its class, with the module.
        settings: What the class is called with.
        scale: The scaling that suits it, a key of ``rotation.SCALES``.
        grid: Parameter names and the values to try; empty where no search pays.
    """

    kind: str
    settings: Mapping[str, Any]
    scale: str
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)


NAMED: Mapping[str, Shallow] = {
    "logistic": Shallow(
        "sklearn.linear_model.LogisticRegression",
        {"C": 10.0, "max_iter": 2000},
        "unit",
        {"C": (1.0, 10.0, 100.0)},
    ),
    "linear_svm": Shallow(
        "sklearn.svm.LinearSVC", {"C": 1.0, "max_iter": 10_000}, "unit", {"C": (0.1, 1.0, 10.0)}
    ),
    "knn": Shallow(
        "sklearn.neighbors.KNeighborsClassifier",
        {"n_neighbors": 5, "weights": "distance", "metric": "cosine"},
        "unit",
        {"n_neighbors": (1, 3, 5, 9)},
    ),
    "random_forest": Shallow(
        "sklearn.ensemble.RandomForestClassifier", {"n_estimators": 300, "n_jobs": -1}, "none"
    ),
    # The square root of the columns at each split: on 25,088 columns the difference between half a
    # minute and hours.
    "gradient_boosting": Shallow(
        "sklearn.ensemble.GradientBoostingClassifier",
        {"n_estimators": 100, "max_features": "sqrt"},
        "none",
    ),
    # One thread: the trees are so small that threads would mostly wait for each other.
    "xgboost": Shallow(
        "xgboost.XGBClassifier",
        {"n_estimators": 100, "max_depth": 3, "learning_rate": 0.2, "tree_method": "hist"}
        | {"subsample": 0.5, "colsample_bytree": 0.3, "n_jobs": 1},
        "principal",
    ),
}


@dataclass(frozen=True)
class FittedShallow:
    """What ``fit_shallow`` learned."""

    estimator: Any
    scaling: rotation.Scaling
    model: ShallowModel | None
    history: dict[str, Any]
    warnings: tuple[str, ...]
    obstacle: str = ""

    def predict_proba(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of each class for each row of unscaled features."""
        scaled = self.scaling.apply(features)
        if self.model is not None:
            return self.model.predict_proba(scaled)
        if hasattr(self.estimator, "predict_proba"):
            return np.asarray(self.estimator.predict_proba(scaled), dtype=np.float64)
        scores = self.estimator.decision_function(scaled)
        return margin_probabilities(scores, self.history["temperature"])

    def linear(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Return coefficients (k, d) and intercepts (k,): from unscaled features to class scores.

        None where the classifier is not linear.
        """
        if self.model is None or self.model.record.kind != "linear":
            return None
        arrays = self.model.arrays
        return self.scaling.unscaled(arrays["coefficients"], arrays["intercepts"])

    def check(self, width: int, classes: int) -> None:
        """Make sure that so many classes are predicted from so many features.

        Raises:
            ValueError: They are not; or whatever arrays of other shapes make fail.
        """
        for count in (1, 3):
            found = self.predict_proba(np.full((count, width), float(count), np.float32))
            if found.shape != (count, classes) or not np.allclose(found.sum(axis=1), 1.0):
                raise ValueError(f"its probabilities are {found!r:.100}")


def fit_shallow(
    features: NDArray[np.float32],
    labels: NDArray[np.intp],
    *,
    classifier: Any = "logistic",
    grid: str | Grid | None = "default",
    scale: str = "auto",
    seed: int = 0,
) -> FittedShallow:
    """Scale features, search a grid by cross-validation and fit the best classifier on all rows.

    Args:
        features: (n, d), finite; overwritten by the scaled features.
        labels: The class of each row, 0 to k - 1, every class at least once, (n,).
        classifier: A name of ``NAMED`` or a scikit-learn classifier.
        grid: ``"default"`` for the named classifier's own, None for no search, or parameter names
            and the values to try. With equal accuracy the first point wins.
        scale: A key of ``rotation.SCALES``, or ``"auto"`` for what suits a named classifier and
            ``"unit"`` for any other.
        seed: For folds and for classifiers that draw numbers.

    Raises:
        UsageError: Classifier, grid or scale are impossible.
        DataError: There is only one class.

    Example:
        >>> rows = np.array([[0.0], [0.1], [0.2], [1.0], [1.1], [1.2]], dtype=np.float32)
        >>> fitted = fit_shallow(rows, np.array([0, 0, 0, 1, 1, 1]))
        >>> fitted.history["best"], [point["mean"] for point in fitted.history["grid"]]
        ({'C': 1.0}, [1.0, 1.0, 1.0])
    """
    count, width = features.shape
    estimator, chosen_scale, own_grid = find_shallow(classifier, seed=seed)
    points = _candidates(estimator, own_grid if grid == "default" else grid)
    splitter, watch = _splitter(labels, seed), Stopwatch()
    with watch.step("scale"):
        scaling = rotation.fit_scaling(chosen_scale if scale == "auto" else scale, features)
        features = scaling.apply(features, out=features)
    matrix: NDArray[Any] = features
    turned = None
    every = [clone(estimator).set_params(**point) for point in points]
    if count < width and all(map(rotation.can_rotate, every)):
        with watch.step("rotate"), _few_threads(features.size):
            turned = rotation.rotate(features)
            matrix = turned.coordinates
    with warnings.catch_warnings(record=True) as caught, _few_threads(matrix.size):
        warnings.simplefilter("always")
        table, best = _search(estimator, points, matrix, labels, splitter, watch)
        temperature = _temperature(estimator, matrix, labels, splitter, watch)
    if turned is not None:
        turned.turn_back(estimator, features)
    with watch.step("convert"):
        try:
            model, obstacle = to_model(estimator, features, temperature=temperature), ""
        except ModelError as error:
            model, obstacle = None, error.why
    complaints, converged = _complaints(caught, searched=bool(table) or points == [{}])
    history: dict[str, Any] = {
        "classifier": {"type": type(estimator).__name__, "parameters": estimator.get_params()},
        "n": count,
        "d": width,
        "scale": scaling.name,
        "rotated": turned is not None,
        "folds": splitter.n_splits if splitter and table else 0,
        "grid": table,
        "best": best,
        "temperature": temperature,
        "converged": converged,
        "seconds": watch.seconds,
    }
    return FittedShallow(estimator, scaling, model, _plain(history), complaints, obstacle)


def check_settings(classifier: Any, grid: str | Grid | None, scale: str) -> None:
    """Refuse what ``fit_shallow`` would refuse, before any long work.

    Raises:
        UsageError: Classifier, grid or scale are impossible.

    Example:
        >>> check_settings("logistic", {"C": [1, 10]}, "auto")
    """
    estimator, _, own_grid = find_shallow(classifier)
    _candidates(estimator, own_grid if grid == "default" else grid)
    if scale != "auto":
        rotation.check_scale(scale)


def find_shallow(classifier: Any, *, seed: int = 0) -> tuple[Any, str, Grid]:
    """Return a fresh unfitted classifier, the scaling that suits it and the grid to search.

    Raises:
        UsageError: The name is unknown, the object is no classifier, or a package is missing.

    Example:
        >>> find_shallow("knn")[1]
        'unit'
    """
    entry = NAMED.get(classifier) if isinstance(classifier, str) else None
    if entry is not None:
        fresh = find_class(entry.kind)(**entry.settings)
    elif not isinstance(classifier, type) and hasattr(classifier, "get_params"):
        fresh = clone(classifier)
    else:
        fresh = None
    if fresh is None or not is_classifier(fresh):
        near = did_you_mean(classifier, NAMED) if isinstance(classifier, str) else ""
        hint = f"{near} pass one of {', '.join(NAMED)}, or a scikit-learn classifier".strip()
        what = f"unknown classifier {classifier!r:.80}"
        raise UsageError(what, hint=hint, code="USAGE-CLASSIFIER")
    unset = [name for name, value in fresh.get_params().items() if value is None]
    seeded = [name for name in unset if name.rpartition("__")[2] == "random_state"]
    fresh.set_params(**dict.fromkeys(seeded, seed))
    return fresh, entry.scale if entry else "unit", entry.grid if entry else {}


# ---- probabilities from scores -----------------------------------------------------------------


def margin_probabilities(scores: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    """Return the softmax of scores divided by a temperature.

    Example:
        >>> margin_probabilities(np.array([0.0, 4.0]), 2.0).round(2).tolist()
        [[0.5, 0.5], [0.12, 0.88]]
    """
    return np.asarray(softmax(_per_class(scores) / temperature, axis=1))


def fit_temperature(scores: NDArray[Any], labels: NDArray[np.intp]) -> float:
    """Return the temperature under which the labels are most likely.

    Guo et al., On calibration of modern neural networks, 2017, section 4.2. Unlike one sigmoid per
    class (Platt 1999), a single temperature never changes which class is predicted. As Platt does,
    one more image of a wrong class is imagined: no classifier is certain of everything.

    Example:
        >>> scores, labels = np.array([[9.0, 0.0]] * 100), np.repeat([0, 1], [75, 25])
        >>> temperature = fit_temperature(scores, labels)
        >>> margin_probabilities(scores, temperature)[0].round(2).tolist()
        [0.75, 0.25]
    """
    wide = _per_class(scores)
    spread = float(np.std(wide))
    if spread == 0.0:
        return 1.0
    right = np.zeros(wide.shape, dtype=bool)
    right[np.arange(len(wide)), labels] = True

    def surprise(logarithm: float) -> float:
        logarithms = log_softmax(wide / np.exp(logarithm), axis=1)
        return -float(logarithms[right].sum() + logarithms[~right].mean())

    # A thousandth to a thousand times the scores' own spread is from certain to indifferent.
    middle = float(np.log(spread))
    found = minimize_scalar(surprise, bounds=(middle - 7.0, middle + 7.0), method="bounded")
    return float(np.exp(found.x))


def tempered(probabilities: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
    """Return the probabilities that scores divided by a temperature would have given, (n, k).

    Example:
        >>> tempered(np.array([[0.9, 0.1]]), 2.0).round(2).tolist()
        [[0.75, 0.25]]
    """
    if temperature == 1.0:
        return np.asarray(probabilities, dtype=np.float64)
    return margin_probabilities(log_shares(probabilities), temperature)


def log_shares(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the logarithms of probabilities; none is less than 32 bits can tell from 0."""
    exact = np.asarray(probabilities, dtype=np.float64)
    return np.log(np.maximum(exact, np.finfo(np.float32).tiny))


def _per_class(scores: NDArray[Any]) -> NDArray[np.float64]:
    wide = np.asarray(scores, dtype=np.float64)
    return np.stack([-wide / 2.0, wide / 2.0], axis=1) if wide.ndim == 1 else wide


# ---- search and fit ----------------------------------------------------------------------------


def _candidates(estimator: Any, grid: str | Grid | None) -> list[dict[str, Any]]:
    """Return the settings to choose from; each is one that the classifier takes."""
    try:
        points = [dict(point) for point in ParameterGrid(dict(grid or {}))]  # type: ignore[arg-type]
        for point in points:
            clone(estimator).set_params(**point)
    except (TypeError, ValueError) as error:
        what, why = "this grid cannot be searched", str(error)
        hint = 'pass "default", None, or parameters with lists of values, {"C": [0.1, 1, 10]}'
        raise UsageError(what, why=why, hint=hint, code="USAGE-GRID") from error
    return points


def _splitter(labels: NDArray[np.intp], seed: int) -> StratifiedKFold | None:
    """Return what makes folds with every class in each, or None where a class has one image."""
    counts = np.bincount(labels)
    if len(counts) < 2:
        raise DataError("a classifier needs at least two classes", code="DATA-ONE-CLASS")
    if counts.min() < 2:
        return None
    return StratifiedKFold(int(min(FOLDS, counts.min())), shuffle=True, random_state=seed)


def _search(
    estimator: Any,
    points: list[dict[str, Any]],
    matrix: NDArray[Any],
    labels: NDArray[np.intp],
    splitter: StratifiedKFold | None,
    watch: Stopwatch,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Fit a classifier with the best of some settings; return what each scored, and the best."""
    table: list[dict[str, Any]] = []
    best: dict[str, Any] = {}
    count = len(labels)
    seen = count - -(-count // splitter.n_splits) if splitter else count
    points = [point for point in points if point.get("n_neighbors", 0) <= seen]
    if splitter and points and points != [{}]:
        lists = [{name: [value] for name, value in point.items()} for point in points]
        with watch.step("grid"):
            search = GridSearchCV(estimator, lists, cv=splitter, refit=False, error_score="raise")
            found = search.fit(matrix, labels).cv_results_
        columns = (found["params"], found["mean_test_score"], found["std_test_score"])
        for point, mean, sd in zip(*columns, strict=True):
            table.append({"parameters": point, "mean": float(mean), "sd": float(sd)})
        best = dict(search.best_params_)
    estimator.set_params(**best)
    if getattr(estimator, "n_neighbors", 0) > count:
        warnings.warn(f"{count} neighbours: there are no more images", stacklevel=1)
        estimator.set_params(n_neighbors=count)
    with watch.step("fit"):
        estimator.fit(matrix, labels)
    return table, best


def _temperature(
    estimator: Any,
    matrix: NDArray[Any],
    labels: NDArray[np.intp],
    splitter: StratifiedKFold | None,
    watch: Stopwatch,
) -> float:
    """Return the temperature for scores of rows that the classifier has not seen, else 1."""
    if hasattr(estimator, "predict_proba"):
        return 1.0
    scores = estimator.decision_function(matrix)
    best = scores.argmax(axis=1) if scores.ndim == 2 else scores > 0
    wide = scores.ndim == 2 and scores.shape[1] != labels.max() + 1
    if wide or not np.array_equal(best, estimator.predict(matrix)):
        # Of three classes there are as many pairs as classes.
        what = f"{type(estimator).__name__} gives neither probabilities nor a score per class"
        hint = 'choose another classifier, or pass decision_function_shape="ovr"'
        raise UsageError(what, hint=hint, code="USAGE-CLASSIFIER")
    if splitter is None:
        return 1.0
    with watch.step("calibrate"):
        how = {"cv": splitter, "method": "decision_function"}
        return fit_temperature(cross_val_predict(estimator, matrix, labels, **how), labels)


def _complaints(
    caught: list[warnings.WarningMessage], *, searched: bool
) -> tuple[tuple[str, ...], bool]:
    others = [one for one in caught if not issubclass(one.category, ConvergenceWarning)]
    said = dict.fromkeys(str(one.message).strip().splitlines()[0] for one in others)
    if stopped := len(caught) - len(others):
        said[f"{stopped} fits stopped before they had converged; raise max_iter"] = None
    if not searched:
        said["a class has a single image: no cross-validation, the grid was not searched"] = None
    return tuple(said), stopped == 0


def _few_threads(cells: int) -> AbstractContextManager[Any]:
    return threadpool_limits(1 if cells <= _ONE_THREAD else None)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it; objects become their text."""

    def said(other: Any) -> Any:
        return other.item() if isinstance(other, np.generic) else repr(other)

    return json.loads(to_json(value, fallback=said, inf_nan_mode="strings"))
