"""Drawn flowers: the same every time, different from each other, and not told apart by colour."""

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from regraft.data.dataset import Dataset
from regraft.data.synthetic import make_flowers
from regraft.errors import UsageError


def test_a_seed_gives_the_same_files(tmp_path):
    first = make_flowers(tmp_path / "a", per_class=2, size=48, seed=3)
    again = make_flowers(tmp_path / "b", per_class=2, size=48, seed=3)
    other = make_flowers(tmp_path / "c", per_class=2, size=48, seed=4)

    assert again.hashes() == first.hashes()
    assert not set(other.hashes()) & set(first.hashes())


def test_the_folder_is_a_data_set_like_any_other(tmp_path):
    drawn = make_flowers(tmp_path, species=3, per_class=4, size=40)

    assert Dataset.from_folder(tmp_path) == drawn
    assert set(drawn.counts().values()) == {4}
    assert len(set(drawn.hashes())) == 12
    with Image.open(drawn.paths[0]) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (40, 40))


def test_colour_alone_does_not_tell_the_species_apart(tmp_path):
    data = make_flowers(tmp_path, per_class=60, size=48)
    histograms = np.sqrt(
        [
            np.histogramdd(np.asarray(Image.open(path)).reshape(-1, 3), 6)[0].ravel() / 48**2
            for path in data.paths
        ]
    )
    names = np.array(data.labels)
    seen = np.arange(len(names)) % 60 < 40

    model = LogisticRegression(C=10, max_iter=500).fit(histograms[seen], names[seen])

    assert len(data.classes) == 6
    assert model.score(histograms[~seen], names[~seen]) < 0.5


@pytest.mark.parametrize("options", [{"species": 1}, {"species": 7}, {"per_class": 0}, {"size": 8}])
def test_arguments_out_of_range_are_refused(tmp_path, options):
    with pytest.raises(UsageError):
        make_flowers(tmp_path, **options)
