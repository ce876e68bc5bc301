"""Whether class-activation maps lie on the flower: of a fine-tuned network, and of a random one.

Twenty photographs of five flowers have a box drawn by hand around the flowers. A network is
fine-tuned on others, and measured is how much of a map's weight lies inside the box. Writes
``maps.csv`` beside this file, a row per image and method.

    python benchmarks/maps.py FOLDER

FOLDER has one folder of images for each of the five flowers.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from regraft.backbones.spec import BackboneSpec
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.data.dataset import Dataset
from regraft.data.images import open_image
from regraft.explain.maps import class_maps
from regraft.training.phases import frozen, two_stage

RESULTS = Path(__file__).with_suffix(".csv")
NETWORK, EACH, SEED = "efficientnet_lite0", 60, 0
# Left, top, right and bottom as shares of the upright image. Photographs were drawn at random, and
# kept where one box holds every flower without holding nearly the whole image.
BOXES = {
    "daisy/34590677231_0ed33ccd55_n.jpg": (0.32, 0.22, 0.97, 0.84),
    "daisy/3491933306_43cfe2cfbe.jpg": (0.50, 0.32, 0.66, 0.45),
    "daisy/14021430525_e06baf93a9.jpg": (0.30, 0.35, 0.76, 0.90),
    "daisy/2838487505_6c3b48efa5_m.jpg": (0.11, 0.02, 0.99, 0.79),
    "dandelion/455728598_c5f3e7fc71_m.jpg": (0.09, 0.09, 0.86, 0.62),
    "dandelion/4632761610_768360d425.jpg": (0.17, 0.09, 0.82, 0.91),
    "dandelion/4586018734_6de9c513c2.jpg": (0.24, 0.43, 0.65, 0.66),
    "dandelion/4082856478_741a411ebb.jpg": (0.33, 0.27, 0.60, 0.68),
    "rose/5002458616_b1719ccc40_n.jpg": (0.24, 0.24, 0.50, 0.53),
    "rose/5578766623_542c91dfaa_n.jpg": (0.19, 0.05, 0.83, 0.53),
    "rose/5156037859_1673720a11_m.jpg": (0.06, 0.15, 0.84, 0.80),
    "rose/4612830331_2a44957465_n.jpg": (0.37, 0.22, 0.83, 0.74),
    "sunflower/5025805406_033cb03475_n.jpg": (0.28, 0.02, 0.59, 0.60),
    "sunflower/6482016439_b0d06dac04.jpg": (0.35, 0.22, 0.68, 0.72),
    "sunflower/1022552002_2b93faf9e7_n.jpg": (0.24, 0.07, 0.82, 0.86),
    "sunflower/23894449029_bf0f34d35d_n.jpg": (0.33, 0.21, 0.68, 0.73),
    "sunflower/9400904374_37723396e3_n.jpg": (0.15, 0.16, 0.65, 0.82),
    "tulip/8733586143_3139db6e9e_n.jpg": (0.05, 0.10, 0.50, 0.47),
    "tulip/14064731501_ea14b58161.jpg": (0.28, 0.06, 0.92, 0.96),
    "tulip/4681062529_36186617d9.jpg": (0.13, 0.04, 0.77, 0.72),
}


def main() -> None:
    """Fine-tune a network and compare where its maps lie with those of a random one."""
    folder = Path(sys.argv[1])
    names, labels = list(BOXES), [name.partition("/")[0] for name in BOXES]
    images = [folder / name for name in names]
    learned = learn(folder, NETWORK, two_stage(2, head_epochs=10, unfreeze=0.5))
    random = learn(folder, BackboneSpec(NETWORK, weights=None), frozen(1))
    boxes = [box_in_view(learned, name, image) for name, image in zip(names, images, strict=True)]
    rows = []
    for method in ("grad-cam", "occlusion"):
        maps = (class_maps(one, images, labels, method=method) for one in (learned, random))
        shares = [list(map(share_inside, found, boxes)) for found in maps]
        for name, box, *both in zip(names, boxes, *shares, strict=True):
            values = {"fine_tuned": both[0], "random": both[1], "area": box.mean()}
            told = {key: round(float(value), 3) for key, value in values.items()}
            rows.append({"method": method, "path": name, **told})
        tell(method, rows[-len(names) :])
    right = (learned.predict(images) == np.array(labels)).sum()
    print(f"the fine-tuned network names {right} of {len(names)} images rightly")
    with RESULTS.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def learn(folder, backbone, phases) -> NetworkClassifier:
    """Return a network that has learned the first images of each class that have no box."""
    every, taken = Dataset.from_folder(folder), []
    paths = zip(every.paths, every.relative_paths(), every.labels, strict=True)
    drawn = np.random.default_rng(SEED).permutation(len(every.labels))
    listed = list(paths)
    for index in drawn:
        path, relative, label = listed[index]
        if relative not in BOXES and sum(label == other for _, other in taken) < EACH:
            taken.append((path, label))
    learner = NetworkClassifier(backbone, phases=phases, seed=SEED)
    return learner.fit(*map(list, zip(*taken, strict=True)))


def box_in_view(learner, name, image):
    """Return where the box is in the square that enters the network, 1 inside and 0 outside."""
    opened = open_image(image)
    drawn = np.zeros((opened.height, opened.width, 3), np.uint8)
    left, top, right, bottom = BOXES[name]
    rows = slice(round(top * opened.height), round(bottom * opened.height))
    drawn[rows, round(left * opened.width) : round(right * opened.width)] = 255
    return learner.backbone_.prepare(Image.fromarray(drawn))[..., 0] / 255


def share_inside(found, box) -> float:
    """Return the share of a map's weight inside a box; of an empty map the box's own share."""
    side = len(box)
    cells = np.linspace(0, len(found), side, endpoint=False).astype(int)
    fine = found[np.ix_(cells, cells)]
    return float((fine * box).sum() / fine.sum()) if fine.any() else float(box.mean())


def tell(method, rows) -> None:
    """Print means, and mean differences with the 95 % interval of a bootstrap over images."""
    columns = {
        key: np.array([row[key] for row in rows]) for key in ("fine_tuned", "random", "area")
    }
    print(method, {key: round(float(values.mean()), 3) for key, values in columns.items()})
    for other in ("random", "area"):
        gain = columns["fine_tuned"] - columns[other]
        drawn = np.random.default_rng(SEED).choice(gain, (10_000, len(gain))).mean(1)
        low, high = np.quantile(drawn, (0.025, 0.975))
        more = int((gain > 0).sum())
        print(f"  more than {other}: {gain.mean():.3f} ({low:.3f} to {high:.3f}), {more} images")


if __name__ == "__main__":
    main()
