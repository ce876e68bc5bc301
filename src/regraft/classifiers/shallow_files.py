"""Fitted shallow classifiers as data: how they are taken from scikit-learn and how they predict.

Linear classifiers and nearest neighbours become arrays, XGBoost its own JSON, and whatever else
gives probabilities becomes ONNX, where that agrees with the fitted classifier. A learner predicts
through its data from the moment it is fitted, so that a saved one cannot answer differently.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit, softmax

from regraft.errors import ModelError, UsageError
from regraft.settings import settings_class

Scores = NDArray[np.float64]
AGREEMENT = 1e-5  # the largest difference of a probability
_FORESTS = frozenset({"RandomForestClassifier", "ExtraTreesClassifier", "DecisionTreeClassifier"})
_CELLS = 8_000_000  # numbers widened to float64 at once: 64 MB
_LINEAR = frozenset(
    {"LogisticRegression", "LinearDiscriminantAnalysis", "LinearSVC", "RidgeClassifier"}
    | {"RidgeClassifierCV", "Perceptron", "SGDClassifier"}
)


@settings_class(ModelError, code="MODEL-CORRUPT", kw_only=True)
class LinearRecord:
    """One score per class, linear in the features; over all, or each against the rest."""

    kind: Literal["linear"] = "linear"
    link: Literal["softmax", "one_vs_rest"] = "softmax"


@settings_class(ModelError, code="MODEL-CORRUPT", kw_only=True)
class NeighboursRecord:
    """The training rows, of which the nearest vote."""

    kind: Literal["neighbours"] = "neighbours"
    metric: Literal["euclidean", "cosine"]
    weights: Literal["uniform", "distance"]
    neighbours: Annotated[int, Field(ge=1)]
    classes: Annotated[int, Field(ge=2)]


@settings_class(ModelError, code="MODEL-CORRUPT", kw_only=True)
class FileRecord:
    """A file of another library: ONNX, or XGBoost's own JSON."""

    kind: Literal["onnx", "xgboost"]


ShallowRecord = LinearRecord | NeighboursRecord | FileRecord


@dataclass(frozen=True)
class ShallowModel:
    """A fitted classifier as data.

    Example:
        >>> weights = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> arrays = {"coefficients": weights, "intercepts": np.zeros(2)}
        >>> linear = ShallowModel(LinearRecord(), arrays)
        >>> linear.predict_proba(np.array([[2.0, 0.0]])).round(2).tolist()
        [[0.88, 0.12]]
    """

    record: ShallowRecord
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    content: bytes = b""

    def predict_proba(self, features: NDArray[Any]) -> Scores:
        """Return the probability of each class for each row."""
        step = max(1, _CELLS // max(1, features.shape[1]))
        starts = range(0, max(1, len(features)), step)
        return np.concatenate([self._score(features[start : start + step]) for start in starts])

    def check(self) -> None:
        """Make sure of what a wrong prediction would not show.

        Raises:
            ValueError: The arrays are not those of a classifier.
        """
        shapes = {name: array.shape for name, array in self.arrays.items()}
        if isinstance(self.record, LinearRecord):
            fits = len(shapes) == 2 and shapes["intercepts"] == shapes["coefficients"][:1]
        elif isinstance(self.record, NeighboursRecord):
            codes = self.arrays["classes"]
            fits = len(shapes) == 2 and shapes["features"][:1] == codes.shape
            fits = fits and codes.dtype.kind == "i" and codes.min() >= 0
        else:
            fits = not shapes and bool(self.content)
        if not fits:
            raise ValueError(f"a {self.record.kind} classifier with the arrays {shapes}")

    @cached_property
    def _score(self) -> Callable[[NDArray[Any]], Scores]:
        if isinstance(self.record, LinearRecord):
            return _linear_scorer(self.record, self.arrays)
        if isinstance(self.record, NeighboursRecord):
            return _neighbours_scorer(self.record, self.arrays)
        make = {"onnx": _onnx_scorer, "xgboost": _xgboost_scorer}
        return make[self.record.kind](self.content)

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
        if not certain:
            return model
    elif not certain:
        raise unsaveable(f"{name} gives no probabilities")
    elif package == "sklearn" and name == "KNeighborsClassifier" and _metric(classifier):
        model = _take_neighbours(classifier)
    elif package == "xgboost":
        content = bytes(classifier.get_booster().save_raw("json"))
        model = ShallowModel(FileRecord(kind="xgboost"), content=content)
    else:
        model = ShallowModel(
            FileRecord(kind="onnx"), content=_to_onnx(classifier, features.shape[1])
        )
    expected = np.asarray(classifier.predict_proba(features), dtype=np.float64)
    try:
        found = model.predict_proba(features)
    except Exception as error:  # of the other library, whatever it is
        raise unsaveable(f"{name} cannot be read back: {error}") from error
    # Where all probabilities agree, so do all labels but those of ties.
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=AGREEMENT):
        raise unsaveable(f"{name} would answer differently after it is loaded")
    return model


