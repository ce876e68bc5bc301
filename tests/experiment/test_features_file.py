"""A file of features is learned from without its images, a network or torch."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from regraft.backbones.spec import BackboneSpec, Compute
from regraft.data.synthetic import make_flowers
from regraft.errors import UsageError
from regraft.experiment.config import DataConfig, MethodConfig, RunConfig
from regraft.experiment.features_file import fit_features
from regraft.experiment.run import extract_features, fit_run
from regraft.features.extractor import FeatureExtractor
from regraft.results.run import Run

NETWORK = {"backbone": "simple_cnn", "arguments": {"size": 48}, "weights": "random"}
TORCHLESS = """
import sys
from regraft.cli import main
sys.argv = ["regraft", "fit", *sys.argv[1:]]
try:
    main()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a run on images, and the file of their features; the images are gone."""
    place = tmp_path_factory.mktemp("features")
    images = place / "photos"
    make_flowers(images, species=3, per_class=12)
    data, method = DataConfig(images), MethodConfig(classifier="knn", engine="torch", **NETWORK)
    run = fit_run(RunConfig(data, method), out=place / "run")
    compute = Compute(engine="torch", cache=None)
    spec = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
    extract_features(data, FeatureExtractor(spec, compute=compute), place / "photos.h5")
    images.rename(place / "away")
    return run, place / "photos.h5"


def test_it_says_what_a_run_on_the_images_says(made, tmp_path):
    run, file = made

    again = fit_features(
        RunConfig(DataConfig(file), MethodConfig(classifier="knn")), out=tmp_path / "again"
    )

    assert again.split_hash == run.split_hash
    assert again.predictions.paths == run.predictions.paths
    assert again.predictions.probabilities == pytest.approx(run.predictions.probabilities, abs=1e-6)
    assert again.description == "simple_cnn + knn"
    assert again.record.data.root_name == "photos"
    assert any("no model is kept" in warning for warning in again.record.warnings)
    assert not (again.folder / "model").exists()
    assert (again.folder / "report.html").is_file()


def test_torch_is_not_imported_and_no_network_is_named(made, tmp_path):
    _, file = made
    typed = [file, "--classifier", "knn", "--per-class", "4", "--out", tmp_path / "run", "--json"]

    done = subprocess.run(
        [sys.executable, "-c", TORCHLESS, *map(str, typed)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr == "False\n"
    assert json.loads(done.stdout)["train"]["n"] == 12
    assert Run.open(tmp_path / "run").description == "simple_cnn + knn, 4 per class"


def test_a_foreign_file_is_split_by_its_rows(tmp_path):
    rows = np.random.default_rng(0).random((40, 8), np.float32) + np.repeat([[0], [3]], 20, axis=0)
    rows[1] = rows[0]
    with h5py.File(tmp_path / "theirs.hdf5", "w") as file:
        file["features"], file["labels"] = rows, np.repeat([0, 1], 20)
        file["label_names"] = [b"cat", b"dog"]

    run = fit_run(RunConfig(DataConfig(tmp_path / "theirs.hdf5")), out=tmp_path / "run")

    part = dict(zip(run.predictions.paths, run.predictions.parts, strict=True))
    assert part["row-0"] == part["row-1"]  # copies
    assert run.description == "theirs + logistic"
    assert run.metrics["test"]["accuracy"].value == 1


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"strategy": "frozen"}, "frozen trains a network on images.*features alone"),
        ({"pooling": "flatten"}, "pooling does nothing with a file of features"),
        ({"backbone": "vgg16"}, "backbone does nothing"),
    ],
)
def test_what_needs_images_or_a_network_is_refused_with_the_reason(made, tmp_path, method, said):
    with pytest.raises(UsageError, match=said):
        fit_run(RunConfig(DataConfig(made[1]), MethodConfig(**method)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
