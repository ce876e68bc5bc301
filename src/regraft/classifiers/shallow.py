"""Shallow classifiers on features: the named ones, grid search, fit and calibration."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.base import clone, is_classifier
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from regraft.classifiers.rotation import (
    Rotation,
    Scaling,
    can_rotate,
    check_scale,
    fit_scaling,
    rotate,
    turn_back,
)
from regraft.classifiers.shallow_files import ShallowModel, to_model
from regraft.errors import DataError, ModelError, UsageError
from regraft.settings import did_you_mean
from regraft.system import Stopwatch, threads

FOLDS = 3
_ONE_THREAD = 4_000_000  # below so many numbers, threads cost more than they bring
_TRIAL_ROWS, _TRIAL_COLUMNS = 24, 5

Grid = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Shallow:
    """A named classifier.

    Attributes:
        make: Gives the unfitted classifier.
        scale: The scaling that suits it, a key of ``rotation.SCALES``.
        grid: Parameter names and the values to try; empty where no search pays.
    """

    make: Callable[[], Any]
    scale: str
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class FittedShallow:
    """What ``fit_shallow`` learned."""

    estimator: Any
    scaling: Scaling
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

    def check(self, width: int, classes: int) -> None:
        """Make sure that so many classes are predicted from so many features.

        Raises:
            ValueError: They are not; or whatever arrays of other shapes make fail.
        """
        if self.model is not None:
            self.model.check()
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
    estimator, entry = find_shallow(classifier, seed=seed)
    points = _candidates(estimator, entry.grid if grid == "default" else grid)
    search = _Search(_fold_count(labels), seed, Stopwatch())
    with search.watch.step("scale"):
        scaling = fit_scaling(entry.scale if scale == "auto" else scale, features)
        features = scaling.apply(features, out=features)
    rotation = _rotation(estimator, points, features, search.watch)
    matrix = features if rotation is None else rotation.coordinates
    with _recorded() as caught, _few_threads(matrix.size):
        table, best = search.run(estimator, points, matrix, labels)
        temperature = search.temperature(estimator, matrix, labels)
    if rotation is not None:
        turn_back(estimator, rotation, features)
    with search.watch.step("convert"):
        model, obstacle = _as_data(estimator, features, temperature)
    complaints, converged = _complaints(caught, searched=bool(table) or points == [{}])
    history: dict[str, Any] = {
        "classifier": {"type": type(estimator).__name__, "parameters": estimator.get_params()},
        "n": count,
        "d": width,
        "scale": scaling.name,
        "rotated": rotation is not None,
        "folds": search.folds if table else 0,
        "grid": table,
        "best": best,
        "temperature": temperature,
        "converged": converged,
        "seconds": search.watch.seconds,
    }
    return FittedShallow(estimator, scaling, model, _plain(history), complaints, obstacle)


def check_settings(classifier: Any, grid: str | Grid | None, scale: str, *, seed: int = 0) -> None:
    """Refuse what ``fit_shallow`` would refuse, before any long work.

    Raises:
        UsageError: Classifier, grid or scale are impossible.

    Example:
        >>> check_settings("logistic", {"C": [1, 10]}, "auto")
    """
    estimator, entry = find_shallow(classifier, seed=seed)
    _candidates(estimator, entry.grid if grid == "default" else grid)
    if scale != "auto":
        check_scale(scale)


def refuse_unsaveable(classifier: Any) -> None:
    """Refuse, before any long work, a classifier that could not be saved: a small one is tried.

    Raises:
        ModelError: It cannot be kept as data (``MODEL-UNSAVEABLE``).
        UsageError: The name is unknown, or the object is no classifier.

    Example:
        >>> refuse_unsaveable("random_forest")
    """
    estimator, _ = find_shallow(classifier)
    if isinstance(classifier, str):
        return
    rows = np.random.default_rng(0).normal(size=(_TRIAL_ROWS, _TRIAL_COLUMNS)).astype(np.float32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            to_model(estimator.fit(rows, np.arange(_TRIAL_ROWS) % 3), rows)
    except ModelError:
        raise
    except Exception:  # noqa: BLE001 - so few rows say nothing about the real ones
        return


# ---- the named classifiers ---------------------------------------------------------------------


def _make(module: str, name: str, **settings: Any) -> Any:
    try:
        return getattr(importlib.import_module(module), name)(**settings)
    except ImportError as error:
        raise UsageError(
            f"the classifier {module!r} needs a package that is not installed",
            hint='pip install "regraft[boost]"',
            code="USAGE-EXTRA",
        ) from error


def _logistic() -> Any:
    return _make("sklearn.linear_model", "LogisticRegression", C=10.0, max_iter=2000)


def _linear_svm() -> Any:
    return _make("sklearn.svm", "LinearSVC", C=1.0, max_iter=10_000)


def _knn() -> Any:
    settings = {"n_neighbors": 5, "weights": "distance", "metric": "cosine"}
    return _make("sklearn.neighbors", "KNeighborsClassifier", **settings)


def _random_forest() -> Any:
    settings = {"n_estimators": 300, "n_jobs": threads()}
    return _make("sklearn.ensemble", "RandomForestClassifier", **settings)


def _gradient_boosting() -> Any:
    # The square root of the columns at each split: on 25,088 columns the difference between
    # half a minute and hours.
    settings = {"n_estimators": 100, "max_features": "sqrt"}
    return _make("sklearn.ensemble", "GradientBoostingClassifier", **settings)


def _xgboost() -> Any:
    settings = {"n_estimators": 100, "max_depth": 3, "learning_rate": 0.2, "tree_method": "hist"}
    # One thread: the trees are so small that threads would mostly wait for each other.
    settings |= {"subsample": 0.5, "colsample_bytree": 0.3, "n_jobs": 1}
    return _make("xgboost", "XGBClassifier", **settings)


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

    Raises:
        UsageError: The name is unknown, or the object is no classifier.

    Example:
        >>> find_shallow("knn")[1].scale
        'unit'
    """
    if isinstance(classifier, str):
        if classifier not in NAMED:
            known = f"known: {', '.join(NAMED)}"
            raise UsageError(
                f"unknown classifier {classifier!r}",
                hint=f"{did_you_mean(classifier, NAMED)} {known}".strip(),
                code="USAGE-CLASSIFIER",
            )
        entry = NAMED[classifier]
    else:
        usable = hasattr(classifier, "get_params") and not isinstance(classifier, type)
        if not usable or not is_classifier(classifier):
            raise UsageError(
                "this is no classifier",
                why=f"found {classifier!r:.80}",
                hint=f"pass one of {', '.join(NAMED)}, or a scikit-learn classifier object",
                code="USAGE-CLASSIFIER",
            )
        entry = Shallow(lambda: clone(classifier), "unit")
    fresh = entry.make()
    seeds = {
        name: seed
        for name, value in fresh.get_params().items()
        if value is None and (name == "random_state" or name.endswith("__random_state"))
    }
    return fresh.set_params(**seeds), entry


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


