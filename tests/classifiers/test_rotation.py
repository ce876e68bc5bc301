"""The rotation into the span of the rows changes nothing but the time; scalings are exact."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from regraft.classifiers.rotation import SCALES, can_rotate, fit_scaling, rotate
from regraft.classifiers.shallow import fit_shallow
from samples import refused


def drawn(count=300, width=2000, classes=5):
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    centres = random.normal(size=(classes, width)) * 0.05
    features = centres[labels] + random.normal(size=(count, width))
    return (features / np.sqrt(width)).astype(np.float32), labels


@pytest.mark.parametrize(
    "classifier", [LogisticRegression(max_iter=1000), LinearSVC(max_iter=10_000, random_state=0)]
)
def test_the_grid_is_the_one_of_scikit_learn_on_the_raw_matrix(classifier):
    features, labels = drawn()
    grid = {"C": [0.1, 1.0, 10.0]}
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    raw = GridSearchCV(classifier, grid, cv=folds).fit(features.astype(np.float64), labels)

    ours = fit_shallow(features.copy(), labels, classifier=classifier, grid=grid, scale="none")

    assert ours.history["rotated"]
    assert [round(p["mean"], 4) for p in ours.history["grid"]] == [
        round(mean, 4) for mean in raw.cv_results_["mean_test_score"]
    ]
    assert ours.history["best"] == raw.best_params_
    asked, _ = drawn(count=301)
    assert np.array_equal(ours.predict_proba(asked).argmax(axis=1), raw.predict(asked))


def test_coefficients_come_back_as_scikit_learn_finds_them():
    features, labels = drawn(count=60, width=400)
    raw = LogisticRegression(tol=1e-8, max_iter=1000).fit(features.astype(np.float64), labels)
    rotation = rotate(features)
    turned = LogisticRegression(tol=1e-8, max_iter=1000).fit(rotation.coordinates, labels)

    rotation.turn_back(turned, features)

    assert turned.coef_ == pytest.approx(raw.coef_, abs=1e-4)
    assert turned.intercept_ == pytest.approx(raw.intercept_, abs=1e-4)
    assert turned.predict(features).tolist() == raw.predict(features).tolist()


def test_inner_products_survive_and_equal_rows_do_no_harm():
    features, _ = drawn(count=20, width=90)
    features[10:] = features[:10]

    rotation = rotate(features)

    wide = features.astype(np.float64)
    assert rotation.coordinates.shape == (20, 10)
    assert rotate(np.zeros((3, 9), np.float32)).coordinates.shape == (3, 0)
    assert rotation.coordinates @ rotation.coordinates.T == pytest.approx(wide @ wide.T, abs=1e-9)


@pytest.mark.parametrize(
    ("classifier", "yes"),
    [
        *((one, True) for one in (LogisticRegression(), LinearSVC(), RidgeClassifier())),
        (LogisticRegression(solver="saga"), False),
        (LogisticRegression(l1_ratio=0.5, solver="saga"), False),
        (LogisticRegression(C=np.inf), False),
        (LinearSVC(penalty="l1"), False),
        (RidgeClassifier(positive=True), False),
        (SGDClassifier(), False),
    ],
    ids=repr,
)
def test_only_what_a_rotation_leaves_unchanged_is_rotated(classifier, yes):
    assert can_rotate(classifier) is yes


FEATURES = np.random.default_rng(0).normal(3.0, 2.0, size=(40, 6)).astype(np.float32)


def test_columns_is_the_standard_scaler():
    scaled = fit_scaling("columns", FEATURES).apply(FEATURES)

    expected = StandardScaler().fit_transform(FEATURES.astype(np.float64))
    assert scaled == pytest.approx(expected, abs=1e-5)


def test_unit_centres_and_makes_the_mean_square_length_one():
    scaled = fit_scaling("unit", FEATURES).apply(FEATURES)

    assert scaled.mean(axis=0) == pytest.approx(np.zeros(6), abs=1e-6)
    assert (scaled**2).sum(axis=1).mean() == pytest.approx(1.0, abs=1e-5)


def test_principal_keeps_distances_when_nothing_is_cut_off():
    scaling = fit_scaling("principal", FEATURES)

    turned, unit = scaling.apply(FEATURES), fit_scaling("unit", FEATURES).apply(FEATURES)

    assert turned @ turned.T == pytest.approx(unit @ unit.T, abs=1e-5)
    wide = np.random.default_rng(0).normal(size=(100, 300)).astype(np.float32)
    assert fit_scaling("principal", wide).apply(wide).shape == (100, 64)
    assert "unknown scale 'rows'" in str(refused(fit_scaling, "rows", wide))


@pytest.mark.parametrize("name", SCALES)
def test_a_constant_column_and_equal_rows_stay_finite(name):
    same = np.full((5, 3), 7.1, dtype=np.float32)
    constant = np.where([True, False, False], 7.1, FEATURES[:, :3]).astype(np.float32)

    for features in (same, constant):
        assert np.isfinite(fit_scaling(name, features).apply(features)).all()


@pytest.mark.parametrize("name", ["unit", "columns"])
def test_scaling_in_place_gives_the_same_numbers(name):
    features = FEATURES.copy()
    scaling = fit_scaling(name, features)
    expected = scaling.apply(FEATURES)

    scaled = scaling.apply(features, out=features)

    assert scaled is features
    assert np.array_equal(scaled, expected)
