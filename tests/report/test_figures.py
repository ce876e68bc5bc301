import math
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.report import figures
from regraft.results.comparison import Row
from regraft.results.intervals import wilson
from regraft.results.learning_curve import fit_curve

EPOCHS = [
    {"train_loss": 1.0, "val_loss": 1.2, "val_accuracy": 0.5},
    {"train_loss": 0.4, "val_loss": 0.9, "val_accuracy": 0.7},
]
NAMES = ["<img onerror=x>", "$x^2$ & \n\udcff", "日本", "plain"]
RATES = [10 ** (-6 + step / 10) for step in range(61)]
LOSSES = [2 - 1.5 / (1 + math.exp(-(step - 30) / 3)) for step in range(61)]


def words(svg):
    return [element.text or "" for element in ET.fromstring(svg).iter("text")]


def spoken(svg):
    return ET.fromstring(svg).get("aria-label")


def learned(name, limit=0.0):
    """Return the curve of a method whose error falls with the root of the number of images."""
    shares = [
        (n, wilson(round(2000 * (1 - limit - n**-0.5)), 2000)) for n in (25, 50, 100, 200, 400)
    ]
    return fit_curve(name, shares)


@pytest.fixture
def rows(make_run):
    """Return a quick row, a slow and worse one, and a slower and better one."""
    return [
        Row("quick", (make_run("a", wrong=6, seconds={"fit": 2.0}),)),
        Row("worse", (make_run("b", wrong=9, seconds={"fit": 200.0}),), {"test": 0.6318}),
        Row("x" * 80, (make_run("c", seconds={"fit": 3000.0}),)),
    ]


