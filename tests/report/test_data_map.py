"""Maps of the data: a mark for each image, a ring around each wrong one."""

import numpy as np

from regraft.report.data_map import data_map
from regraft.results.inspection import Inspection
from regraft.results.predictions import Predictions


def test_each_image_has_a_mark_of_its_class_and_each_wrong_one_a_ring():
    rows = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    p = Predictions(("a", "b", "c"), ("x", "x", "y"), ("x", "y"), rows, ("test",) * 3)
    places = ((0.0, 0.0), (1.0, 1.0), (0.5, 0.5))

    found = data_map(p, Inspection(points=("a", "b", "c"), projections={"<PCA>": places}))

    (drawing,) = (drawing for _, drawing in found.drawings)
    assert drawing.count("data-i=") == 3
    assert drawing.count("#mark-ring") == 2
    assert drawing.count('class="k0"') == 2
    assert 'x="12.0" y="388.0" data-i="0"' in drawing
    assert "<PCA>" not in drawing
    assert [point.pair for point in found.points] == [None, (0, 1), (1, 0)]
    assert found.points[1].said == "x, predicted as y (80 %)"
    assert [name for name, _ in found.legend] == ["x", "y"]


def test_a_run_that_has_kept_none_has_no_map():
    p = Predictions((), (), ("x", "y"), np.zeros((0, 2)), ())

    assert data_map(p, None) is data_map(p, Inspection()) is None
