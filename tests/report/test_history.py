from regraft.report.history import arrange, flat


def test_a_grid_has_a_column_per_parameter_and_marks_the_chosen_point():
    rows = [
        {"parameters": {"C": 0.1, "penalty": "l2"}, "mean": 0.9, "sd": 0.01},
        {"parameters": {"C": 1.0}, "mean": 1.0, "sd": 0.0},
    ]

    history = arrange({"grid": rows, "best": {"C": 1.0}})

    ((_, table),) = history.grids
    assert table.columns[:2] == ("C", "penalty")
    assert table.rows[0] == ("0.1", "l2", "90.0 %", "1.0 %")
    assert table.rows[1][1] == "–"
    assert table.best == 1
    assert history.curves is None


def test_epochs_become_curves_and_a_table():
    history = arrange([{"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": 1.0}])

    assert history.curves.startswith("<svg")
    assert history.grids[0][1].columns == ("epoch", "train loss")


def test_everything_else_becomes_facts():
    history = arrange({"seconds": {"fit": 1.25}, "converged": True, "grid": [], "odd": None})

    assert history.facts == (("seconds", "fit 1.25"), ("converged", "yes"))


def test_no_history_is_an_empty_one():
    history = arrange(None)

    assert (history.grids, history.facts, history.curves) == ((), (), None)


def test_values_read_on_one_line():
    value = {"mean": [0.5, 1 / 3], "std": [], "crop": False, "top": None}

    assert flat(value) == "mean 0.5, 0.333333 · std – · crop no · top –"


def test_a_training_has_a_table_of_its_phases_its_epochs_and_one_sentence(trained):
    share = {"accuracy": 1.0, "n": 9, "interval": [0.7, 1.0]}

    history = arrange({**trained, "device": "cpu"}, {"train": share, "validation": share})

    assert [name for name, _ in history.grids] == [
        "What was trained, phase by phase",
        "After each epoch, on 9 validation pictures",
    ]
    assert history.curves.startswith("<svg")
    assert history.facts == (("device", "cpu"),)
    assert len(history.sentences) == 1


def test_a_network_that_was_not_trained_has_an_empty_history():
    history = arrange({"phases": [], "epochs": []})

    assert (history.grids, history.facts, history.curves) == ((), (), None)
    assert history.sentences == ()