def test_a_heat_map_is_one_well_formed_element_without_addresses():
    counts = np.array([[5, 1, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [1, 0, 0, 9]])

    svg = figures.heat_map(counts, NAMES, alt="a <map>")

    assert ET.fromstring(svg).tag == "svg"
    assert spoken(svg) == "a <map>"
    assert "http" not in svg
    assert "&lt;img onerror=x&gt;" in svg
    assert "$x^2$ &amp; \\n" in svg


def test_figures_take_the_page_s_colours_and_draw_the_same_bytes_again(rows):
    for draw in (
        lambda: figures.curves(EPOCHS, alt="x", rings=[2], borders=[1.5]),
        lambda: figures.lr_figure(RATES, LOSSES, RATES[30]),
        lambda: figures.bars(rows),
        lambda: figures.cost(rows),
        lambda: figures.learning_curves([learned("a")]),
    ):
        svg = draw()
        assert svg == draw()
        assert "var(--accent" in svg
        assert "currentColor" in svg
        assert "#0" not in svg.replace("#000000", "")
        assert "http" not in svg


def test_identifiers_of_two_figures_do_not_clash_and_references_lead_somewhere():
    heat = figures.heat_map(np.eye(2, dtype=int), ["a", "b"], alt="x")
    line = figures.curves(EPOCHS, alt="x")

    one, two = ({e.get("id") for e in ET.fromstring(svg).iter()} - {None} for svg in (heat, line))
    references = {element.get("href") for element in ET.fromstring(line).iter("use")}
    assert not one & two
    assert references
    assert {reference[1:] for reference in references} <= two


def test_curves_survive_epochs_without_a_value_and_only_few_epochs_have_dots():
    svg = figures.curves([EPOCHS[0], {"train_loss": 0.4}], alt="x")
    few, many = (figures.curves([{"loss": 1.0}] * n, alt="x").count("<use") for n in (20, 21))

    assert {"training loss", "validation accuracy", "accuracy", "loss"} <= set(words(svg))
    assert few - many >= 20


def test_many_classes_have_no_names_in_a_heat_map(monkeypatch):
    monkeypatch.setattr(figures, "_MOST_LABELS", 3)

    three, four = (figures.heat_map(np.eye(n, dtype=int), NAMES[-n:], alt="x") for n in (3, 4))

    assert "plain" in words(three)
    assert "plain" not in words(four)


def test_matplotlib_is_imported_only_when_a_figure_is_drawn_and_pyplot_never():
    code = (
        "import sys; import regraft.report.run_page; assert 'matplotlib' not in sys.modules;"
        "assert 'torch' not in sys.modules; from regraft.report import figures;"
        "figures.curves([{'train_loss': 1.0}], alt='x');"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )

    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_a_suggested_rate_is_marked_and_said():
    svg = figures.lr_figure(RATES, LOSSES, RATES[30])
    none = figures.lr_figure(RATES, LOSSES, None)

    assert "steepest at 0.001" in svg
    assert "suggested 0.001" in spoken(svg)
    assert "steepest" not in none
    assert "no rate lowers it" in spoken(none)
    assert {"1e-06", "0.0001", "0.01", "1"} <= set(words(none))


def test_a_figure_of_its_own_has_a_name_space_and_its_colours():
    document = figures.standalone(figures.lr_figure(RATES, LOSSES, RATES[30]))

    assert ET.fromstring(document).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in document
    assert "currentColor" not in document
    assert document.count("background: #fff") == 1


def test_bars_name_every_method_and_every_kind_of_mark_that_is_there(rows, make_run):
    svg, plain = figures.bars(rows), figures.bars([Row("a", (make_run(val=0),))])

    assert "quick · 1" in words(svg)
    assert any(text.startswith("xxx") and text.endswith("… · 3") for text in words(svg))
    assert {"test, 95 % interval", "validation", "train", "published test"} <= set(words(svg))
    assert "quick: 66.7 % [43.7, 83.7], n = 18" in spoken(svg)
    assert not {"validation", "published test"} & set(words(plain))


def test_cost_names_the_front_and_numbers_all(rows):
    svg = figures.cost(rows)

    assert {"1", "2", "3", "1 · quick", "10 s", "1 min", "30 min"} <= set(words(svg))
    assert not any("worse" in text for text in words(svg))
    assert f"than: quick; {'x' * 80}." in spoken(svg)


@pytest.mark.parametrize(
    ("seconds", "tick"),
    [((61, 61), "1 min"), ((38, 38), "30 s"), ((9, 70), "30 s"), ((3, 4), "3 s")],
)
def test_cost_has_ticks_where_all_times_are_alike(make_run, seconds, tick):
    runs = [make_run(f"{at}", seconds={"fit": float(s)}) for at, s in enumerate(seconds)]
    rows = [Row(run.name, (run,)) for run in runs]

    assert tick in words(figures.cost(rows))


def test_the_area_of_a_network_shows_its_parameters():
    svg = figures.zoo(
        [("big", 15e9, 0.7, 100e6), ("half", 1e9, 0.8, 50e6)], accuracy="top-1 accuracy"
    )

    def wide(path):
        numbers = [float(n) for n in path.get("d").replace("M", " ").split() if n[-1].isdigit()]
        return max(numbers[::2]) - min(numbers[::2])

    circles = [
        path
        for group in ET.fromstring(svg).iter("g")
        if (group.get("id") or "").startswith("zoo-PathCollection")
        for path in group.iter("path")
    ]
    assert {"big", "half", "top-1 accuracy"} <= set(words(svg))
    assert wide(circles[0]) ** 2 / wide(circles[1]) ** 2 == pytest.approx(2, rel=0.01)
    assert "big: 70.0 %; half: 80.0 %" in spoken(svg)


@given(st.lists(st.tuples(st.floats(0.1, 99), st.floats(0, 1)), max_size=12))
def test_a_point_is_on_the_front_or_beaten_by_one_that_is(points):
    front = figures.pareto_front(points)

    for at, (spent, value) in enumerate(points):
        beaten = any(points[other][0] <= spent and points[other][1] >= value for other in front)
        assert at in front or beaten
    values = [points[at][1] for at in front]
    assert values == sorted(set(values))


def test_learning_curves_draw_a_law_with_its_band_or_a_dotted_line():
    svg = figures.learning_curves([learned("features"), learned("from scratch", limit=0.1)])
    few = figures.learning_curves([fit_curve("few", [(10, wilson(5, 10)), (20, wilson(6, 10))])])

    assert {"features", "from scratch", "25", "400"} <= set(words(svg))
    assert svg.count("opacity: 0.12") == 2
    assert "opacity: 0.12" not in few
    assert "stroke-dasharray" in few


def test_curves_beyond_the_colours_there_are_have_a_dashed_line():
    four, five = (
        figures.learning_curves([learned(f"method {at}") for at in range(count)])
        for count in (4, 5)
    )

    assert ("stroke-dasharray" in four, "stroke-dasharray" in five) == (False, True)


def test_of_many_curves_those_that_end_highest_are_drawn():
    svg = figures.learning_curves([learned(f"method {at:02d}", limit=at / 50) for at in range(12)])

    assert "method 00" in words(svg)
    assert "method 11" not in words(svg)
