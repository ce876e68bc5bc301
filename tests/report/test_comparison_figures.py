import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.report.comparison_figures import bars, cost, pareto_front, size_curves
from regraft.results.comparison import Row
from regraft.results.intervals import wilson
from regraft.results.learning_curve import fit_curve

SIZES = (25, 50, 100, 200, 400)


def words(svg):
    return [element.text or "" for element in ET.fromstring(svg).iter("text")]


def learning(name, limit=0.0):
    """Return the curve of a way whose error falls with the root of the pictures."""
    shares = [(n, wilson(round(2000 * (1 - limit - n**-0.5)), 2000)) for n in SIZES]
    return fit_curve(name, shares)


def test_bars_name_every_way_and_every_kind_of_mark_that_is_there(make_run):
    rows = [
        Row("first", (make_run("a", wrong=2),)),
        Row("x" * 80, (make_run("b", wrong=9),), {"test": 0.6318}),
    ]

    svg = bars(rows)

    shown = words(svg)
    assert "first  1" in shown
    assert any(text.startswith("xxx") and text.endswith("…  2") for text in shown)
    assert {"test, 95 % interval", "validation", "train", "published test"} <= set(shown)
    assert "first: 88.9 % [67.2, 96.9], n = 18" in ET.fromstring(svg).get("aria-label")


def test_marks_that_no_row_has_are_not_in_the_legend(make_run):
    shown = words(bars([Row("a", (make_run(val=0),))]))

    assert not {"validation", "published test"} & set(shown)


def test_cost_names_the_front_and_numbers_the_rest(make_run):
    rows = [
        Row("quick", (make_run("a", wrong=6, seconds={"fit": 2.0}),)),
        Row("slow and worse", (make_run("b", wrong=9, seconds={"fit": 200.0}),)),
        Row("slow and better", (make_run("c", seconds={"fit": 3000.0}),)),
    ]

    svg = cost(rows)

    shown = words(svg)
    assert {"1 quick", "2", "3 slow and better"} <= set(shown)
    assert {"10 s", "1 min", "10 min"} <= set(shown)
    assert "than: quick; slow and better." in ET.fromstring(svg).get("aria-label")


@pytest.mark.parametrize(
    ("seconds", "tick"),
    [(61.0, "1 min"), (38.0, "30 s"), (190.0, "3 min"), (2300.0, "30 min"), (3.2, "3 s")],
)
def test_cost_has_ticks_where_all_times_are_alike(make_run, seconds, tick):
    rows = [Row(name, (make_run(name, seconds={"fit": seconds}),)) for name in "ab"]

    assert tick in words(cost(rows))


@given(st.lists(st.tuples(st.floats(0.1, 99), st.floats(0, 1)), max_size=12))
def test_a_point_is_on_the_front_or_beaten_by_one_that_is(points):
    front = pareto_front(points)

    for at, (spent, value) in enumerate(points):
        beaten = any(points[other][0] <= spent and points[other][1] >= value for other in front)
        assert at in front or beaten
    values = [points[at][1] for at in front]
    assert values == sorted(set(values))


def test_size_curves_draw_a_law_with_its_band_and_label_the_sizes_measured():
    svg = size_curves([learning("features"), learning("from scratch", limit=0.1)])

    shown = words(svg)
    assert {"features", "from scratch", "25", "400"} <= set(shown)
    assert len([e for e in ET.fromstring(svg).iter() if "opacity: 0.12" in e.get("style", "")]) == 2


def test_a_curve_without_a_law_is_dotted_and_has_no_band():
    svg = size_curves([fit_curve("few", [(10, wilson(5, 10)), (20, wilson(6, 10))])])

    assert "opacity: 0.12" not in svg
    assert "stroke-dasharray" in svg


def test_of_many_curves_those_that_end_highest_are_drawn():
    curves = [learning(f"way {at:02d}", limit=at / 50) for at in range(12)]

    shown = words(size_curves(curves))

    assert "way 00" in shown
    assert "way 11" not in shown


def test_figures_take_the_page_s_colours_and_draw_the_same_bytes_again(make_run):
    rows = [Row(name, (make_run(name),)) for name in "ab"]

    for draw in (lambda: bars(rows), lambda: cost(rows), lambda: size_curves([learning("a")])):
        svg = draw()
        assert svg == draw()
        assert "var(--accent" in svg
        assert "#04040" not in svg
        assert "http" not in svg
