"""Every engine gives the same rows, whatever the batch."""

import sys

import numpy as np
import pytest
import torch

from regraft.backbones import engines
from regraft.backbones.backbone import build
from regraft.backbones.engines import Embedder, TorchEngine
from regraft.backbones.spec import BackboneSpec
from regraft.errors import UsageError


@pytest.fixture(scope="module")
def backbone():
    return build(BackboneSpec("simple_cnn", weights=None, arguments={"size": 64}))


def draw(count, size=64):
    shape = (count, size, size, 3)
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def test_torch_computes_in_bf16_when_asked(backbone):
    pictures = draw(3)
    exact, short = backbone.engine("torch"), backbone.engine("torch", "bf16")

    rows, rough = exact(pictures), short(pictures)

    assert (exact.precision, short.precision) == ("fp32", "bf16")
    assert rough.dtype == np.float32
    assert 0 < np.abs(rows - rough).max() < 0.1 * np.abs(rows).max()


def test_a_row_does_not_depend_on_the_batch_it_stands_in(backbone):
    pictures = draw(5)
    engine = backbone.engine("torch")

    together = engine(pictures)

    alone = np.concatenate([engine(pictures[i : i + 1]) for i in range(5)])
    assert np.abs(together - alone).max() <= 1e-6 * np.abs(together).max()


@pytest.mark.parametrize("room", [1, 2, 3])
def test_a_batch_too_large_for_the_memory_is_run_in_parts(backbone, monkeypatch, room):
    pictures = draw(5)
    together = backbone.engine("torch")(pictures)
    forward, passed = Embedder.forward, []

    def greedy(self, batch):
        if len(batch) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        passed.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(Embedder, "forward", greedy)
    rows = backbone.engine("torch")(pictures)

    assert np.abs(rows - together).max() <= 1e-6 * np.abs(together).max()
    assert sum(passed) == 5


@pytest.mark.parametrize(
    "problem", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("shapes do not match")]
)
def test_what_smaller_batches_do_not_help_is_told(backbone, monkeypatch, problem):
    def failing(self, batch):
        raise problem

    monkeypatch.setattr(Embedder, "forward", failing)

    with pytest.raises(RuntimeError, match=str(problem)):
        backbone.engine("torch")(draw(3))


@pytest.mark.parametrize("arguments", [("magic", "fp32"), ("torch", "fp8")])
def test_an_unknown_engine_or_precision_is_an_error(backbone, arguments):
    with pytest.raises(UsageError) as caught:
        backbone.engine(*arguments)

    assert caught.value.code == "USAGE-ENGINE"


def test_automatic_choice_falls_back_to_torch_where_openvino_is_not_installed(
    backbone, monkeypatch
):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(engines, "find_spec", lambda _name: None)

    engine = backbone.engine("auto")

    assert isinstance(engine, TorchEngine)
    with pytest.raises(UsageError, match="not installed"):
        backbone.engine("openvino")


def test_automatic_choice_is_torch_on_a_graphics_processor(monkeypatch):
    monkeypatch.setattr(engines, "choose_device", lambda: "cuda")

    assert engines.expected_engine("auto") == "torch"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rows_on_a_graphics_processor_equal_those_on_the_processor(backbone):
    pictures = draw(4)
    embedder = backbone.embedder

    on_gpu = TorchEngine(embedder, device="cuda")(pictures)
    on_cpu = TorchEngine(embedder, device="cpu")(pictures)

    assert np.abs(on_gpu - on_cpu).max() < 1e-3 * np.abs(on_cpu).max()
