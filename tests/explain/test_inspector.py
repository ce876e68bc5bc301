"""What a run keeps to explain itself, and that it is what the fitted network says."""

import csv

import numpy as np
import pytest

from regraft.classifiers.network_classifier import load_model
from regraft.explain.inspector import ERRORS
from regraft.explain.maps import class_maps
from regraft.report.gallery import choose
from regraft.results.inspection import FOLDER, Inspection


@pytest.fixture(scope="module")
def kept(explained):
    return Inspection.read(explained.folder)


def wrong(run):
    p = run.predictions.part("test")
    return p.take(np.flatnonzero(~p.correct))


def test_every_image_that_the_page_shows_has_three_neighbours_from_the_training_part(
    explained, kept
):
    p = explained.predictions.part("test")
    learned = set(explained.predictions.part("train").paths)

    shown = {p.paths[i] for i in choose(p).all}

    assert set(kept.images) == shown
    for image in kept.images.values():
        assert len(image.nearest) == 3
        assert all(one.path in learned for one in image.nearest)
        distances = [one.distance for one in image.nearest]
        assert distances == sorted(distances)
        assert 0 <= distances[0] <= 2


def test_wrong_images_have_a_map_for_each_of_the_two_classes_and_what_the_network_saw(
    explained, kept
):
    for path, true, predicted in zip(
        wrong(explained).paths, wrong(explained).truth, wrong(explained).predicted, strict=True
    ):
        image = kept.images[path]

        assert list(image.maps) == [predicted, true]
        assert image.view.startswith("data:image/jpeg;base64,")
        assert all(one.startswith("data:image/png;base64,") for one in image.maps.values())


def test_the_maps_are_those_of_the_fitted_network(explained, kept, flowers):
    from regraft.explain.inspector import overlay

    first = wrong(explained).take([0])
    learner = load_model(explained.folder / "model")

    again = class_maps(learner, [flowers / first.paths[0]], first.predicted)

    assert kept.images[first.paths[0]].maps[first.predicted[0]] == overlay(again[0])


def test_errors_stand_in_a_table_the_most_confident_first(explained):
    with (explained.folder / ERRORS).open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert {row["path"] for row in rows} == set(wrong(explained).paths)
    confidences = [float(row["confidence"]) for row in rows]
    assert confidences == sorted(confidences, reverse=True)
    assert all(row["true"] != row["predicted"] and row["nearest_3"] for row in rows)


def test_the_map_of_the_data_has_every_test_image_and_the_sheet_its_neighbours_too(explained, kept):
    test = explained.predictions.part("test").paths

    assert sorted(kept.points) == sorted(test)
    assert set(kept.projections) >= {"PCA", "t-SNE"}
    assert all(len(places) == len(test) for places in kept.projections.values())
    beside = {one.path for image in kept.images.values() for one in image.nearest}
    assert set(kept.sheet_paths) == {*test, *beside}


def test_the_same_run_explains_itself_the_same(explained, kept, fit):
    again = Inspection.read(fit(strategy="frozen", epochs=1, test_views=2).folder)

    assert again == kept


def test_a_run_that_shall_not_explain_keeps_nothing_of_it(fit):
    run = fit(explain=False)

    assert Inspection.read(run.folder) is None
    assert not (run.folder / FOLDER).exists()
    assert not (run.folder / ERRORS).exists()
    page = (run.folder / "report.html").read_text()
    assert "<script" not in page
    assert "Map of the data" not in page


def test_without_a_gradient_or_rows_to_keep_the_rest_is_there_and_the_page_says_why(fit):
    run = fit(classifier="knn", pooling="flatten")
    kept = Inspection.read(run.folder)

    assert not any(image.maps or image.nearest for image in kept.images.values())
    assert (kept.points, kept.sheet, kept.projections) == ((), "", {})
    assert "has no gradient" in (run.folder / "report.html").read_text()
