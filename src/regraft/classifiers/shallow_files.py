"""Fitted shallow classifiers as data: how they are taken from scikit-learn and how they predict.

Linear classifiers and nearest neighbours become arrays, XGBoost its own JSON, and whatever else
gives probabilities becomes ONNX, where that agrees with the fitted classifier. A learner predicts
through its data from the moment it is fitted, so that a saved one cannot answer differently.
"""

from __future__ import annotations

import functools
import importlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit, softmax

from regraft.errors import ModelError, UsageError
from regraft.settings import settings_class

Scores = NDArray[np.float64]
AGREEMENT = 1e-5  # the largest difference of a probability
ONNX_OPSET = 18
_FORESTS = frozenset({"RandomForestClassifier", "ExtraTreesClassifier", "DecisionTreeClassifier"})
_CELLS = 8_000_000  # numbers widened to float64 at once: 64 MB
_LINEAR = {"LogisticRegression", "LinearDiscriminantAnalysis", "LinearSVC", "RidgeClassifier"}
_LINEAR |= {"RidgeClassifierCV", "Perceptron", "SGDClassifier"}


@settings_class(ModelError, code="MODEL-CORRUPT")
class ShallowRecord:
    """What the arrays or the file of a classifier are.

    Args:
        kind: A linear classifier, nearest neighbours, or the file of another library.
        link: What makes the scores of a linear one probabilities: over all, or each on its own.
        metric: The distance of neighbours.
        weights: What the vote of a neighbour counts.
        neighbours: How many vote.
    """

    kind: Literal["linear", "neighbours", "onnx", "xgboost"]
    link: Literal["softmax", "one_vs_rest"] = "softmax"
    metric: Literal["euclidean", "cosine"] = "cosine"
    weights: Literal["uniform", "distance"] = "distance"
    neighbours: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True)
class ShallowModel:
    """A fitted classifier as data.

    Example:
        >>> weights = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> arrays = {"coefficients": weights, "intercepts": np.zeros(2)}
        >>> linear = ShallowModel(ShallowRecord("linear"), arrays)
        >>> linear.predict_proba(np.array([[2.0, 0.0]])).round(2).tolist()
        [[0.88, 0.12]]
    """

    record: ShallowRecord
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    content: bytes = b""

    def predict_proba(self, features: NDArray[Any]) -> Scores:
        """Return the probability of each class for each row."""
        if not len(features):  # most of what scores refuses to compute nothing
            return self._score(np.zeros((1, features.shape[1])))[:0]
        step = max(1, _CELLS // max(1, features.shape[1]))
        starts = range(0, len(features), step)
        return np.concatenate([self._score(features[start : start + step]) for start in starts])

    @functools.cached_property
    def _score(self) -> Callable[[NDArray[Any]], Scores]:
        """What gives the probabilities of a block of rows."""
        if self.record.kind == "linear":
            return functools.partial(_score_linear, self.record, self.arrays)
        if self.record.kind == "neighbours":
            neighbours = _fit_neighbours(self.record, self.arrays)
            return lambda rows: np.asarray(neighbours.predict_proba(rows.astype(np.float64)))
        return (_onnx_scorer if self.record.kind == "onnx" else _xgboost_scorer)(self.content)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("record", "arrays", "content")}


def to_model(
    classifier: Any, features: NDArray[np.float32], *, temperature: float = 1.0
) -> ShallowModel:
    """Return a fitted scikit-learn or XGBoost classifier as data.

    Args:
        classifier: Fitted on the classes 0 to k - 1.
        features: What it was fitted on; both must agree there.
        temperature: What the scores of a classifier without probabilities are divided by.

    Raises:
        ModelError: It cannot be kept as data, or does not agree (``MODEL-UNSAVEABLE``).

    Example:
        >>> from sklearn.svm import LinearSVC
        >>> rows = np.array([[0.0], [1.0], [4.0], [5.0]], np.float32)
        >>> to_model(LinearSVC().fit(rows, [0, 0, 1, 1]), rows).record.kind
        'linear'
    """
    package, name = type(classifier).__module__.partition(".")[0], type(classifier).__name__
    certain = hasattr(classifier, "predict_proba")
    if package == "sklearn" and name in _LINEAR:
        model = _take_linear(classifier, temperature)
    elif not certain:
        raise unsaveable(f"{name} gives no probabilities")
    elif package == "sklearn" and name == "KNeighborsClassifier" and _metric(classifier):
        model = _take_neighbours(classifier)
    elif package == "xgboost":
        content = bytes(classifier.get_booster().save_raw("json"))
        model = ShallowModel(ShallowRecord("xgboost"), content=content)
    else:
        content = _to_onnx(classifier, features.shape[1])
        model = ShallowModel(ShallowRecord("onnx"), content=content)
    try:
        found = model.predict_proba(features)
    except Exception as error:  # of the other library, whatever it is
        raise unsaveable(f"{name} cannot be read back: {error}") from error
    expected = np.asarray(classifier.predict_proba(features)) if certain else found
    # Where all probabilities agree, so do all labels but those of ties.
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=AGREEMENT):
        raise unsaveable(f"{name} would answer differently after it is loaded")
    return model


