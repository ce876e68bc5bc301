"""A whole model as one ONNX graph: pixels of any size in, the probability of each class out.

The resize is Pillow's, in ONNX's own operators: a matrix of filter weights for each axis, in fixed
point of 22 bits as there, first across and then down. Of an image that is wider than high the
pixels are the same to the last bit; of others Pillow may go down first, and rounds otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from regraft.backbones.spec import Preprocessing
from regraft.deploy.predictor import FEATURES, PROBABILITIES, VIEWS

IR = 8  # the format of the files
IMAGE = "image"
ROWS = "rows"  # what a classifier is given, where it is a graph of its own
_ONE = 2.0**22  # what Pillow's weights add up to
_REACH = {"bilinear": 1.0, "bicubic": 2.0}  # of a filter, in pixels of the smaller image


def whole_model(network: onnx.ModelProto, preprocessing: Preprocessing) -> onnx.ModelProto:
    """Return a model of one image, (height, width, 3) in RGB of 8 bits: ``image``.

    Args:
        network: From ``views`` to ``probabilities``.
        preprocessing: How an image becomes a view.
    """
    size, made = preprocessing.size, _Graph()
    sides = made.add("Cast", made.add("Shape", IMAGE), to=TensorProto.DOUBLE)
    old = [made.add("Gather", sides, made.number(axis, np.int64)) for axis in (0, 1)]
    new = _new_sides(made, old, preprocessing)
    planes = made.add("Transpose", IMAGE, perm=[2, 0, 1])
    kind = preprocessing.interpolation
    for axis in (1, 0):  # across, then down
        planes = _resized(made, planes, axis, old[axis], new[axis], kind)
    starts = []
    for side in new:  # the centre; halves are rounded to even, as Python does
        margin = made.add("Sub", side, made.number(size))
        half = made.add("Round", made.add("Mul", margin, made.number(0.5)))
        whole = made.add("Cast", half, to=TensorProto.INT64)
        starts.append(made.add("Unsqueeze", whole, made.numbers(0)))
    first = made.add("Concat", *starts, axis=0)
    last = made.add("Add", first, made.numbers(size, size))
    cut = made.add("Slice", planes, first, last, made.numbers(1, 2))
    view = made.add("Unsqueeze", made.add("Transpose", cut, perm=[1, 2, 0]), made.numbers(0))
    made.add("Cast", view, output="view", to=TensorProto.UINT8)
    image = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["height", "width", 3])
    shown = helper.make_tensor_value_info("view", TensorProto.UINT8, [1, size, size, 3])
    graph = helper.make_graph(made.nodes, "view", [image], [shown], made.constants)
    operators = [helper.make_opsetid(one.domain, one.version) for one in network.opset_import]
    before = helper.make_model(graph, opset_imports=operators, ir_version=IR)
    return _single(
        compose.merge_models(
            compose.add_prefix(before, "view/", rename_inputs=False, rename_outputs=False),
            compose.add_prefix(network, "network/"),
            io_map=[("view", f"network/{VIEWS}")],
            outputs=[f"network/{PROBABILITIES}"],
        )
    )


def join(
    network: onnx.ModelProto, classifier: onnx.ModelProto, temperature: float
) -> onnx.ModelProto:
    """Return a network that gives rows and features, followed by a classifier of the rows.

    Args:
        network: From ``views`` to ``rows`` and ``features``.
        classifier: From ``features``, which are the rows, to ``probabilities``.
        temperature: What the logarithms of the probabilities are divided by.
    """
    classifier = compose.add_prefix(classifier, "classifier/")
    raw = next(one for one in classifier.graph.output if one.name.endswith(PROBABILITIES))
    made = _Graph("temperature/")
    least = made.number(float(np.finfo(np.float32).tiny), np.float32)
    logs = made.add("Log", made.add("Max", raw.name, least))
    scores = made.add("Div", logs, made.number(temperature, np.float32))
    made.add("Softmax", scores, output=PROBABILITIES, axis=1)
    classifier.graph.node.extend(made.nodes)
    classifier.graph.initializer.extend(made.constants)
    given = helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, None)
    given.type.CopyFrom(raw.type)
    classifier.graph.output.append(given)
    joined = compose.merge_models(
        network,
        classifier,
        io_map=[(ROWS, "classifier/features")],
        outputs=[PROBABILITIES, FEATURES],
    )
    joined.ir_version = IR
    operators = {one.domain: one for one in joined.opset_import}  # both bring the same ones
    del joined.opset_import[:]
    joined.opset_import.extend(operators.values())
    return joined


def describe(model: onnx.ModelProto, facts: Mapping[str, Any]) -> None:
    """Put facts into a model's metadata: texts as they are, other values as JSON."""
    for name, value in facts.items():
        entry = model.metadata_props.add()
        entry.key = name
        entry.value = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class _Graph:
    """Nodes and constants of a graph while it is written."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = output or f"{self.prefix}{operator} {len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def number(self, value: float, kind: Any = np.float64) -> str:
        """Return the name of a constant."""
        return self._constant(np.array(value, dtype=kind))

    def numbers(self, *values: int) -> str:
        """Return the name of a constant list of whole numbers."""
        return self._constant(np.array(values, dtype=np.int64))

    def _constant(self, values: Any) -> str:
        name = f"{self.prefix}constant {len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name


def _new_sides(made: _Graph, old: list[str], preprocessing: Preprocessing) -> list[str]:
    """Return height and width after the resize."""
    if preprocessing.mode != "crop":
        squashed = preprocessing.mode == "squash"
        side = preprocessing.size if squashed else preprocessing.resize
        return [made.number(side), made.number(side)]
    short, resize = made.add("Min", *old), made.number(preprocessing.resize)
    return [
        made.add("Floor", made.add("Div", made.add("Mul", resize, side), short)) for side in old
    ]


def _resized(made: _Graph, planes: str, axis: int, old: str, new: str, kind: str) -> str:
    """Return planes (3, height, width) with another height (axis 0) or width (axis 1)."""
    zero, one, half = made.number(0), made.number(1), made.number(0.5)
    scale, numbers = made.add("Div", old, new), made.add("Range", zero, new, one)
    if kind == "nearest":  # Pillow adds up steps, and so finds the same pixel where two are as near
        is_first = made.add("Equal", numbers, zero)
        steps = made.add("Mul", made.add("Where", is_first, half, one), scale)
        summed = made.add("CumSum", steps, made.number(0, np.int64))
        places = made.add("Cast", summed, to=TensorProto.INT64)
        return made.add("Gather", planes, places, axis=axis + 1)
    centres = made.add("Mul", made.add("Add", numbers, half), scale)
    centres = made.add("Unsqueeze", centres, made.numbers(1))
    pixels = made.add("Unsqueeze", made.add("Range", zero, old, one), made.numbers(0))
    weights = _weights(made, pixels, centres, made.add("Max", scale, one), kind)
    exact = made.add("Cast", planes, to=TensorProto.DOUBLE)
    if axis == 0:
        sums = made.add("MatMul", weights, exact)
    else:
        sums = made.add("MatMul", exact, made.add("Transpose", weights, perm=[1, 0]))
    raised = made.add("Add", sums, made.number(_ONE / 2))
    whole = made.add("Floor", made.add("Div", raised, made.number(_ONE)))
    return made.add("Min", made.add("Max", whole, made.number(0)), made.number(255))


def _weights(made: _Graph, pixels: str, centres: str, scale: str, kind: str) -> str:
    """Return what each old pixel (column) counts for each new one (row), as Pillow computes it."""
    half, reach = made.number(0.5), made.add("Mul", scale, made.number(_REACH[kind]))
    low = made.add("Floor", made.add("Add", made.add("Sub", centres, reach), half))
    high = made.add("Floor", made.add("Add", made.add("Add", centres, reach), half))
    within = made.add(
        "And", made.add("GreaterOrEqual", pixels, low), made.add("Less", pixels, high)
    )
    away = made.add("Add", made.add("Sub", pixels, centres), half)
    away = made.add("Abs", made.add("Mul", away, made.add("Div", made.number(1), scale)))
    curve = _bicubic(made, away) if kind == "bicubic" else made.add("Sub", made.number(1), away)
    curve = made.add("Max", curve, made.number(0)) if kind == "bilinear" else curve
    curve = made.add("Where", within, curve, made.number(0))
    total = made.add("ReduceSum", curve, made.numbers(1), keepdims=1)
    share = made.add("Mul", made.add("Div", curve, total), made.number(_ONE))
    rounded = made.add("Floor", made.add("Add", made.add("Abs", share), half))
    return made.add("Mul", rounded, made.add("Sign", share))


def _bicubic(made: _Graph, away: str) -> str:
    """Return Keys' cubic convolution with a = -0.5 at distances of 0 or more."""

    def polynomial(*coefficients: float) -> str:
        value = made.number(coefficients[0])
        for coefficient in coefficients[1:]:
            value = made.add("Add", made.add("Mul", value, away), made.number(coefficient))
        return value

    near, far = polynomial(1.5, -2.5, 0, 1), polynomial(-0.5, 2.5, -4, 2)
    beyond = made.add("Where", made.add("Less", away, made.number(2)), far, made.number(0))
    return made.add("Where", made.add("Less", away, made.number(1)), near, beyond)


def _single(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model of batches of one without the axis of the batch."""
    row = model.graph.output.pop()
    axis = numpy_helper.from_array(np.array([0]), "axis of the batch")
    model.graph.initializer.append(axis)
    model.graph.node.append(helper.make_node("Squeeze", [row.name, axis.name], [PROBABILITIES]))
    classes = row.type.tensor_type.shape.dim[1].dim_value or "classes"
    given = helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [classes])
    model.graph.output.append(given)
    return model
