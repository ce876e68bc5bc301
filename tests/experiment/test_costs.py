"""What a run will cost: measured on a few pictures, and in the right order."""

import numpy as np
import pytest
from regraft.experiment.costs import Costs, measure_costs

NETWORK = {"backbone": "simple_cnn", "arguments": {"size": 48}, "weights": "random"}


def known(**row):
    costs = Costs(1000, 600, 5, {"net": 0.05}, {"net": 0.2})
    return costs.seconds({"backbone": "net", **row})


def test_the_cost_of_a_network_is_measured_on_a_few_pictures():
    pictures = list(np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3), dtype=np.uint8))

    costs = measure_costs([NETWORK], paths=pictures, pictures=100, learned=60, classes=2)

    assert 0 < costs.embed["simple_cnn"] < 1
    assert 0 < costs.step["simple_cnn"] < 1


@pytest.mark.parametrize(
    ("cheap", "dear"),
    [
        ({"strategy": "features"}, {"strategy": "fine_tune", "unfreeze": 0.5, "epochs": 5}),
        (
            {"strategy": "fine_tune", "unfreeze": 0.5, "epochs": 5},
            {"strategy": "fine_tune", "unfreeze": 1.0, "epochs": 5},
        ),
        (
            {"strategy": "fine_tune", "unfreeze": 0.5, "epochs": 5},
            {"strategy": "fine_tune", "unfreeze": 0.5, "epochs": 5, "augment": "standard"},
        ),
        (
            {"strategy": "frozen", "epochs": 30},
            {"strategy": "frozen", "epochs": 30, "augment": "standard", "views": 4},
        ),
        (
            {"strategy": "from_scratch", "epochs": 5, "per_class": 10},
            {"strategy": "from_scratch", "epochs": 5},
        ),
        ({"strategy": "from_scratch", "epochs": 5}, {"strategy": "from_scratch", "epochs": 6}),
    ],
)
def test_what_does_more_costs_more(cheap, dear):
    assert known(**cheap) < known(**dear)


def test_one_strange_measurement_does_not_turn_everything():
    costs = Costs(1000, 600, 5, {"net": 0.05}, {"net": 0.2})
    row = {"backbone": "net", "strategy": "from_scratch", "epochs": 5}
    before = costs.seconds(row)

    costs.learn(row, 100 * before)

    assert costs.seconds(row) <= 2 * before
