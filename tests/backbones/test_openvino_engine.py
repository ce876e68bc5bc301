"""OpenVINO stands in for torch without anybody noticing, or not at all."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from regraft.backbones.backbone import build
from regraft.backbones.spec import BackboneSpec
from regraft.errors import BackboneError
from regraft.files import home

pytest.importorskip("openvino", reason="needs openvino")


def draw(count, size):
    shape = (count, size, size, 3)
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


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


def test_bf16_is_close_and_says_so():
    backbone = build(BackboneSpec("simple_cnn", weights=None, arguments={"size": 64}))
    pictures = draw(3, 64)
    engine = backbone.engine("openvino", "bf16")

    assert relative(engine(pictures), backbone.engine("torch")(pictures)) < 0.1
    assert engine.precision == "bf16" or "no bf16" in engine.notes[0]


def test_a_compiled_network_is_kept_and_a_damaged_one_is_made_anew():
    backbone = build(BackboneSpec("simple_cnn", weights=None, arguments={"size": 64}))
    pictures = draw(2, 64)
    first = backbone.engine("openvino")(pictures)
    (kept,) = (home() / "engines").iterdir()
    written = kept.stat().st_ino

    assert np.array_equal(backbone.engine("openvino")(pictures), first)
    assert kept.stat().st_ino == written  # read, not written again
    kept.write_bytes(kept.read_bytes()[:-1])
    assert np.array_equal(backbone.engine("openvino")(pictures), first)
    assert kept.stat().st_ino != written


def test_a_network_that_cannot_be_kept_computes_all_the_same(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("REGRAFT_HOME", str(tmp_path / "file" / "below"))
    backbone = build(BackboneSpec("simple_cnn", weights=None, arguments={"size": 48}))

    engine = backbone.engine("openvino")

    assert engine.name == "openvino"
    assert engine(draw(2, 48)).shape == (2, backbone.feature_dim)


def test_threads_can_share_an_engine():
    backbone = build(BackboneSpec("simple_cnn", weights=None, arguments={"size": 64}))
    engine = backbone.engine("openvino")
    batches = [draw(4, 64)[i:] for i in range(3)] * 4
    expected = [engine(batch) for batch in batches]
    found = [None] * len(batches)

    def work(index):
        found[index] = engine(batches[index])

    workers = [threading.Thread(target=work, args=(index,)) for index in range(len(batches))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


class Forgetful(torch.nn.Module):
    """Computes something else than what the tracer saw."""

    def forward(self, pictures):
        """Return rows that depend on who looks."""
        rows = pictures.float().mean((1, 2))
        return rows * (1.0 if torch.jit.is_tracing() else 2.0)


def test_a_network_that_converts_to_something_else_runs_with_torch_and_a_note(monkeypatch):
    backbone = build(BackboneSpec("simple_cnn", weights=None, arguments={"size": 64}))
    monkeypatch.setattr(backbone, "embedder", Forgetful())

    engine = backbone.engine("auto")

    assert engine.name == "torch"
    assert "differ from torch's by" in engine.notes[0]
    with pytest.raises(BackboneError) as caught:
        backbone.engine("openvino")
    assert caught.value.code == "BACKBONE-ENGINE"


def test_nothing_is_reported_home_and_nothing_is_printed(tmp_path):
    code = (
        "import sys, warnings; warnings.simplefilter('error');"
        "from regraft.backbones.backbone import build;"
        "from regraft.backbones.spec import BackboneSpec;"
        "import numpy as np;"
        "backbone = build(BackboneSpec('simple_cnn', weights=None, arguments={'size': 64}));"
        "backbone.engine('openvino')(np.zeros((1, 64, 64, 3), np.uint8));"
        "sys.exit('openvino_telemetry' in sys.modules)"
    )
    surroundings = {**os.environ, "HOME": str(tmp_path), "CI": ""}

    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        check=False,
        capture_output=True,
        env=surroundings,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert not (tmp_path / "intel").exists()