def find_class(name: str) -> Any:
    """Return a class of a library that may not be installed.

    Raises:
        UsageError: It is not (``USAGE-EXTRA``).

    Example:
        >>> find_class("sklearn.svm.LinearSVC")()
        LinearSVC()
    """
    module, _, own = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), own)
    except ImportError as error:
        what = f"this classifier needs the package {module}, which is not installed"
        raise UsageError(what, hint='pip install "regraft[boost]"', code="USAGE-EXTRA") from error


def unsaveable(why: str) -> ModelError:
    """Return the error for a classifier that cannot be kept as data."""
    hint = "linear classifiers, neighbours, XGBoost and what skl2onnx converts exactly can be saved"
    what = "this classifier cannot be saved"
    return ModelError(what, why=why[:300], hint=hint, code="MODEL-UNSAVEABLE")


# ---- linear ------------------------------------------------------------------------------------


def _take_linear(classifier: Any, temperature: float) -> ShallowModel:
    separate = getattr(classifier, "loss", "") == "log_loss" or (
        type(classifier).__name__ == "LogisticRegression" and classifier.solver == "liblinear"
    )
    divisor = 1.0 if hasattr(classifier, "predict_proba") else temperature
    coefficients = np.atleast_2d(classifier.coef_).astype(np.float64) / divisor
    intercepts = np.broadcast_to(classifier.intercept_, len(coefficients)) / divisor
    intercepts = intercepts.astype(np.float64)
    if len(coefficients) == 1:  # one score for two classes: half of it for one, against the other
        separate = False
        coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
    record = ShallowRecord("linear", link="one_vs_rest" if separate else "softmax")
    # In one order in memory before and after saving: the order decides how products are rounded.
    arrays = {"coefficients": np.ascontiguousarray(coefficients), "intercepts": intercepts}
    return ShallowModel(record, arrays)


def _score_linear(
    record: ShallowRecord, arrays: Mapping[str, NDArray[Any]], features: NDArray[Any]
) -> Scores:
    scores = features.astype(np.float64) @ arrays["coefficients"].T + arrays["intercepts"]
    if record.link == "softmax":
        return np.asarray(softmax(scores, axis=1))
    separate = np.maximum(expit(scores), np.finfo(np.float64).tiny)
    return np.asarray(separate / separate.sum(axis=1, keepdims=True))


# ---- nearest neighbours ------------------------------------------------------------------------


def _metric(classifier: Any) -> str:
    """Return the distance of a classifier, or nothing where it is none of ours."""
    if classifier.weights not in {"uniform", "distance"} or classifier.metric_params:
        return ""
    if classifier.metric == "minkowski" and classifier.p == 2:
        return "euclidean"
    return str(classifier.metric) if classifier.metric in {"euclidean", "cosine"} else ""


def _take_neighbours(classifier: Any) -> ShallowModel:
    record = ShallowRecord(
        "neighbours",
        metric="cosine" if _metric(classifier) == "cosine" else "euclidean",
        weights=classifier.weights,
        neighbours=int(classifier.n_neighbors),
    )
    # scikit-learn has no public name for the rows that it keeps.
    rows = np.ascontiguousarray(classifier._fit_X, dtype=np.float32)  # noqa: SLF001
    return ShallowModel(record, {"features": rows, "classes": classifier._y.astype(np.int32)})  # noqa: SLF001


def _fit_neighbours(record: ShallowRecord, arrays: Mapping[str, NDArray[Any]]) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(
        record.neighbours, weights=record.weights, metric=record.metric, algorithm="brute"
    ).fit(arrays["features"].astype(np.float64), arrays["classes"])


