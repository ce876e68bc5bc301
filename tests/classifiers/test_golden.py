"""Models saved by every release load for ever; see ``tests/golden``.

To add one for a new format, run this file as a script; existing ones are never written again.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from regraft.backbones import catalog
from regraft.backbones.backbone import Backbone
from regraft.backbones.loading import state_sha256
from regraft.backbones.network import Network, average, child_groups
from regraft.backbones.resolving import WeightsFacts
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.saving import load_model

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
PICTURES = [np.full((20, 20, 3), shade, dtype=np.uint8) for shade in range(0, 256, 15)]
LABELS = ["night", "dusk", "day"]


def build_golden(spec):
    """Return three filters whose numbers no random generator decides."""
    module = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh()))
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            values = torch.linspace(-1, 1, parameter.numel()) * (number + 0.1)
            parameter.copy_(values.reshape(parameter.shape))
    network = Network(
        module=module,
        last_map=module,
        pooled=average,
        groups=child_groups(module, (nn.Sequential,)),
        size=16,
    )
    return Backbone(
        spec,
        network,
        preprocessing=spec.preprocessing or Preprocessing.tf(16, mode="squash", resize=16),
        weights=WeightsFacts(sha256=state_sha256(module), licence="none", source="by hand"),
        identifier="golden",
    )


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(catalog, "_registered", {})
    catalog.register_backbone("golden", build_golden)


def named(shade):
    return LABELS[shade * 3 // 256]


@pytest.mark.parametrize("folder", sorted(GOLDEN.glob("format_*")), ids=lambda folder: folder.name)
def test_a_model_of_an_earlier_release_still_loads_and_answers(folder, registered):
    learner = load_model(folder)

    answers = learner.predict(PICTURES)

    assert learner.classes_.tolist() == ["day", "dusk", "night"]
    assert answers.tolist() == [named(shade) for shade in range(0, 256, 15)]
    expected = np.loadtxt(folder / "expected.csv", delimiter=",")
    assert learner.predict_proba(PICTURES) == pytest.approx(expected, abs=1e-5)


def test_there_is_a_golden_model_of_the_present_format():
    assert (GOLDEN / "format_1" / "model.json").is_file()


if __name__ == "__main__":
    catalog.register_backbone("golden", build_golden)
    shades = range(0, 256, 5)
    train = [np.full((20, 20, 3), shade, dtype=np.uint8) for shade in shades]
    fitted = FeatureClassifier(BackboneSpec("golden"), engine="torch", cache=None)
    fitted.fit(train, [named(shade) for shade in shades], validation=None)
    fitted.save(GOLDEN / "format_1")
    np.savetxt(
        GOLDEN / "format_1" / "expected.csv",
        fitted.predict_proba(PICTURES),
        delimiter=",",
        fmt="%.9f",
    )
