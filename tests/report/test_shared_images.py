"""The same test images under several methods: who is wrong, who alone is right."""

import pytest

from regraft.report.comparison_page import compare_runs, write_comparison
from regraft.report.run_page import write_page
from regraft.report.shared_images import shared_images
from regraft.results.comparison import Row
from regraft.results.intervals import wilson


@pytest.fixture
def row(make_run):
    """Return a function that makes a method: the first ``wrong`` of 18 test images are wrong."""

    def make(name, wrong, learned=None, **facts):
        run = make_run(name, wrong=wrong, **facts)
        if learned is not None:
            run.metrics["train"]["accuracy"] = wilson(learned, learned)
        return Row(name, (run,))

    return make


def titles(groups):
    return [(group.title, group.total) for group in groups]


def test_images_are_grouped_by_who_is_wrong(row):
    rows = [row(f"m{wrong}", wrong, method={"classifier": str(wrong)}) for wrong in (2, 3, 5, 6)]

    groups = shared_images(rows)

    assert titles(groups) == [
        ("Wrong for all of the 4 methods", 2),
        ("Wrong for most methods", 1),
        ("Right only with m2", 1),
    ]
    assert [image.true for image in groups[0].images] == ["a", "a"]
    assert {image.said for image in groups[0].images} == {"b ×4"}


def test_one_method_with_more_and_more_images_has_its_own_groups(row):
    rows = [row(f"{n} images", wrong, n) for n, wrong in ((1200, 1), (300, 6), (600, 3))]

    groups = [group for group in shared_images(rows) if group.title.startswith("1200 images:")]

    assert titles(groups) == [
        ("1200 images: wrong with 300 images, right with 600 and 1,200", 3),
        ("1200 images: wrong with 300 and 600 images, right with 1,200", 2),
        ("1200 images: wrong with 300, 600 and 1,200 images", 1),
    ]


def test_methods_of_other_splits_or_without_a_test_part_are_left_out(row):
    other, none = row("other", 9, seed=1), row("none", 0, test=0)

    assert shared_images([row("alone", 3), other, none]) == []
    assert titles(shared_images([row("a", 3), row("b", 2), other]))[0][1] == 2


def test_the_page_shows_the_thumbnails_that_the_runs_have_kept(make_run, images, tmp_path):
    runs = [make_run("first", wrong=2), make_run("second", wrong=4)]
    write_page(runs[1], data_root=images)

    page = write_comparison(compare_runs(runs), tmp_path / "c.html").read_text()

    assert page.count("data:image/jpeg") == 4
    assert "Wrong for all of the 2 methods" in page
    assert "Right only with the run first" in page
    assert "image not here" not in page
