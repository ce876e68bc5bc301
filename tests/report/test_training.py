import xml.etree.ElementTree as ET

import pytest

from regraft.report.training import (
    epochs_table,
    gap,
    in_words,
    is_training,
    phases_table,
    training_curves,
)
from regraft.results.intervals import wilson


def column(table, number):
    """Return what a table of phases says of one, by the name of the row."""
    return {row[0]: row[number] for row in table.rows}


def part(right, n):
    share = wilson(right, n)
    return {"accuracy": share.value, "n": n, "interval": [share.low, share.high]}


def test_a_phase_is_told_in_plain_words(trained):
    table = phases_table(trained["phases"])

    assert table.columns == ("", "Phase 1", "Phase 2")
    first, second = column(table, 1), column(table, 2)
    assert first == {
        "trained": "the new head alone",
        "parameters": "1,539, 1.0 % of all",
        "optimizer": "SGD, momentum 0.9, weight decay 0.01",
        "learning rate": "0.01, the same all the time",
        "epochs": "2",
        "best epoch": "the last; there were no validation pictures to choose by",
        "how it ran": "cached: each picture went through the frozen part once; what left "
        "features.30 was kept as float16 (12 MB)",
        "gradient error by caching": "0.04 %",
        "frozen tensors unchanged": "yes, bit for bit",
        "time": "1 min 1 s",
    }
    assert second["trained"] == "the new head and 50 % of the stages"
    assert second["optimizer"] == "AdamW, weight decay 0.01"
    assert second["learning rate"] == (
        "0.0001, falling along half a cosine, after rising for 10 % of the phase"
    )
    assert second["epochs"] == (
        "3 of 9; stopped, for 2 epochs had brought no better validation accuracy"
    )
    assert second["best epoch"] == "1 (3 in all), by validation accuracy; its weights were kept"
    assert second["how it ran"].startswith("live: each picture")
    assert second["gradient error by caching"] is None


def test_no_cell_is_a_dump_of_a_record(trained):
    cells = [cell for row in phases_table(trained["phases"]).rows for cell in row if cell]

    assert not [cell for cell in cells if set("{}[]_") & set(cell)]


def test_frozen_tensors_that_changed_are_cried_out(trained):
    trained["phases"][0]["frozen"]["after"] = "ef"

    table = phases_table(trained["phases"])

    assert column(table, 1)["frozen tensors unchanged"].startswith("NO")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"unfreeze_from": "features.24"},
            "the new head and 50 % of the stages, from features.24 on",
        ),
        (
            {"unfreeze_matching": "norm"},
            "the new head and what matches /norm/ in 50 % of the stages",
        ),
        ({"head": "last"}, "the last layer of the head and 50 % of the stages"),
    ],
)
def test_what_was_trained_is_named_the_way_it_was_asked_for(trained, changes, said):
    trained["phases"][1]["trained"] |= changes

    assert column(phases_table(trained["phases"]), 2)["trained"] == said


def test_a_time_budget_and_a_boundary_that_was_not_worth_it_are_told(trained):
    phase = trained["phases"][1]
    phase |= {"stopped": "time budget", "boundary": {"why": "the disk budget is too small"}}

    said = column(phases_table(trained["phases"]), 2)

    assert said["epochs"] == "3 of 9; stopped by the time budget"
    assert said["how it ran"].endswith("in every epoch (the disk budget is too small)")


def test_a_record_that_says_little_makes_a_small_table():
    table = phases_table([{"share_of_stages": 1.0}])

    assert [row[0] for row in table.rows] == ["trained", "best epoch"]


def test_epochs_are_rows_with_shares_as_percentages(trained):
    table = epochs_table(trained["epochs"])

    assert table.columns[:4] == ("phase", "epoch", "training loss", "training accuracy")
    assert len(table.rows) == 5
    assert table.rows[0][3] == "90.0 %"
    assert str(table.rows[0][-1]) == "1.5 s"


def test_curves_run_through_all_phases_with_borders_and_rings(trained):
    root = ET.fromstring(training_curves(trained["phases"], trained["epochs"]))

    text = " ".join(element.text or "" for element in root.iter("text"))
    assert "Broken lines stand between phases" in root.get("aria-label")
    assert "validation accuracy" in text
    dashed = [e for e in root.iter("path") if "stroke-dasharray" in e.get("style", "")]
    assert len(dashed) == 2  # one border in each of two panels


def test_curves_survive_a_phase_without_epochs_and_epochs_without_validation(trained):
    trained["phases"].append({"phase": 3, "best_epoch": None})
    epochs = [{k: v for k, v in e.items() if not k.startswith("val")} for e in trained["epochs"]]

    assert training_curves(trained["phases"], epochs).startswith("<svg")
    assert training_curves(trained["phases"], []) is None


@pytest.mark.parametrize(
    ("train", "held", "said"),
    [
        (part(100, 100), part(60, 100), "more than chance explains. It overfits."),
        (part(10, 10), part(9, 10), "which so few pictures cannot tell from none."),
        (part(8, 10), part(9, 10), "it does not overfit."),
    ],
)
def test_the_gap_is_called_overfitting_only_where_it_can_be_told(train, held, said):
    text = gap({"train": train, "validation": held})

    assert text.endswith(said)
    assert f"{train['n']} training pictures" in text
    assert f"{held['n']} validation pictures" in text


def test_the_gap_has_newcombe_s_interval():
    text = gap({"train": part(56, 70), "validation": part(48, 80)})

    assert "20.0 points (95 % interval +5.2 to +33.4)" in text  # as published for 56/70 and 48/80


def test_no_gap_is_told_without_validation_pictures():
    assert gap({"train": part(9, 10), "validation": None}) == ""


@pytest.mark.parametrize(
    ("shares", "random", "said"),
    [
        ([], False, "A new head was put on vgg16 and nothing was trained"),
        ([0.0], False, "A new head was trained on the frozen vgg16"),
        ([1.0], False, "A new head was trained together with all stages of vgg16"),
        ([1.0], True, "vgg16 was trained, beginning with random weights,"),
        (
            [0.0, 0.5],
            False,
            "A new head was trained on the frozen vgg16, then together with 50 % of the stages,",
        ),
        (
            [0.0, 0.25, 1.0],
            False,
            (
                "A new head was trained on the frozen vgg16 in 3 phases, "
                "in the last together with all stages,"
            ),
        ),
    ],
)
def test_the_strategy_reads_as_a_sentence(shares, random, said):
    phases = [{"share_of_stages": share} for share in shares]

    assert in_words(phases, "vgg16", random=random) == said


@pytest.mark.parametrize("history", [None, [], {"grid": []}, {"phases": [], "epochs": None}])
def test_the_history_of_a_classifier_on_features_is_none_of_a_training(history):
    assert not is_training(history)
