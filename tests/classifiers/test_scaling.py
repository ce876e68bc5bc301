"""Scalings of features."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from regraft.classifiers.scaling import SCALES, Scaling, fit_scaling
from regraft.errors import UsageError

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


def test_principal_keeps_at_most_64_columns():
    wide = np.random.default_rng(0).normal(size=(100, 300)).astype(np.float32)

    scaling = fit_scaling("principal", wide)

    assert scaling.width(300) == 64
    assert scaling.apply(wide).shape == (100, 64)


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


@pytest.mark.parametrize("name", SCALES)
def test_arrays_that_do_not_fit_are_found(name):
    scaling = fit_scaling(name, FEATURES)
    more = {**scaling.arrays, "more": np.zeros(6, np.float32)}

    assert scaling.problem(6) == ""
    assert Scaling(name, more).problem(6)
    assert Scaling("other", scaling.arrays).problem(6)
    assert name == "none" or scaling.problem(7)


def test_a_divisor_of_zero_is_found():
    arrays = {"mean": np.zeros(2, np.float32), "divisor": np.zeros(2, np.float32)}

    assert "divisor" in Scaling("unit", arrays).problem(2)


def test_an_unknown_scale_is_refused_with_the_known_ones():
    with pytest.raises(UsageError) as refused:
        fit_scaling("rows", FEATURES)

    assert "columns" in refused.value.hint
