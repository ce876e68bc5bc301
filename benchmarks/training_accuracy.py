"""Whether the faster way learns as much: the same frozen trunk and head, trained two ways.

Trained weights, real images and one split: plain PyTorch sends every image through the whole
network in every epoch, Regraft once. Head of 512 and 512 units on the flattened map, SGD at 0.01,
batches of 32, no augmentation. Writes ``training_accuracy.csv`` beside this file.

    python benchmarks/training_accuracy.py --data FOLDER --weights FILE
        [--backbone mobilenetv2_100] [--arguments '{"pad_type": "same"}'] [--epochs 30]

FOLDER has one folder per class; FILE holds the network's weights as safetensors, trained for
images in the range -1 to 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.data.dataset import Dataset, Split
from regraft.results.intervals import wilson
from regraft.training.phases import Phase

RESULTS = Path(__file__).with_suffix(".csv")


def main() -> None:
    """Train both ways on one split and write how many test images each gets right."""
    chosen = arguments()
    split = Dataset.from_folder(chosen.data).split(val=0.0, test=chosen.test, seed=chosen.seed)
    truth = list(split.test.labels)
    rows = []
    for way in ("torch fp32", *(f"regraft {precision}" for precision in chosen.precisions)):
        start = time.perf_counter()
        found = (
            with_torch(split, chosen) if way == "torch fp32" else with_regraft(split, chosen, way)
        )
        share = wilson(sum(a == b for a, b in zip(found, truth, strict=True)), len(truth))
        rows.append(
            {
                "way": way,
                "train": len(split.train),
                "test": share.n,
                "accuracy": round(share.value, 4),
                "low": round(share.low, 4),
                "high": round(share.high, 4),
                "seconds": round(time.perf_counter() - start, 1),
            }
        )
        print(rows[-1], flush=True)
        with RESULTS.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenetv2_100", help="as timm calls it")
    parser.add_argument("--arguments", type=json.loads, default={"pad_type": "same"})
    parser.add_argument("--precisions", nargs="+", default=["fp32"])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--test", type=float, default=0.5, help="share of the images, 0 to 1")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def with_regraft(split: Split, chosen: argparse.Namespace, way: str) -> Sequence[str]:
    """Return the classes that Regraft names on the test part."""
    learner = NetworkClassifier(
        BackboneSpec(
            chosen.backbone,
            weights=str(chosen.weights),
            arguments=chosen.arguments,
            preprocessing=Preprocessing.tf(),
        ),
        head="mlp_512_512",
        phases=[Phase(epochs=chosen.epochs, optimizer="sgd", lr=0.01)],
        seed=chosen.seed,
        compute=Compute(precision=way.split()[1], device="cpu", cache=None),
    )
    learner.fit(split.train.paths, split.train.labels)
    return [str(name) for name in learner.predict(split.test.paths)]


class Folder(TorchDataset):
    """Images and the numbers of their classes, decoded whenever they are asked for."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        form = Preprocessing.tf()
        self.prepare = transforms.Compose(
            [
                transforms.Resize(form.resize, transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(form.size),
                transforms.ToTensor(),
                transforms.Normalize(form.mean, form.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.open(self.data.paths[index]).convert("RGB")
        return self.prepare(image), self.data.classes.index(self.data.labels[index])


def with_torch(split: Split, chosen: argparse.Namespace) -> Sequence[str]:
    """Return the classes that plain PyTorch names on the test part."""
    torch.manual_seed(chosen.seed)
    trunk = timm.create_model(chosen.backbone, **chosen.arguments)
    trunk.load_state_dict({k: v.float() for k, v in load_file(chosen.weights).items()})
    trunk.requires_grad_(requires_grad=False).eval()
    with torch.no_grad():
        width = trunk.forward_features(torch.zeros(1, 3, 224, 224)).numel()
    head = nn.Sequential(
        nn.Flatten(),
        nn.Linear(width, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, len(split.classes)),
    )
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01)
    for _ in range(chosen.epochs):
        for batch, labels in DataLoader(Folder(split.train), 32, shuffle=True, num_workers=2):
            optimizer.zero_grad()
            with torch.no_grad():
                maps = trunk.forward_features(batch)
            nn.functional.cross_entropy(head(maps), labels).backward()
            optimizer.step()
    with torch.inference_mode():
        found = [
            head(trunk.forward_features(batch)).argmax(1)
            for batch, _ in DataLoader(Folder(split.test), 32, num_workers=2)
        ]
    return [split.classes[index] for index in torch.cat(found)]


if __name__ == "__main__":
    main()