def _per_class(scores: NDArray[Any]) -> NDArray[np.float64]:
    wide = np.asarray(scores, dtype=np.float64)
    return np.stack([-wide / 2.0, wide / 2.0], axis=1) if wide.ndim == 1 else wide


# ---- search and fit ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Search:
    folds: int
    seed: int
    watch: Stopwatch

    def run(
        self,
        estimator: Any,
        points: list[dict[str, Any]],
        matrix: NDArray[Any],
        labels: NDArray[np.intp],
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Fit ``estimator`` with the best point; return the table of the grid and that point."""
        from sklearn.model_selection import GridSearchCV

        count, results, best = len(labels), {}, {}
        seen = count - -(-count // self.folds) if self.folds > 1 else count
        points = [point for point in points if point.get("n_neighbors", 0) <= seen]
        if self.folds > 1 and points and points != [{}]:
            lists = [{name: [value] for name, value in point.items()} for point in points]
            with self.watch.step("grid"):
                search = GridSearchCV(
                    estimator, lists, cv=self._splitter(), refit=False, error_score="raise"
                ).fit(matrix, labels)
            results, best = search.cv_results_, dict(search.best_params_)
        estimator.set_params(**best)
        if getattr(estimator, "n_neighbors", 0) > count:
            warnings.warn(f"{count} neighbours: there are no more images", stacklevel=1)
            estimator.set_params(n_neighbors=count)
        with self.watch.step("fit"):
            estimator.fit(matrix, labels)
        columns = [results.get(k, []) for k in ("params", "mean_test_score", "std_test_score")]
        table = [
            {"parameters": point, "mean": float(mean), "sd": float(sd)}
            for point, mean, sd in zip(*columns, strict=True)
        ]
        return table, best

    def temperature(self, estimator: Any, matrix: NDArray[Any], labels: NDArray[np.intp]) -> float:
        """Return the temperature for scores of rows that the classifier has not seen, else 1."""
        from sklearn.model_selection import cross_val_predict

        if hasattr(estimator, "predict_proba"):
            return 1.0
        name, classes = type(estimator).__name__, int(labels.max()) + 1
        if not hasattr(estimator, "decision_function"):
            raise _unusable(f"{name} gives neither probabilities nor scores")
        scores = estimator.decision_function(matrix[:1])
        if scores.ndim == 2 and scores.shape[1] != classes:
            why = f"{scores.shape[1]} scores for {classes} classes"
            raise _unusable(f"{name} gives no score per class", why)
        if self.folds < 2:
            return 1.0
        with self.watch.step("calibrate"):
            scores = cross_val_predict(
                estimator, matrix, labels, cv=self._splitter(), method="decision_function"
            )
            return fit_temperature(scores, labels)

    def _splitter(self) -> Any:
        from sklearn.model_selection import StratifiedKFold

        return StratifiedKFold(self.folds, shuffle=True, random_state=self.seed)


def _unusable(what: str, why: str = "") -> UsageError:
    hint = "choose a classifier with predict_proba, or with one score per class"
    return UsageError(what, why=why, hint=hint, code="USAGE-CLASSIFIER")


def _fold_count(labels: NDArray[np.intp]) -> int:
    counts = np.bincount(labels)
    if len(counts) < 2:
        raise DataError("a classifier needs at least two classes", code="DATA-ONE-CLASS")
    return int(min(FOLDS, counts.min()))


def _candidates(estimator: Any, grid: str | Grid | None) -> list[dict[str, Any]]:
    """Return the settings to choose from; each is one that can be used."""
    from sklearn.model_selection import ParameterGrid

    points: list[dict[str, Any]] = [{}]
    if grid is not None:
        if not isinstance(grid, Mapping):
            raise _bad_grid(f"found {grid!r:.80}")
        known = estimator.get_params()
        if unknown := [str(name) for name in grid if name not in known]:
            raise _bad_grid(f"unknown {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        try:
            points = [dict(point) for point in ParameterGrid(dict(grid))]
        except (TypeError, ValueError) as error:
            raise _bad_grid(str(error)) from error
    _refuse_pairwise(estimator, points)
    return points


def _refuse_pairwise(estimator: Any, points: list[dict[str, Any]]) -> None:
    """Refuse scores of pairs of classes: of three classes there are as many pairs as classes."""
    for point in points:
        candidate = clone(estimator).set_params(**point)
        parts = {"": candidate, **candidate.get_params()}
        for name, value in parts.items():
            owner, _, parameter = name.rpartition("__")
            pairs = parameter == "decision_function_shape" and value == "ovo"
            if pairs and not hasattr(parts[owner], "predict_proba"):
                raise UsageError(
                    "this classifier scores pairs of classes, not classes",
                    why='decision_function_shape="ovo"',
                    hint='pass decision_function_shape="ovr"',
                    code="USAGE-CLASSIFIER",
                )


def _bad_grid(why: str) -> UsageError:
    return UsageError(
        "this grid cannot be searched",
        why=why,
        hint='pass "default", None, or parameter names with lists of values, {"C": [0.1, 1, 10]}',
        code="USAGE-GRID",
    )


def _rotation(
    estimator: Any,
    points: list[dict[str, Any]],
    features: NDArray[np.float32],
    watch: Stopwatch,
) -> Rotation | None:
    count, width = features.shape
    if count >= width:
        return None
    if not all(can_rotate(clone(estimator).set_params(**point)) for point in points):
        return None
    with watch.step("rotate"), _few_threads(features.size):
        return rotate(features)


@contextmanager
def _recorded() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def _as_data(
    estimator: Any, features: NDArray[np.float32], temperature: float
) -> tuple[ShallowModel | None, str]:
    try:
        return to_model(estimator, features, temperature=temperature), ""
    except ModelError as error:
        return None, error.why


def _complaints(
    caught: list[warnings.WarningMessage], *, searched: bool
) -> tuple[tuple[str, ...], bool]:
    stopped = sum(issubclass(one.category, ConvergenceWarning) for one in caught)
    said = dict.fromkeys(
        str(one.message).strip().splitlines()[0]
        for one in caught
        if not issubclass(one.category, ConvergenceWarning)
    )
    if stopped:
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
