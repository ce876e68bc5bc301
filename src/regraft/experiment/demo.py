"""The whole way on drawn flowers: learn from some species and transfer to others."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from regraft.backbones.spec import BackboneSpec
from regraft.backbones.state import write_state
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.data.drawn import make_flowers
from regraft.experiment.preparation import DataPlan
from regraft.experiment.runner import fit_run
from regraft.report.comparison import compare_runs, write_comparison
from regraft.results.run import Run
from regraft.training.phases import from_scratch

NETWORK = "small_cnn"
SOURCE_PER_CLASS = 150
TARGET_PER_CLASS = 60
SIDE = 96  # pixels
EPOCHS = 15


@dataclass(frozen=True)
class Demo:
    """What the demonstration left.

    Attributes:
        pictures: The folder of the drawn flowers to tell apart.
        transfer: The run on features that were learned from other flowers.
        baseline: The run on the same network with random weights.
        page: The comparison of both.
    """

    pictures: Path
    transfer: Run
    baseline: Run
    page: Path

    def backbone_options(self) -> str:
        """Return the options that name the network of the demonstration."""
        weights = self.pictures.parent / "garden.safetensors"
        return f"--backbone {NETWORK} --weights {shlex.quote(str(weights))}"


def run_demo(folder: str | os.PathLike[str], *, seed: int = 0, verbose: bool = False) -> Demo:
    """Draw two families of flowers, learn from one and transfer to the other.

    A small network is trained on the species of the garden. Its trunk is then frozen, and a
    classifier on its features learns the species of the meadow, which the network never saw, from
    few pictures. The same network with random weights shows what the transfer is worth.

    Args:
        folder: Where pictures, weights, runs and pages shall stand.
        seed: Seed of the drawings, the training and the split.
        verbose: Whether to show progress on standard error.

    Raises:
        RunError: The folder already holds runs.
    """
    place = Path(folder)
    garden = make_flowers(
        place / "garden", family="garden", per_class=SOURCE_PER_CLASS, size=SIDE, seed=seed
    )
    make_flowers(
        place / "meadow", family="meadow", per_class=TARGET_PER_CLASS, size=SIDE, seed=seed
    )
    untrained = BackboneSpec(NETWORK, weights=None, seed=seed)
    source = NetworkClassifier(
        untrained, phases=from_scratch(EPOCHS, lr=2e-3), batch_size=64, seed=seed, verbose=verbose
    )
    source.fit(garden.paths, garden.labels)
    weights = place / "garden.safetensors"
    write_state(weights, source.backbone_.module.state_dict())

    plan = DataPlan(place / "meadow", seed=seed)
    runs = [
        fit_run(
            plan,
            FeatureClassifier(spec, seed=seed, verbose=verbose),
            out=place / "runs" / name,
            description=description,
            command=f"regraft demo --out {place.name}",
            verbose=verbose,
        )
        for name, spec, description in (
            (
                "transfer",
                replace(untrained, weights=str(weights)),
                "transfer: learned from garden flowers",
            ),
            ("no-transfer", untrained, "no transfer: random weights"),
        )
    ]
    page = write_comparison(compare_runs(runs), place / "comparison.html")
    return Demo(place / "meadow", runs[0], runs[1], page)
