"""Every engine gives the same rows, whatever the batch, or says why not."""

import sys

import numpy as np
import pytest
import torch

from regraft.backbones import engines
from regraft.backbones.backbone import build
from regraft.backbones.engines import Embedder, Normalise, TorchEngine
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.files import home
from samples import refused


@pytest.fixture(scope="module")
def backbone():
    return build(BackboneSpec("simple_cnn", weights=None, arguments={"size": 64}))


def draw(count, size=64):
    shape = (count, size, size, 3)
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_an_engine_computes_in_bf16_when_asked(backbone, name, monkeypatch):
    pictures = draw(3)
    exact, short = backbone.engine("torch"), backbone.engine(name, "bf16")

    rows, rough = exact(pictures), short(pictures)

    assert (exact.precision, short.precision) == ("fp32", "bf16")
    assert rough.dtype == np.float32
    assert np.abs(rows - rough).max() < 0.1 * np.abs(rows).max()
    assert name == "openvino" or not np.array_equal(rows, rough)
    monkeypatch.setattr(engines, "choose_device", lambda: "cuda")
    assert engines.expected_engine("auto") == "torch"


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


@pytest.mark.parametrize("arguments", [("magic", "fp32"), ("torch", "fp8")])
def test_an_unknown_engine_or_precision_is_an_error(backbone, arguments):
    assert refused(backbone.engine, *arguments).code == "USAGE-ENGINE"


def test_automatic_choice_falls_back_to_torch_where_openvino_is_not_installed(
    backbone, monkeypatch
):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(engines, "find_spec", lambda _name: None)

    engine = backbone.engine("auto")

    assert isinstance(engine, TorchEngine)
    assert "not installed" in str(refused(backbone.engine, "openvino"))


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "arguments", "pooling"),
    [
        ("simple_cnn", {"size": 64}, "avg"),
        ("simple_cnn", {"size": 72}, "stage:features.1"),
        ("timm:test_efficientnet", {"pad_type": "same", "size": 75}, "avg"),
        ("timm:test_vit", {}, "avg"),
        ("squeezenet", {"size": 64}, "flatten"),
    ],
)
def test_the_rows_are_those_of_torch(name, arguments, pooling):
    backbone = build(BackboneSpec(name, weights=None, arguments=arguments, pooling=pooling))
    pictures = draw(5, backbone.preprocessing.size)
    engine = backbone.engine("openvino")

    rows = engine(pictures)

    assert engine.name == "openvino"
    assert rows.dtype == np.float32
    assert relative(rows, backbone.engine("torch")(pictures)) < 1e-4
    assert np.array_equal(engine(pictures[1:3]), rows[1:3])  # a short batch, to the last bit


def test_a_compiled_network_is_kept_a_damaged_one_made_anew_and_nothing_reported_home(
    backbone, capfd
):
    pictures = draw(2, 64)
    first = backbone.engine("openvino")(pictures)
    (kept,) = (home() / "engines").iterdir()
    written = kept.stat().st_ino

    assert np.array_equal(backbone.engine("openvino")(pictures), first)
    assert kept.stat().st_ino == written  # read, not written again
    kept.write_bytes(kept.read_bytes()[:-1])
    assert np.array_equal(backbone.engine("openvino")(pictures), first)
    assert kept.stat().st_ino != written
    assert capfd.readouterr() == ("", "")
    assert sys.modules.get("openvino_telemetry") is None


class Forgetful(torch.nn.Module):
    """Computes something else than what the tracer saw."""

    size = 64

    def forward(self, pictures):
        """Return rows that depend on who looks."""
        rows = pictures.float().mean((1, 2))
        return rows * (1.0 if torch.jit.is_tracing() else 2.0)


def test_a_network_that_converts_to_something_else_runs_with_torch_and_a_note(
    backbone, monkeypatch
):
    monkeypatch.setattr(backbone, "embedder", Forgetful())

    engine = backbone.engine("auto")

    assert engine.name == "torch"
    assert "differ from torch's by" in engine.notes[0]
    assert refused(backbone.engine, "openvino").code == "BACKBONE-ENGINE"


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [
        (Preprocessing.torch(1), [(0 / 255 - 0.485) / 0.229, (51 / 255 - 0.456) / 0.224, 2.64]),
        (Preprocessing.tf(1), [-1.0, -0.6, 1.0]),
        (Preprocessing.caffe(1), [255 - 103.939, 51 - 116.779, 0 - 123.68]),
    ],
)
def test_one_pixel_becomes_the_published_numbers(preprocessing, expected):
    pixel = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)

    found = Normalise(preprocessing)(pixel).flatten()

    assert torch.allclose(found, torch.tensor(expected), atol=1e-5)