def unsaveable(why: str) -> ModelError:
    """Return the error for a classifier that cannot be kept as data."""
    return ModelError(
        "this classifier cannot be saved",
        why=why[:300],
        hint="model files hold data only, never code; linear classifiers, nearest neighbours, "
        "XGBoost and what skl2onnx converts exactly can be saved",
        code="MODEL-UNSAVEABLE",
    )


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
    record = LinearRecord(link="one_vs_rest" if separate else "softmax")
    # In one order in memory before and after saving: the order decides how products are rounded.
    arrays = {"coefficients": np.ascontiguousarray(coefficients), "intercepts": intercepts}
    return ShallowModel(record, arrays)


def _linear_scorer(
    record: LinearRecord, arrays: Mapping[str, NDArray[Any]]
) -> Callable[[NDArray[Any]], Scores]:
    def score(features: NDArray[Any]) -> Scores:
        scores = features.astype(np.float64) @ arrays["coefficients"].T + arrays["intercepts"]
        if record.link == "softmax":
            return np.asarray(softmax(scores, axis=1))
        separate = np.maximum(expit(scores), np.finfo(np.float64).tiny)
        return np.asarray(separate / separate.sum(axis=1, keepdims=True))

    return score


# ---- nearest neighbours ------------------------------------------------------------------------


def _metric(classifier: Any) -> str:
    """Return the distance of a classifier, or nothing where it is none of ours."""
    if classifier.weights not in {"uniform", "distance"} or classifier.metric_params:
        return ""
    if classifier.metric == "minkowski" and classifier.p == 2:
        return "euclidean"
    return classifier.metric if classifier.metric in {"euclidean", "cosine"} else ""


def _take_neighbours(classifier: Any) -> ShallowModel:
    record = NeighboursRecord(
        metric="cosine" if _metric(classifier) == "cosine" else "euclidean",
        weights=classifier.weights,
        neighbours=int(classifier.n_neighbors),
        classes=len(classifier.classes_),
    )
    # scikit-learn has no public name for the rows that it keeps.
    rows = np.ascontiguousarray(classifier._fit_X, dtype=np.float32)  # noqa: SLF001
    return ShallowModel(record, {"features": rows, "classes": classifier._y.astype(np.int32)})  # noqa: SLF001


def _neighbours_scorer(
    record: NeighboursRecord, arrays: Mapping[str, NDArray[Any]]
) -> Callable[[NDArray[Any]], Scores]:
    cosine = record.metric == "cosine"
    known = _unit_rows(arrays["features"]) if cosine else arrays["features"].astype(np.float64)
    squares, count = (known**2).sum(axis=1), record.neighbours

    def score(features: NDArray[Any]) -> Scores:
        asked = _unit_rows(features) if cosine else features.astype(np.float64)
        order = squares - 2.0 * asked @ known.T  # the row's own square changes no order
        nearest = np.argpartition(order, count - 1, axis=1)[:, :count]
        # Again without the cancellation of the expanded square: equal images are at exactly 0.
        pairs = zip(nearest, asked, strict=True)
        exact = np.array([((known[rows] - row) ** 2).sum(axis=1) for rows, row in pairs])
        exact = exact.reshape(len(asked), count)
        distance = exact / 2.0 if cosine else np.sqrt(exact)
        votes = np.ones_like(distance)
        if record.weights == "distance":
            same = distance == 0.0
            apart = 1.0 / np.where(same, 1.0, distance)
            votes = np.where(same.any(axis=1, keepdims=True), same, apart)
        shares = np.zeros((len(asked), record.classes))
        np.add.at(shares, (np.arange(len(asked))[:, None], arrays["classes"][nearest]), votes)
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    return score


def _unit_rows(features: NDArray[Any]) -> Scores:
    wide = features.astype(np.float64)
    length = np.sqrt((wide**2).sum(axis=1, keepdims=True))
    return np.asarray(wide / np.where(length == 0.0, 1.0, length))


# ---- files of other libraries ------------------------------------------------------------------


def _to_onnx(classifier: Any, width: int) -> bytes:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    kinds = [("features", FloatTensorType([None, width]))]
    name = type(classifier).__name__
    try:
        if type(classifier).__module__.startswith("sklearn.") and name in _FORESTS:
            made = _forest_to_onnx(classifier, width)
        else:
            made = to_onnx(classifier, initial_types=kinds, options={"zipmap": False})
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
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, width])]
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, count]),
    ]
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["features"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        classlabels_int64s=list(range(count)),
        post_transform="NONE",
        **columns,
    )
    operators = [helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("", 17)]
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
        # Some operators refuse to compute nothing.
        asked = features if len(features) else np.zeros((1, features.shape[1]))
        _, found = session.run(None, {"features": asked.astype(np.float32)})
        shares = np.maximum(np.asarray(found, dtype=np.float64), 0.0)[: len(features)]
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    return score


def _xgboost_scorer(content: bytes) -> Callable[[NDArray[Any]], Scores]:
    try:
        from xgboost import Booster
    except ImportError as error:
        raise UsageError(
            "this classifier needs a package that is not installed",
            why="it is of XGBoost",
            hint='pip install "regraft[boost]"',
            code="USAGE-EXTRA",
        ) from error
    booster = Booster()
    booster.load_model(bytearray(content))

    def score(features: NDArray[Any]) -> Scores:
        found = np.asarray(booster.inplace_predict(features.astype(np.float32)), dtype=np.float64)
        if found.ndim == 1:
            return np.stack([1.0 - found, found], axis=1)
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    return score
