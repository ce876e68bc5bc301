"""Drawn flowers: the same every time, different from each other, and not told apart by colour."""

import numpy as np
import pytest
from PIL import Image
from regraft.data.drawn import SPECIES, draw_flower, make_flowers
from sklearn.linear_model import LogisticRegression

from regraft.data.dataset import Dataset
from regraft.errors import UsageError


def test_a_seed_gives_the_same_files(tmp_path):
    first = make_flowers(tmp_path / "a", per_class=2, size=48, seed=3)
    again = make_flowers(tmp_path / "b", per_class=2, size=48, seed=3)
    other = make_flowers(tmp_path / "c", per_class=2, size=48, seed=4)

    assert again.hashes() == first.hashes()
    assert not set(other.hashes()) & set(first.hashes())


def test_more_pictures_leave_the_first_ones_as_they_are(tmp_path):
    few = make_flowers(tmp_path / "few", per_class=1, size=32)
    many = make_flowers(tmp_path / "many", per_class=2, size=32)

    assert set(few.hashes()) < set(many.hashes())


def test_the_folder_is_a_data_set_like_any_other(tmp_path):
    drawn = make_flowers(tmp_path, species=3, per_class=4, size=40)

    assert Dataset.from_folder(tmp_path) == drawn
    assert set(drawn.counts().values()) == {4}
    assert len(set(drawn.hashes())) == 12
    with Image.open(drawn.paths[0]) as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (40, 40))


def test_the_two_families_have_no_species_in_common():
    assert len(SPECIES["meadow"]) == 6
    assert len(SPECIES["garden"]) == 10
    assert not set(SPECIES["meadow"]) & set(SPECIES["garden"])


@pytest.mark.parametrize(
    ("family", "species"), [(family, name) for family, names in SPECIES.items() for name in names]
)
def test_every_species_can_be_drawn_small_and_large(family, species):
    for size in (16, 150):
        assert draw_flower(family, species, size=size).size == (size, size)


def test_colour_alone_does_not_tell_the_species_apart():
    pictures = [
        (np.asarray(draw_flower("meadow", name, number=number, size=48)), name)
        for name in SPECIES["meadow"]
        for number in range(60)
    ]
    histograms = np.sqrt(
        [np.histogramdd(p.reshape(-1, 3), 6)[0].ravel() / 48**2 for p, _ in pictures]
    )
    names = np.array([name for _, name in pictures])
    seen = np.arange(len(names)) % 60 < 40

    model = LogisticRegression(C=10, max_iter=500).fit(histograms[seen], names[seen])

    assert model.score(histograms[~seen], names[~seen]) < 0.7


@pytest.mark.parametrize(
    "options", [{"family": "forest"}, {"species": 1}, {"species": 7}, {"per_class": 0}, {"size": 8}]
)
def test_arguments_out_of_range_are_refused(tmp_path, options):
    with pytest.raises(UsageError):
        make_flowers(tmp_path, **options)
