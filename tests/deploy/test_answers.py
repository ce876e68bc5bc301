"""A deployed model says unknown, or a set of classes, as it was promised."""

import numpy as np
import pytest

from regraft.deploy.answers import Answerer, Promises
from regraft.deploy.export import write_deployed
from regraft.deploy.likeness import likeness_of
from regraft.deploy.predictor import load
from regraft.errors import UsageError
from regraft.explain.neighbours import TrainingFeatures, unit_rows
from regraft.results.calibration import Calibration
from regraft.results.predictions import Predictions


@pytest.fixture(scope="module")
def learner(images, learner_of):
    return learner_of("logistic").fit(*images)


@pytest.fixture(scope="module")
def deployed(learner, images, tmp_path_factory):
    """Return a model whose validation images were told apart by the surest of three answers."""
    shown, names = images
    with learner.recording() as blocks:
        shares = learner.predict_proba(shown)
    features = np.concatenate(blocks)
    classes, paths = ("dark", "grey", "light"), tuple(map(str, range(30)))
    held = Predictions(paths, tuple(names), classes, shares, ("val",) * 30)
    training = TrainingFeatures(unit_rows(features).astype(np.float16), paths, tuple(names))
    likeness = likeness_of(
        training,
        classes,
        held=features,
        tested=(features, names),
        seen=False,
        images=["data:image/png;base64,AAAA"] * 30,
    )
    folder = tmp_path_factory.mktemp("answers") / "deploy"
    write_deployed(
        learner,
        folder,
        shown,
        calibration=Calibration.of(held),
        likeness=likeness,
        training=training,
    )
    return load(folder)


def answers_of(model, images, **promises):
    return Answerer(model, Promises(**promises), top=3)(images)


def test_without_a_promise_there_are_classes_alone(deployed, images):
    answers = answers_of(deployed, images[0][:2])

    assert [[*answer] for answer in answers] == [["top"], ["top"]]
    assert answers_of(deployed, []) == []


def test_an_answer_less_sure_than_the_threshold_is_unknown(deployed, images):
    answers = answers_of(deployed, images[0], abstain_error=0.4)

    least = deployed.record.calibration.threshold(0.4)
    sure = deployed.predict_proba(images[0]).max(axis=1) >= least
    assert [answer["unknown"] for answer in answers] == (~sure).tolist()
    assert all("sure" in answer["why"] for answer in answers if answer["unknown"])


def test_a_set_holds_what_is_probable_enough(deployed, images):
    answers = answers_of(deployed, images[0], coverage=0.9)

    sets = deployed.record.calibration.sets(deployed.predict_proba(images[0]), 0.9)
    expected = [deployed.classes_[row].tolist() for row in sets]
    assert [answer["labels"] for answer in answers] == expected


def test_what_is_unlike_all_that_was_learned_is_unknown(deployed, images):
    noise = np.random.default_rng(0).choice([0, 255], (60, 60, 3)).astype(np.uint8)
    colours = np.zeros((60, 60, 3), np.uint8)
    colours[:, ::2, 0] = 255

    answers = answers_of(deployed, [noise, colours, images[0][0]], unlike=0.1)

    assert [answer["unknown"] for answer in answers] == [True, True, False]
    assert answers[0]["distance"] > answers[2]["distance"]
    assert "unlike what was learned" in answers[0]["why"]


def test_the_nearest_training_images_stand_beside_an_answer(deployed, images):
    (answer,) = answers_of(deployed, images[0][4:5], nearest=2)

    assert [one["label"] for one in answer["nearest"]][:1] == [images[1][4]]
    assert answer["nearest"][0]["distance"] == pytest.approx(0, abs=1e-3)
    assert answer["nearest"][0]["image"].startswith("data:image/png")


def test_every_promise_is_told_with_what_it_rests_on(deployed):
    promises = Promises(abstain_error=0.4, coverage=0.9, each_class=True, unlike=0.1)

    told = Answerer(deployed, promises, top=1).told

    assert len(told) == 3
    assert "at most 40.0 % are wrong, by 30 validation images" in told[0]
    assert "90.0 % of each class" in told[1]
    assert "10.0 % of the images of known classes" in told[2]


def test_a_model_without_validation_images_promises_nothing(learner, images, tmp_path):
    write_deployed(learner, tmp_path / "deploy", images[0])
    model = load(tmp_path / "deploy")

    for promises in (Promises(coverage=0.9), Promises(abstain_error=0.1), Promises(unlike=0.1)):
        with pytest.raises(UsageError, match=r"exported with no (validation|training) images"):
            Answerer(model, promises, top=1)
    with pytest.raises(UsageError, match="goes with --coverage"):
        Answerer(model, Promises(each_class=True), top=1)
