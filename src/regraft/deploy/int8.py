"""A deployed network in whole numbers of 8 bits: about a quarter of the size, at some cost."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from regraft.deploy.predictor import VIEWS, Predictor
from regraft.errors import ModelError
from regraft.files import temporary_folder

IMAGES = 200  # are enough to see in which range each number lies
_AT_ONCE = 20
_LAYERS = ("Conv", "Gemm", "MatMul")
_DOUBLE = onnx.TensorProto.DOUBLE
_ROUNDS = 15


def to_int8(network: bytes, views: NDArray[np.uint8]) -> bytes:
    """Return a network whose layers count in 8 bits, with a scale for each channel of weights.

    Args:
        network: The content of ``network.onnx``.
        views: Training images as they enter the network, (n, size, size, 3): what lies outside of
            the range of numbers that they cause will be cut off.

    Raises:
        ModelError: It cannot be done (``MODEL-UNSAVEABLE``).
    """
    place = temporary_folder()
    plain, whole = place / "plain.onnx", place / "int8.onnx"
    try:
        with _quiet():
            _quantize(network, views, plain, whole)
        return whole.read_bytes()
    except Exception as error:  # of onnxruntime, whatever it is
        what, why = "this model cannot be written in 8 bits", " ".join(f"{error}".split())[:300]
        hint = "export it without --int8"
        raise ModelError(what, why=why, hint=hint, code="MODEL-UNSAVEABLE") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _quantize(network: bytes, views: NDArray[np.uint8], plain: Path, whole: Path) -> None:
    quant_pre_process(onnx.load_from_string(network), str(plain), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(plain),
        str(whole),
        _Images(views),
        nodes_to_exclude=_exact(onnx.load(str(plain))),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        # With all 8 bits sums of two products overflow on processors without VNNI.
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the library prints and logs, of what it does itself, from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _exact(network: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that stay as they are.

    These are a classifier in float64, what is done before the first layer, and the arithmetic of
    sizes, where a rounded number would be another padding.
    """
    nodes, values = network.graph.node, network.graph.value_info
    double = {weights.name for weights in network.graph.initializer if weights.data_type == _DOUBLE}
    double |= {value.name for value in values if value.type.tensor_type.elem_type == _DOUBLE}
    sizes = {value.name for value in values if len(value.type.tensor_type.shape.dim) < 2}
    first = next((place for place, node in enumerate(nodes) if node.op_type in _LAYERS), 0)
    return [
        node.name
        for place, node in enumerate(nodes)
        if place < first or double & {*node.input, *node.output} or sizes & {*node.output}
    ]


def time_ratio(first: Predictor, second: Predictor, view: NDArray[np.uint8]) -> float:
    """Return how much time a model takes for an image, as a share of that of another.

    Args:
        first: The other.
        second: The model.
        view: An image as it enters the network, (1, size, size, 3).
    """
    models = (first, second)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):  # in turns: what else the machine does falls on both
        for model, measured in zip(models, seconds, strict=True):
            begun = time.perf_counter()
            model.answer(view)
            measured.append(time.perf_counter() - begun)
    return statistics.median(seconds[1]) / statistics.median(seconds[0])


class _Images(quantization.CalibrationDataReader):  # type: ignore[misc] # it has no types
    """Gives images in blocks."""

    def __init__(self, views: NDArray[np.uint8]) -> None:
        self._blocks = _blocks(views)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next block; None where there is none."""
        return next(self._blocks, None)


def _blocks(views: NDArray[np.uint8]) -> Iterator[dict[str, Any]]:
    for start in range(0, len(views), _AT_ONCE):
        yield {VIEWS: views[start : start + _AT_ONCE]}
