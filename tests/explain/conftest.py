"""A run that explains itself, on drawn flowers and with a small network."""

import dataclasses

import pytest

from regraft.data.synthetic import make_flowers
from regraft.experiment.config import DataConfig, MethodConfig, RunConfig
from regraft.experiment.run import fit_run

SMALL = MethodConfig(backbone="simple_cnn", weights="random", arguments={"size": 48})


@pytest.fixture(scope="package")
def flowers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain") / "flowers"
    make_flowers(folder, species=3, per_class=12, size=48)
    return folder


@pytest.fixture(scope="package")
def fit(flowers, tmp_path_factory):
    """Return a function that fits a run with some settings."""

    def fit(**settings):
        config = RunConfig(DataConfig(flowers), dataclasses.replace(SMALL, **settings))
        return fit_run(config, out=tmp_path_factory.mktemp("run") / "run")

    return fit


@pytest.fixture(scope="package")
def explained(fit):
    """Return a run of a new head on a frozen network, whose test images it predicts by two views.

    Its classes are hard to tell apart for random weights, so that there are wrong images.
    """
    return fit(strategy="frozen", epochs=1, test_views=2)
