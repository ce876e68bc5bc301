"""A fitted model as a program of torch gives the same probabilities, and refuses what it cannot."""

import json
import subprocess
import sys

import numpy as np
import pytest

from regraft.backbones.spec import BackboneSpec
from regraft.deploy.torch_program import write_program
from regraft.errors import ModelError

# One of Regraft's own, one of torchvision's, whose map is taken on the way, and one of timm's.
NETWORKS = ("simple_cnn", "squeezenet", "mobilenet_v4_small")


@pytest.mark.parametrize("network", NETWORKS)
def test_a_program_answers_as_the_model_and_leaves_the_former_head_behind(
    network, images, learner_of, tmp_path
):
    spec = BackboneSpec(network, weights=None, arguments=(("size", 64),))
    learner = learner_of("logistic", spec, grid=None).fit(*images)
    before = learner.predict_proba(images[0])

    agreement = write_program(
        learner, tmp_path / "model.pt2", images[0], provenance={"run": "shades"}
    )

    assert (agreement.images, agreement.changed) == (30, 0)
    assert (learner.predict_proba(images[0]) == before).all()
    weights = learner.backbone_.parameters * 4
    assert weights < (tmp_path / "model.pt2").stat().st_size < weights + 1_000_000


@pytest.mark.parametrize("kind", ["knn", "network"])
def test_neighbours_and_trained_networks_have_a_program_too(kind, images, learner_of, tmp_path):
    learner = learner_of(kind).fit(*images)

    agreement = write_program(learner, tmp_path / "model.pt2", images[0])

    assert (agreement.images, agreement.changed) == (30, 0)


def test_a_program_runs_without_regraft_on_any_number_of_views(images, learner_of, tmp_path):
    learner = learner_of("logistic").fit(*images)
    write_program(learner, tmp_path / "model.pt2", images[0])
    code = f"""
import sys
sys.modules.update(dict.fromkeys(["regraft", "timm", "sklearn"]))
import torch
facts = {{"regraft.json": ""}}
program = torch.export.load({str(tmp_path / "model.pt2")!r}, extra_files=facts).module()
print([tuple(program(torch.zeros(n, 48, 48, 3, dtype=torch.uint8)).shape) for n in (1, 5)])
print(facts["regraft.json"])
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    shapes, facts = done.stdout.splitlines()
    assert shapes == "[(1, 3), (5, 3)]"
    assert json.loads(facts)["labels"] == ["dark", "grey", "light"]
    assert json.loads(facts)["preprocessing"]["size"] == 48


def test_a_forest_has_no_program_and_that_is_said(images, learner_of, tmp_path):
    learner = learner_of("random_forest").fit(*images)

    with pytest.raises(ModelError, match="only linear classifiers and k-NN do") as refused:
        write_program(learner, tmp_path / "model.pt2", images[0])

    assert refused.value.code == "MODEL-UNSAVEABLE"
    assert not (tmp_path / "model.pt2").exists()


def test_a_program_that_answers_otherwise_is_not_written(images, learner_of, tmp_path, monkeypatch):
    learner = learner_of("logistic").fit(*images)
    monkeypatch.setattr(
        learner, "predict_proba", lambda shown: np.full((len(shown), 3), 1 / 3), raising=True
    )

    with pytest.raises(ModelError, match="would answer differently"):
        write_program(learner, tmp_path / "model.pt2", images[0])

    assert not (tmp_path / "model.pt2").exists()
