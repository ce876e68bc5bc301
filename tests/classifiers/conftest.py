"""Small images in three colours."""

import pytest

from samples import coloured_files


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Return paths and labels of 24 training images and of 9 others."""
    folder = tmp_path_factory.mktemp("images")
    parts = [coloured_files(folder, part, n, side=24, seed=n) for part, n in (("a", 24), ("b", 9))]
    return [(list(part.paths), list(part.labels)) for part in parts]
