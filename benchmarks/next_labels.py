"""Whether `regraft data next` chooses better than chance, simulated on sets with known labels.

In each of 20 draws a quarter of every class is kept for the test, five images of each class are
labelled, and the labels of all others are hidden. Twice as many images as there are classes are
then chosen and labelled, six times: by ``choose_next``, or at random. After each step a logistic
regression on the features is measured on the test images. Writes ``next_labels.csv`` beside this
file: the mean accuracy of both over the draws, and the mean difference, with 95 % intervals (t).

    python benchmarks/next_labels.py FOLDER [FOLDER …]

FOLDER has one folder of images for each class. Features are those of the default network, cached.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from scipy import stats

from regraft.backbones.catalog import DEFAULT_BACKBONE
from regraft.classifiers.shallow import fit_shallow
from regraft.data.dataset import Dataset
from regraft.explain.neighbours import unit_rows
from regraft.features.extractor import FeatureExtractor
from regraft.labels.next_labels import choose_next, uncertainty

RESULTS = Path(__file__).with_suffix(".csv")
DRAWS, STEPS, START, TEST = 20, 6, 5, 0.25


def main() -> None:
    """Simulate every folder and write what came of it."""
    rows = []
    for folder in map(Path, sys.argv[1:]):
        images = Dataset.from_folder(folder)
        features = FeatureExtractor(DEFAULT_BACKBONE).transform(images.paths)
        labels = np.unique(np.array(images.labels, dtype=object), return_inverse=True)[1]
        found = np.array([draw(features, labels, seed) for seed in range(DRAWS)])
        for step in range(STEPS + 1):
            row = {"set": folder.name, "labels": len(images.classes) * (START + 2 * step)}
            chosen, chance = found[:, 0, step], found[:, 1, step]
            columns = {"chosen": chosen, "random": chance, "difference": chosen - chance}
            for name, values in columns.items():
                half = stats.t.ppf(0.975, DRAWS - 1) * values.std(ddof=1) / DRAWS**0.5
                mean = 100 * values.mean()
                row |= {name: f"{mean:.1f}", f"{name}_low": f"{mean - 100 * half:.1f}"}
                row |= {f"{name}_high": f"{mean + 100 * half:.1f}"}
            rows.append(row)
            print(row, flush=True)
    with RESULTS.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(features: np.ndarray, labels: np.ndarray, seed: int) -> list[list[float]]:
    """Return the test accuracy after each step, of what is chosen and of what is drawn."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(labels))
    of_class = [order[labels[order] == name] for name in range(labels.max() + 1)]
    cuts = [round(TEST * len(places)) for places in of_class]
    test = np.concatenate([p[:cut] for p, cut in zip(of_class, cuts, strict=True)])
    start = np.concatenate([p[cut : cut + START] for p, cut in zip(of_class, cuts, strict=True)])
    pool = np.concatenate([p[cut + START :] for p, cut in zip(of_class, cuts, strict=True)])
    size = 2 * len(of_class)
    curves = []
    for choose in (True, False):
        known, left, curve = start, pool, []
        for _ in range(STEPS + 1):
            fitted = fit_shallow(features[known], labels[known], grid=None)
            right = fitted.predict_proba(features[test]).argmax(axis=1) == labels[test]
            curve.append(float(right.mean()))
            if choose:
                uncertain = uncertainty(fitted.predict_proba(features[left]))
                taken = choose_next(unit_rows(features[left]), uncertain, count=size, seed=seed)
            else:
                taken = random.choice(len(left), size, replace=False)
            known, left = np.append(known, left[taken]), np.delete(left, taken)
        curves.append(curve)
    return curves


if __name__ == "__main__":
    main()
