"""How many labels that were changed on purpose `regraft data suspects` finds.

Of the images of a folder 5 % get the label of another class, drawn at random; the suspects are
looked for with the default network, and as many as labels were changed are taken, surest first.
Writes ``suspects.csv`` beside this file: how many of those were changed indeed.

    python benchmarks/suspects.py FOLDER [SEEDS]

FOLDER has one folder of images for each class; SEEDS is 3 unless it is given.
"""

from __future__ import annotations

import csv
import random
import sys
import tempfile
from pathlib import Path

from regraft.backbones.catalog import DEFAULT_BACKBONE
from regraft.data.dataset import Dataset
from regraft.experiment.config import DataConfig
from regraft.features.extractor import FeatureExtractor
from regraft.labels.suspects import find_suspects
from regraft.results.intervals import wilson

RESULTS = Path(__file__).with_suffix(".csv")
SHARE = 0.05


def main() -> None:
    """Look for changed labels with every seed and write how many are found."""
    folder, seeds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    images = Dataset.from_folder(folder)
    rows = []
    for seed in range(seeds):
        changed, labels = change(images, seed)
        with tempfile.TemporaryDirectory() as place:
            table = Path(place, "changed.csv")
            with table.open("w", newline="") as stream:
                writer = csv.writer(stream)
                writer.writerow(("path", "label"))
                writer.writerows(zip(images.relative_paths(), labels, strict=True))
            data = DataConfig(table, root=folder)
            found = find_suspects(data, FeatureExtractor(DEFAULT_BACKBONE)).suspects
        first = found[: len(changed)]
        share = wilson(sum(one.path in changed for one in first), len(changed))
        rows.append(
            {
                "set": folder.name,
                "seed": seed,
                "changed": len(changed),
                "suspects": len(found),
                "changed_among_all": sum(one.path in changed for one in found),
                "precision": round(share.value, 3),
                "low": round(share.low, 3),
                "high": round(share.high, 3),
            }
        )
        print(rows[-1], flush=True)
    with RESULTS.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def change(images: Dataset, seed: int) -> tuple[set[str], list[str]]:
    """Return the paths of the images with another label than their own, and the labels of all."""
    draw, labels = random.Random(seed), list(images.labels)
    places = draw.sample(range(len(labels)), round(SHARE * len(labels)))
    for place in places:
        labels[place] = draw.choice([name for name in images.classes if name != labels[place]])
    paths = images.relative_paths()
    return {paths[place] for place in places}, labels


if __name__ == "__main__":
    main()
