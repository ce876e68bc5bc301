import math

import numpy as np
import pytest
from regraft.results.repeats import answers, over_seeds, over_splits, part_to_train, summarise

from regraft.errors import RunError
from regraft.results.intervals import wilson
from regraft.results.run import Run


@pytest.fixture
def run_of(tmp_path, record, predict):
    """Return a function that writes a run with a given number of errors in the test part."""
    made = []

    def make(split, wrong):
        made.append(wrong)
        place = tmp_path / "runs" / f"run-{len(made)}"
        return Run.create(place, record, predict(split, wrong=wrong), split=split)

    return make


def test_one_run_has_its_wilson_interval(run_of, split):
    found = summarise([run_of(split, 4)])

    assert found.estimate == wilson(14, 18)
    assert (found.sd, found.repeats) == (None, 1)
    assert found.to_json() == {
        "accuracy": 14 / 18,
        "n": 18,
        "interval": wilson(14, 18).interval,
        "sd": None,
        "repeats": 1,
    }


def test_seeds_on_one_split_give_mean_spread_and_an_interval_of_both(run_of, split):
    found = summarise([run_of(split, wrong) for wrong in (2, 4, 6)])

    assert found.estimate.value == pytest.approx(14 / 18)
    assert found.sd == pytest.approx(2 / 18)
    assert (found.estimate.n, found.repeats) == (18, 3)
    assert found.estimate.low < wilson(14, 18).low


def test_seeds_that_are_all_alike_count_as_one(run_of, split):
    found = summarise([run_of(split, 4) for _ in range(3)])

    assert found.estimate == wilson(14, 18)
    assert (found.sd, found.repeats) == (0.0, 3)


def test_several_splits_give_the_corrected_resampled_interval(run_of, pictures):
    splits = [pictures.split(val=0.25, test=0.5, seed=seed) for seed in (0, 1, 2)]
    runs = [run_of(split, wrong) for split, wrong in zip(splits, (3, 5, 7), strict=True)]
    paths = {path for run in runs for path in run.predictions.part("test").paths}

    found = summarise(runs)

    shares = [15 / 18, 13 / 18, 11 / 18]
    assert part_to_train(runs) == 18 / 9
    assert found.estimate == over_splits(shares, test_to_train=2.0, n=len(paths))
    assert found.sd == pytest.approx(np.std(shares, ddof=1))
    assert 18 < found.estimate.n <= 36


def test_seeds_on_one_of_several_splits_are_averaged_first(run_of, pictures):
    splits = [pictures.split(val=0.25, test=0.5, seed=seed) for seed in (0, 1)]

    runs = [run_of(splits[0], 0), run_of(splits[0], 6), run_of(splits[1], 9)]

    assert summarise(runs).estimate.value == pytest.approx((15 / 18 + 0.5) / 2)


def test_seeds_that_learned_from_other_pictures_of_one_split_have_a_training_accuracy(
    run_of, split
):
    runs = [run_of(split, 4), run_of(split, 4)]
    for run, drawn in zip(runs, (slice(0, 6), slice(3, 9)), strict=True):
        table = run.predictions
        rows = [place for place, part in enumerate(table.parts) if part == "train"][drawn]
        tested = [place for place, part in enumerate(table.parts) if part == "test"]
        vars(run)["predictions"] = table.take([*rows, *tested])

    train = summarise(runs, "train")

    assert (train.estimate.value, train.estimate.n, train.repeats) == (1.0, 9, 2)
    assert summarise(runs).estimate == wilson(14, 18)


def test_a_part_without_pictures_is_unknown(run_of, pictures):
    found = summarise([run_of(pictures.split(val=0.0, test=0.5, seed=0), 1)], "val")

    assert not found.estimate.known
    assert found.to_json()["accuracy"] is None
    assert found.to_json()["interval"] is None


def test_a_part_may_be_called_by_its_long_name(run_of, split):
    run = run_of(split, 1)

    assert summarise([run], "validation") == summarise([run], "val")
    assert part_to_train([run], "validation") == part_to_train([run], "val")


def test_pictures_are_matched_by_their_path(run_of, split):
    one, two = run_of(split, 5), run_of(split, 2)
    table = one.predictions
    vars(one)["predictions"] = table.take(np.random.default_rng(0).permutation(len(table)))

    found = answers([one, two])

    assert found.paths == tuple(sorted(found.paths))
    assert found.right.shape == (2, 18)
    assert (
        found.right[0] <= found.right[1]
    ).all()  # the errors of the second are among the first's


def test_runs_that_predicted_other_pictures_are_refused(run_of, split, pictures):
    one, two = run_of(split, 5), run_of(split, 2)
    vars(two)["predictions"] = two.predictions.take(range(30))

    with pytest.raises(RunError, match="different pictures") as caught:
        answers([one, two])
    assert caught.value.code == "RUN-SPLITS"

    with pytest.raises(RunError, match="different splits") as caught:
        answers([one, run_of(pictures.split(val=0.25, test=0.5, seed=3), 0)])
    assert caught.value.code == "RUN-SPLITS"


def test_a_perfect_score_over_splits_still_has_an_interval():
    found = over_splits([1.0, 1.0, 1.0], test_to_train=0.25, n=60)

    assert found.value == found.high == 1.0
    assert 0.8 < found.low < 0.95


def test_over_splits_the_interval_is_the_one_by_hand():
    """(1/3 + 0.5) 0.02² = 0.018257²; t(2) = 4.3027."""
    found = over_splits([0.80, 0.82, 0.84], test_to_train=0.5, n=10_000)

    assert found.interval == pytest.approx(
        [0.82 - 4.3027 * 0.018257, 0.82 + 4.3027 * 0.018257], abs=1e-5
    )


def test_intervals_of_accuracies_over_seeds_hold_the_true_one_in_95_percent():
    """Grid: 50, 170 and 624 pictures; 3 and 5 seeds, which scatter by 0 to 4 points."""
    generator = np.random.default_rng(1)
    held = []
    for mean in (1.5, 4.0):
        for seed_sd in (0.0, 0.1, 0.3):
            scatter = math.hypot(2.0, seed_sd)
            logits = mean + scatter * np.random.default_rng(0).standard_normal(2_000_000)
            true = float((1 / (1 + np.exp(-logits))).mean())
            for n in (50, 170, 624):
                for seeds in (3, 5):
                    for _ in range(300):
                        logits = generator.normal(mean, 2.0, n) + generator.normal(
                            0, seed_sd, (seeds, 1)
                        )
                        right = generator.random((seeds, n)) < 1 / (1 + np.exp(-logits))
                        found = over_seeds(right)
                        held.append(found.low <= true <= found.high)

    assert np.mean(held) == pytest.approx(0.95, abs=0.01)