# ---- files of other libraries ------------------------------------------------------------------


def _to_onnx(classifier: Any, width: int) -> bytes:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    name = type(classifier).__name__
    try:
        if type(classifier).__module__.startswith("sklearn.") and name in _FORESTS:
            return bytes(_forest_to_onnx(classifier, width).SerializeToString())
        kinds = [("features", FloatTensorType([None, width]))]
        opsets = {"": ONNX_OPSET, "ai.onnx.ml": 3}
        options = {"zipmap": False}
        made = to_onnx(classifier, initial_types=kinds, options=options, target_opset=opsets)
        return bytes(made.SerializeToString())
    except Exception as error:  # skl2onnx raises whatever a converter stumbles over
        said = str(error).strip().split("\n")[0]
        raise unsaveable(f"skl2onnx does not convert {name}: {said}") from error


def _forest_to_onnx(classifier: Any, width: int) -> Any:
    """Return a forest as one node of ONNX; skl2onnx lists all classes in each leaf, with zeros."""
    from onnx import TensorProto, helper

    members = getattr(classifier, "estimators_", [classifier])
    columns: dict[str, Any] = defaultdict(list)
    for number, tree in enumerate(member.tree_ for member in members):
        leaf, exact = tree.children_left < 0, tree.threshold
        shares = tree.value[:, 0] / tree.value[:, 0].sum(axis=1, keepdims=True)
        nodes, classes = np.nonzero(leaf[:, None] & (shares > 0))
        weights = shares[nodes, classes]
        if shares.shape[1] == 2:  # onnxruntime takes one score, that of the second class
            nodes, weights = np.nonzero(leaf)[0], shares[leaf, 1]
            classes = np.zeros_like(nodes)
        near = exact.astype(np.float32)
        below = np.nextafter(near, np.float32(-np.inf))  # float32 rows do not see the difference
        parts = {
            "nodes_treeids": np.full(tree.node_count, number),
            "nodes_nodeids": np.arange(tree.node_count),
            "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ"),
            "nodes_featureids": np.where(leaf, 0, tree.feature),
            "nodes_values": np.where(leaf, 0, np.where(near > exact, below, near)),
            "nodes_truenodeids": np.where(leaf, 0, tree.children_left),
            "nodes_falsenodeids": np.where(leaf, 0, tree.children_right),
            "class_treeids": np.full(len(nodes), number),
            "class_nodeids": nodes,
            "class_ids": classes,
            "class_weights": weights / len(members),
        }
        for name, part in parts.items():
            columns[name] += part.tolist()
    count = len(classifier.classes_)
    declare = helper.make_tensor_value_info
    inputs = [declare("features", TensorProto.FLOAT, [None, width])]
    outputs = [declare("label", TensorProto.INT64, [None])]
    outputs += [declare("probabilities", TensorProto.FLOAT, [None, count])]
    names = (["features"], ["label", "probabilities"])
    columns |= {"classlabels_int64s": list(range(count)), "post_transform": "NONE"}
    node = helper.make_node("TreeEnsembleClassifier", *names, domain="ai.onnx.ml", **columns)
    operators = [helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("", ONNX_OPSET)]
    graph = helper.make_graph([node], "forest", inputs, outputs)
    return helper.make_model(graph, opset_imports=operators, ir_version=8)


def _onnx_scorer(content: bytes) -> Callable[[NDArray[Any]], Scores]:
    import onnxruntime

    if b"location" in content:  # how ONNX names the file of a tensor that lies elsewhere
        raise ValueError("a part of it lies in another file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # one order of sums
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def score(features: NDArray[Any]) -> Scores:
        _, found = session.run(None, {"features": features.astype(np.float32)})
        shares = np.maximum(np.asarray(found, dtype=np.float64), 0.0)
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    return score


def _xgboost_scorer(content: bytes) -> Callable[[NDArray[Any]], Scores]:
    booster = find_class("xgboost.Booster")()
    if content[:1] != b"{":
        raise ValueError("not JSON")  # XGBoost would take it for a format of its own
    booster.load_model(bytearray(content))

    def score(features: NDArray[Any]) -> Scores:
        found = np.asarray(booster.inplace_predict(features.astype(np.float32)), dtype=np.float64)
        if found.ndim == 1:
            return np.stack([1.0 - found, found], axis=1)
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    return score
