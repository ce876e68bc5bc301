"""A trained network answers the same on the way of its last phase, live, and after it was saved."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from regraft.training.using import Predictor

from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.classifiers.saving import load_model
from regraft.errors import ImageError, RegraftError
from regraft.training.activations import Keeper
from regraft.training.network import TransferNetwork
from regraft.training.phases import Phase

SMALL = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
RANDOM = np.random.default_rng(0)
PICTURES = list(RANDOM.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8))
OTHERS = list(RANDOM.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8))
LABELS = ["a", "b", "c"] * 4
PHASES = {
    "behind the trunk": [Phase(epochs=2, lr=0.01)],
    "in the middle": [Phase(unfreeze=0.5, epochs=2, lr=0.01)],
    "live": [Phase(unfreeze=1.0, epochs=2, lr=0.01)],
}


def fitted(way, **changes):
    chosen = {"device": "cpu", "engine": "torch", "batch_size": 4, **changes}
    how = {name: chosen.pop(name) for name in Compute.__dataclass_fields__ if name in chosen}
    learner = NetworkClassifier(SMALL, phases=PHASES[way], compute=Compute(**how), **chosen)
    return learner.fit(PICTURES, LABELS)


@pytest.fixture(scope="module", params=PHASES)
def trained(request, tmp_path_factory):
    return fitted(request.param, cache=tmp_path_factory.mktemp("cache"))


def live(learner, pictures=OTHERS):
    """Return probabilities of the whole network, straight from the module."""
    squares = torch.from_numpy(np.stack(pictures))
    with torch.inference_mode():
        return learner.network_.eval()(squares).double().softmax(1).numpy()


def test_probabilities_are_those_of_the_whole_network(trained):
    found = trained.predict_proba(OTHERS)

    kept = (trained.history_["phases"][-1]["boundary"] or {}).get("dtype", "float32")
    assert np.abs(found - live(trained)).max() < (1e-6 if kept == "float32" else 2e-3)
    assert found.dtype == np.float64
    assert found.sum(1) == pytest.approx(1.0, abs=1e-12)


def test_asking_twice_gives_the_same_bits_and_changes_nothing(trained):
    before = {n: t.clone() for n, t in trained.network_.state_dict().items()}

    first, again = trained.predict_proba(OTHERS), trained.predict_proba(OTHERS)

    assert np.array_equal(first, again)
    assert all(torch.equal(t, before[n]) for n, t in trained.network_.state_dict().items())
    assert not any(part.training for part in trained.network_.modules())


def test_the_order_of_pictures_is_that_of_the_answers(trained):
    order = np.array([5, 0, 8, 5])

    some = trained.predict_proba([OTHERS[i] for i in order])

    assert np.abs(some - trained.predict_proba(OTHERS)[order]).max() < 1e-6


def test_statistics_say_how_many_pictures_passed(trained):
    new = [np.full((32, 32, 3), shade, np.uint8) for shade in range(0, 250, 50)]

    trained.predict_proba(new)

    assert (trained.embedding_stats_.images, trained.embedding_stats_.embedded) == (5, 5)
    assert trained.embedding_stats_.seconds >= 0


def test_no_pictures_have_no_answers(trained):
    assert trained.predict_proba([]).shape == (0, 3)
    assert trained.embedding_stats_.images == 0


def test_a_picture_that_cannot_be_read_is_named(trained, tmp_path):
    with pytest.raises(ImageError, match=r"missing\.png"):
        trained.predict_proba([OTHERS[0], tmp_path / "missing.png"])


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("way", PHASES)
def test_a_saved_model_answers_with_the_same_bits(way, output, tmp_path):
    labels = ["a", "b"] * 6 if output == "sigmoid" else LABELS
    learner = NetworkClassifier(
        SMALL,
        phases=PHASES[way],
        output=output,
        compute=Compute(device="cpu", engine="torch"),
        head="mlp_256",
    )
    learner.fit(PICTURES, labels).save(tmp_path / "model")

    loaded = load_model(tmp_path / "model")

    wanted = learner.predict_proba(OTHERS)
    assert np.array_equal(loaded.predict_proba(OTHERS), wanted)
    assert loaded.embedding_stats_.embedded == 9 * (way != "behind the trunk")  # the common cache
    assert loaded.classes_.tolist() == learner.classes_.tolist()
    assert loaded.history_ == learner.history_


def test_a_loaded_model_keeps_large_activations_to_itself(tmp_path, private_home):
    fitted("in the middle").save(tmp_path / "model")

    load_model(tmp_path / "model").predict_proba(OTHERS)

    assert not list((private_home / "features").rglob("*.npy"))


def test_a_copy_of_the_weights_in_the_whole_network_answers_the_same():
    learner = fitted("in the middle", boundary="float32")
    before = learner.predict_proba(OTHERS)

    whole = copy.deepcopy(learner.network_)

    with torch.inference_mode():
        found = whole(torch.from_numpy(np.stack(OTHERS))).double().softmax(1).numpy()
    assert np.abs(found - before).max() < 1e-6


def test_a_picture_beyond_float16_is_answered_from_float32(monkeypatch):
    learner = fitted("in the middle")
    keeper = learner._predictor.keeper
    assert keeper.stored == "float16"
    engine = keeper.built_engine

    def run(pictures):
        rows = engine(pictures)
        rows[:, 0] = 70_000.0
        return rows

    run.name, run.precision, run.notes = engine.name, engine.precision, engine.notes
    monkeypatch.setattr(Keeper, "built_engine", property(lambda _keeper: run))
    learner._predictor = replace(learner._predictor, keeper=replace(keeper))

    found = learner.predict_proba(OTHERS)

    assert np.isfinite(found).all()
    assert found.sum(1) == pytest.approx(1.0)


def test_pictures_too_many_for_the_memory_are_answered_in_parts(monkeypatch):
    learner = fitted("live", batch_size=8)
    together = learner.predict_proba(OTHERS)
    forward = TransferNetwork.forward

    def greedy(self, pictures):
        if len(pictures) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, pictures)

    monkeypatch.setattr(TransferNetwork, "forward", greedy)

    assert np.abs(learner.predict_proba(OTHERS) - together).max() < 1e-6


def test_a_history_without_phases_is_run_live():
    learner = NetworkClassifier(SMALL, phases=[], compute=Compute(device="cpu")).fit(
        PICTURES, LABELS
    )

    assert learner._predictor.keeper is None
    assert np.allclose(learner.predict_proba(OTHERS), live(learner), atol=1e-6)


def test_a_history_of_another_network_is_refused():
    learner = fitted("in the middle")
    history = copy.deepcopy(learner.history_)
    history["phases"][-1]["boundary"]["stage"] = "nowhere"

    with pytest.raises(RegraftError, match="no such boundary"):
        Predictor.from_history(
            learner.network_,
            learner.backbone_,
            history,
            device="cpu",
            precision="fp32",
            engine="torch",
            cache=learner._options().cache,
            workspace=learner._options().workspace,
            batch_size=4,
            decoding=learner.compute.decoding,
            verbose=False,
        )


def test_bfloat16_arithmetic_answers_nearly_the_same():
    exact, quick = (fitted("live", precision=precision) for precision in ("fp32", "bf16"))

    assert np.abs(exact.predict_proba(OTHERS) - quick.predict_proba(OTHERS)).max() < 0.1
