"""Measure what the probes are compared with: `simple_cnn` trained from scratch on the same splits.

No weights, no augmentation, and no validation part, as the probes have none: the last epoch counts.
Few pictures get more epochs. Accuracies are added to the file of the probes.

    python pretrain/scratch.py --assets ASSETS --out PROBES.json --sets flowers5 hymenoptera
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from probe import few, interval, line
from sets import SETS, Photographs, read_set

from regraft import BackboneSpec, NetworkClassifier, Preprocessing, from_scratch

NAME = "simple_cnn from scratch"
EPOCHS = {"all": 30, "twenty": 60}
DRAWS = 3


def accuracy(data: Photographs, rows: np.ndarray, *, size: int, epochs: int, seed: int) -> float:
    """Return the test accuracy after learning from these rows, 0 to 1."""
    spec = BackboneSpec("simple_cnn", weights=None, seed=seed,
                        preprocessing=Preprocessing.torch(size))  # fmt: skip
    learner = NetworkClassifier(spec, phases=from_scratch(epochs), seed=seed)
    names = data.labels.astype(str)
    learner.fit([data.paths[row] for row in rows], names[rows].tolist())
    predicted = learner.predict([data.paths[row] for row in data.test])
    return float(np.mean(np.asarray(predicted) == names[data.test]))


def measure(data: Photographs, size: int) -> dict[str, object]:
    """Return the same figures as a probe: with all training pictures, and with 20 per class."""
    count = len(data.test)
    share = accuracy(data, data.train, size=size, epochs=EPOCHS["all"], seed=0)
    draws = [
        accuracy(data, few(data.labels, data.train, seed), size=size, epochs=EPOCHS["twenty"],
                 seed=seed)
        for seed in range(DRAWS)
    ]  # fmt: skip
    return {
        "all": interval(round(share * count), count),
        "twenty": interval(round(float(np.mean(draws)) * count), count),
        "twenty_draws": draws,
        "size": size,
        "epochs": EPOCHS,
    }


def main() -> None:
    """Print and write accuracy and interval on every set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("probes.json"))
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--sets", nargs="*", default=SETS)
    arguments = parser.parse_args()
    for name in arguments.sets:
        begun = time.monotonic()
        result = measure(read_set(arguments.assets, name), arguments.size)
        results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
        results.setdefault(NAME, {})[name] = result
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")
        print(line(NAME, name, result), f"{time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
