"""How a fitted scikit-learn or XGBoost classifier becomes the arrays of ``kinds``.

``SOURCES`` is the one list of classifiers that can be saved. They are matched by their exact class:
a subclass may predict in another way. The classes of a classifier given here are 0 to k - 1.
Where scikit-learn has no public name for what it learned, the private one is read; the tests
compare every entry with the library's own probabilities, so that a change there is seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.classifiers import trees
from regraft.classifiers.kinds import ArrayClassifier
from regraft.errors import ModelError


@dataclass(frozen=True)
class Source:
    """How one class of classifiers becomes arrays.

    Attributes:
        take: From the fitted classifier and a temperature to arrays; the temperature matters only
            to a classifier without probabilities of its own.
        obstacle: From an unfitted or fitted classifier to why it cannot be saved, or nothing.
    """

    take: Callable[[Any, float], ArrayClassifier]
    obstacle: Callable[[Any], str] = lambda _: ""


def saveable() -> tuple[str, ...]:
    """Return the names of the classifiers that can be saved.

    Example:
        >>> "LogisticRegression" in saveable()
        True
    """
    return tuple(sorted(name.partition(".")[2] for name in SOURCES))


def obstacle(classifier: object) -> str:
    """Return why a classifier cannot be saved as data, or an empty string when it can.

    Example:
        >>> from sklearn.svm import SVC, LinearSVC
        >>> obstacle(LinearSVC())
        ''
        >>> obstacle(SVC())
        'SVC is not among the classifiers that are kept as arrays'
    """
    source = SOURCES.get(_name(classifier))
    if source is None:
        return f"{type(classifier).__name__} is not among the classifiers that are kept as arrays"
    return source.obstacle(classifier)


def to_arrays(classifier: Any, *, temperature: float = 1.0) -> ArrayClassifier:
    """Return a fitted classifier as arrays.

    Args:
        classifier: Fitted on the classes 0 to k - 1.
        temperature: What the scores of a classifier without probabilities are divided by.

    Raises:
        ModelError: It cannot be saved as data (code ``MODEL-UNSAVEABLE``).

    Example:
        >>> from sklearn.naive_bayes import GaussianNB
        >>> fitted = GaussianNB().fit([[0.0], [1.0], [4.0], [5.0]], [0, 0, 1, 1])
        >>> to_arrays(fitted).kind
        'gaussian'
    """
    why = obstacle(classifier)
    if why:
        raise unsaveable(why)
    taken = SOURCES[_name(classifier)].take(classifier, temperature)
    # In one order in memory before and after saving: the order decides how products are rounded.
    arrays = {name: np.ascontiguousarray(array) for name, array in taken.arrays.items()}
    return dataclasses.replace(taken, arrays=arrays)


def unsaveable(why: str) -> ModelError:
    """Return the error for a classifier that cannot be saved, with the list of those that can."""
    return ModelError(
        "this classifier cannot be saved",
        why=why,
        hint="model files hold data only, never code; these can be saved: " + ", ".join(saveable()),
        code="MODEL-UNSAVEABLE",
    )


def _name(classifier: object) -> str:
    kind = type(classifier)
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"


def _one_of(attribute: str, allowed: tuple[object, ...]) -> Callable[[Any], str]:
    def look(classifier: Any) -> str:
        found = getattr(classifier, attribute)
        if isinstance(found, (str, int, type(None))) and found in allowed:
            return ""
        return f"{type(classifier).__name__} with {attribute}={found!r}; allowed: {allowed}"

    return look


# ---- linear ------------------------------------------------------------------------------------


def _linear(
    coefficients: NDArray[Any], intercepts: Any, *, temperature: float = 1.0, kind: str = "linear"
) -> ArrayClassifier:
    coefficients = np.atleast_2d(coefficients).astype(np.float64) / temperature
    intercepts = np.broadcast_to(intercepts, len(coefficients)).astype(np.float64) / temperature
    if len(coefficients) == 1:  # one score for two classes: half of it for one, against the other
        kind = "linear"
        coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
    return ArrayClassifier(kind, {"coefficients": coefficients, "intercepts": intercepts})


def _take_probabilistic(classifier: Any, _: float) -> ArrayClassifier:
    return _linear(classifier.coef_, classifier.intercept_)


def _take_margin(classifier: Any, temperature: float) -> ArrayClassifier:
    return _linear(classifier.coef_, classifier.intercept_, temperature=temperature)


def _take_logistic(classifier: Any, _: float) -> ArrayClassifier:
    kind = "one_vs_rest" if classifier.solver == "liblinear" else "linear"
    return _linear(classifier.coef_, classifier.intercept_, kind=kind)


def _take_sgd(classifier: Any, temperature: float) -> ArrayClassifier:
    if classifier.loss == "log_loss":
        return _linear(classifier.coef_, classifier.intercept_, kind="one_vs_rest")
    return _take_margin(classifier, temperature)


def _take_centroids(classifier: Any, _: float) -> ArrayClassifier:
    # -|x/s - c/s|² + 2 log p; the square of x is the same for every class, the rest is linear in x.
    spread = classifier.within_class_std_dev_
    squares = np.where(spread == 0.0, 1.0, spread) ** 2
    centroids = classifier.centroids_
    intercepts = 2.0 * np.log(classifier.class_prior_) - (centroids**2 / squares).sum(axis=1)
    return _linear(2.0 * centroids / squares, intercepts)


# ---- the others --------------------------------------------------------------------------------


def _take_gaussian(classifier: Any, _: float) -> ArrayClassifier:
    return ArrayClassifier(
        "gaussian",
        {
            "means": classifier.theta_,
            "variances": classifier.var_,
            "log_priors": np.log(classifier.class_prior_),
        },
    )


def _neighbours_obstacle(classifier: Any) -> str:
    metric = classifier.metric
    if metric == "minkowski" and classifier.p == 2 and not classifier.metric_params:
        metric = "euclidean"
    if metric not in {"euclidean", "cosine"}:
        return f"KNeighborsClassifier with metric={metric!r}; allowed: euclidean, cosine"
    return _one_of("weights", ("uniform", "distance"))(classifier)


def _take_neighbours(classifier: Any, _: float) -> ArrayClassifier:
    return ArrayClassifier(
        "neighbours",
        {
            "features": np.asarray(classifier._fit_X, dtype=np.float32),  # noqa: SLF001 - see above
            "classes": classifier._y.astype(np.int32),  # noqa: SLF001 - see above
        },
        {
            "metric": "cosine" if classifier.metric == "cosine" else "euclidean",
            "weights": classifier.weights,
            "neighbours": int(classifier.n_neighbors),
            "classes": len(classifier.classes_),
        },
    )


def _take_tree(classifier: Any, _: float) -> ArrayClassifier:
    return _forest([classifier])


def _take_forest(classifier: Any, _: float) -> ArrayClassifier:
    return _forest(classifier.estimators_)


def _forest(members: list[Any]) -> ArrayClassifier:
    forest = trees.from_scikit((member.tree_ for member in members), shares=True)
    return ArrayClassifier("forest", forest.arrays())


def _boosting(
    forest: trees.Forest, start: NDArray[np.float64], *, rate: float = 1.0
) -> ArrayClassifier:
    arrays: dict[str, NDArray[Any]] = forest.arrays()
    arrays["values"] = arrays["values"].astype(np.float64) * rate
    return ArrayClassifier("boosting", arrays | {"start": np.asarray(start, dtype=np.float64)})


def _take_gradient_boosting(classifier: Any, _: float) -> ArrayClassifier:
    members = [member.tree_ for member in classifier.estimators_.ravel()]
    nothing = np.zeros((1, classifier.n_features_in_), dtype=np.float32)
    start = classifier._raw_predict_init(nothing)[0]  # noqa: SLF001 - see above
    scale = (
        2.0 if classifier.loss == "exponential" else 1.0
    )  # its logistic function is of 2 x score
    forest = trees.from_scikit(members, shares=False)
    return _boosting(forest, start * scale, rate=classifier.learning_rate * scale)


def _take_histogram_boosting(classifier: Any, _: float) -> ArrayClassifier:
    forest = trees.from_histograms(classifier._predictors)  # noqa: SLF001 - see above
    return _boosting(forest, classifier._baseline_prediction.ravel())  # noqa: SLF001 - see above


def _xgboost_obstacle(classifier: Any) -> str:
    settings = {
        "booster": (None, "gbtree"),
        "objective": (None, "binary:logistic", "multi:softprob", "multi:softmax"),
        "num_parallel_tree": (None, 1),
        "early_stopping_rounds": (None,),
    }
    found = (_one_of(name, allowed)(classifier) for name, allowed in settings.items())
    return next((why for why in found if why), "")


def _take_xgboost(classifier: Any, _: float) -> ArrayClassifier:
    forest, start = trees.from_xgboost(classifier.get_booster())
    outputs = 1 if classifier.n_classes_ == 2 else classifier.n_classes_
    return _boosting(forest, np.broadcast_to(start, outputs))


_MARGIN = Source(_take_margin)

SOURCES: Mapping[str, Source] = {
    "sklearn.LogisticRegression": Source(_take_logistic),
    "sklearn.LinearDiscriminantAnalysis": Source(_take_probabilistic),
    "sklearn.LinearSVC": _MARGIN,
    "sklearn.RidgeClassifier": _MARGIN,
    "sklearn.RidgeClassifierCV": _MARGIN,
    "sklearn.Perceptron": _MARGIN,
    "sklearn.SGDClassifier": Source(
        _take_sgd,
        _one_of("loss", ("log_loss", "hinge", "squared_hinge", "perceptron", "squared_error")),
    ),
    "sklearn.NearestCentroid": Source(_take_centroids, _one_of("metric", ("euclidean",))),
    "sklearn.GaussianNB": Source(_take_gaussian),
    "sklearn.KNeighborsClassifier": Source(_take_neighbours, _neighbours_obstacle),
    "sklearn.DecisionTreeClassifier": Source(_take_tree),
    "sklearn.ExtraTreeClassifier": Source(_take_tree),
    "sklearn.RandomForestClassifier": Source(_take_forest),
    "sklearn.ExtraTreesClassifier": Source(_take_forest),
    "sklearn.GradientBoostingClassifier": Source(
        _take_gradient_boosting, _one_of("init", (None, "zero"))
    ),
    "sklearn.HistGradientBoostingClassifier": Source(_take_histogram_boosting),
    "xgboost.XGBClassifier": Source(_take_xgboost, _xgboost_obstacle),
}
