import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np

from regraft.report import figures

EPOCHS = [
    {"train_loss": 1.0, "val_loss": 1.2, "val_accuracy": 0.5},
    {"train_loss": 0.4, "val_loss": 0.9, "val_accuracy": 0.7},
]
NAMES = ["<img onerror=x>", "$x^2$ & \n\udcff", "日本", "plain"]


def test_a_figure_is_one_well_formed_element_without_addresses():
    counts = np.array([[5, 1, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [1, 0, 0, 9]])

    svg = figures.heat_map(counts, NAMES, alt="a <map>")

    root = ET.fromstring(svg)
    assert root.tag == "svg"
    assert root.attrib["aria-label"] == "a <map>"
    assert "http" not in svg
    assert "&lt;img onerror=x&gt;" in svg
    assert "$x^2$ &amp; \\n" in svg


def test_the_same_data_draw_the_same_bytes():
    first, second = (figures.curves(EPOCHS, alt="x", rings=[2]) for _ in range(2))

    assert first == second


def test_colours_come_from_the_page():
    svg = figures.curves(EPOCHS, alt="x")

    assert "var(--accent" in svg
    assert "var(--warm" in svg
    assert "currentColor" in svg
    assert "#01010" not in svg


def test_identifiers_of_two_figures_do_not_clash():
    heat = figures.heat_map(np.eye(2, dtype=int), ["a", "b"], alt="x")
    line = figures.curves([{"loss": 1.0, "accuracy": 0.5}, {"loss": 0.5}], alt="x")

    def identifiers(svg):
        return {element.get("id") for element in ET.fromstring(svg).iter()} - {None}

    assert not identifiers(heat) & identifiers(line)


def test_references_inside_a_figure_lead_somewhere():
    root = ET.fromstring(figures.curves(EPOCHS, alt="x"))

    identifiers = {element.get("id") for element in root.iter()}
    references = {element.get("href") for element in root.iter("use")}
    assert references
    assert {reference[1:] for reference in references} <= identifiers


def test_curves_survive_epochs_without_a_value():
    history = [
        {"epoch": 1, "train_loss": 1.0, "val_accuracy": 0.5},
        {"epoch": 2, "train_loss": 0.4},
    ]

    svg = figures.curves(history, alt="x")

    assert "training loss" in svg
    assert "validation accuracy" in svg


def test_matplotlib_is_imported_only_when_a_figure_is_drawn_and_pyplot_never():
    code = (
        "import sys; import regraft.report.page; assert 'matplotlib' not in sys.modules;"
        "assert 'torch' not in sys.modules; from regraft.report import figures;"
        "figures.curves([{'train_loss': 1.0}], alt='x');"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )

    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
