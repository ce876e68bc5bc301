"""What a run starts from: nothing that is tested on now was learned before."""

import shutil

import pytest
from regraft.experiment.preparation import DataPlan
from regraft.experiment.runner import fit_run

from regraft import BackboneSpec
from regraft.backbones.spec import Compute
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.data.synthetic import make_flowers
from regraft.errors import RunError
from regraft.training.phases import frozen

SPEC = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))


def fitted(flowers, out, *, start=None, **plan):
    learner = NetworkClassifier(
        SPEC,
        phases=frozen(1),
        start=start,
        compute=Compute(engine="torch", cache=None, device="cpu"),
    )
    return fit_run(DataPlan(flowers, **plan), learner, out=out)


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return make_flowers(tmp_path_factory.mktemp("flowers"), species=2, per_class=8, size=48).root


@pytest.fixture(scope="module")
def first(flowers, tmp_path_factory):
    return fitted(flowers, tmp_path_factory.mktemp("runs") / "first").folder


@pytest.mark.parametrize("place", [".", "model"])
def test_a_run_that_learned_test_pictures_is_no_start(flowers, first, tmp_path, place):
    with pytest.raises(RunError, match=r"test pictures? w.*learned by the run to.*same seed") as no:
        fitted(flowers, tmp_path / "on", start=first / place, seed=1)

    assert (no.value.code, no.value.path) == ("START-LEAK", str(first))
    assert not (tmp_path / "on" / "run.json").exists()


def test_what_an_earlier_run_of_the_chain_has_learned_is_found_too(flowers, first, tmp_path):
    others = make_flowers(tmp_path / "others", species=2, per_class=8, size=48, seed=5).root
    between = fitted(others, tmp_path / "between", start=first).folder

    with pytest.raises(RunError) as no:
        fitted(flowers, tmp_path / "on", start=between, seed=1)

    assert (no.value.code, no.value.path) == ("START-LEAK", str(first))


def test_the_chain_is_followed_below_the_home_folder(flowers, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    earlier = fitted(flowers, tmp_path / "first").folder
    others = make_flowers(tmp_path / "others", species=2, per_class=8, size=48, seed=5).root
    between = fitted(others, tmp_path / "between", start=earlier).folder

    with pytest.raises(RunError) as no:
        fitted(flowers, tmp_path / "on", start=between, seed=1)

    assert no.value.code == "START-LEAK"


def test_pictures_are_known_by_their_content_wherever_they_lie(flowers, first, tmp_path):
    shutil.copytree(flowers, tmp_path / "moved")

    with pytest.raises(RunError, match="learned by the run to start from"):
        fitted(tmp_path / "moved", tmp_path / "on", start=first, seed=1)


def test_a_run_on_the_same_split_is_a_start(flowers, first, tmp_path):
    assert fitted(flowers, tmp_path / "on", start=first).metrics["test"]["n"] == 4
