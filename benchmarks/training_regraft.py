"""The way of Regraft: what is frozen runs once, and every epoch runs what is trained.

Started by ``training.py``; takes a job as JSON and prints what it measured as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import timm  # noqa: F401 - imports are not timed on any of the ways
import torchvision  # noqa: F401

from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.training.phases import Phase


def main(job: dict) -> dict:
    paths = sorted(Path(job["folder"]).glob("*/*.jpg"))
    learner = NetworkClassifier(
        BackboneSpec("vgg16", weights=None, arguments={"size": job["size"]}),
        head="mlp_512_512",
        phases=[
            Phase(
                unfreeze_from="features.24" if job["task"] == "block5" else None,
                epochs=job["epochs"],
                optimizer="sgd",
                lr=job["lr"],
            )
        ],
        compute=Compute(precision=job["precision"], device="cpu", cache=None),
    )
    start = time.perf_counter()
    learner.fit(paths, [path.parent.name for path in paths])
    whole = time.perf_counter() - start
    (phase,), epochs = learner.history_["phases"], learner.history_["epochs"]
    seconds = [epoch["seconds"] for epoch in epochs]
    return {
        "whole": whole,
        "build": whole - phase["seconds"],
        "once": phase["seconds"] - sum(seconds),
        "epochs": seconds,
        "way": phase["mode"],
        "boundary": phase["boundary"],
        "loss": epochs[-1]["train_loss"],
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
