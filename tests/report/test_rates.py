import math
import xml.etree.ElementTree as ET

from regraft.report.figures import standalone
from regraft.report.rates import rates_figure, shown

RATES = [10 ** (-6 + step / 10) for step in range(61)]
LOSSES = [2 - 1.5 / (1 + math.exp(-(step - 30) / 3)) for step in range(61)]


def test_the_suggestion_is_marked_and_said():
    svg = rates_figure(RATES, LOSSES, RATES[30])

    assert "steepest at 0.001" in svg
    assert "suggested 0.001" in ET.fromstring(svg).attrib["aria-label"]
    assert "var(--warm" in svg


def test_without_a_suggestion_nothing_is_marked():
    svg = rates_figure(RATES, LOSSES, None)

    assert "steepest" not in svg
    assert "no rate lowers it" in ET.fromstring(svg).attrib["aria-label"]
    assert "var(--warm" not in svg


def test_rates_stand_on_a_logarithmic_axis_in_words_that_a_reader_can_type():
    texts = [e.text for e in ET.fromstring(rates_figure(RATES, LOSSES, None)).iter("text")]

    assert {"1e-06", "0.0001", "0.01", "1"} <= set(texts)
    assert not [text for text in texts if "$" in text]


def test_the_same_search_draws_the_same_bytes():
    assert rates_figure(RATES, LOSSES, None) == rates_figure(RATES, LOSSES, None)


def test_a_figure_of_its_own_has_a_name_space_and_its_colours():
    document = standalone(rates_figure(RATES, LOSSES, RATES[30]))

    assert ET.fromstring(document).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in document
    assert "currentColor" not in document
    assert document.count("background: #fff") == 1


def test_a_rate_has_two_digits():
    assert [shown(rate) for rate in (1e-5, 0.00123, 0.2, 1.0)] == ["1e-05", "0.0012", "0.2", "1"]
