"""The plain PyTorch way: images from the folder and through the whole network in every epoch.

Started by ``training.py``; takes a job as JSON and prints what it measured as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import vgg16


def main(job: dict) -> dict:
    prepare = transforms.Compose(
        [
            transforms.Resize((job["size"], job["size"])),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    images = DataLoader(
        ImageFolder(job["folder"], prepare),
        batch_size=32,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
    )
    trunk = vgg16(weights=None).features
    first = 24 if job["task"] == "block5" else len(trunk)
    trunk[:first].requires_grad_(requires_grad=False)
    width = 512 * (job["size"] // 32) ** 2
    network = nn.Sequential(
        trunk,
        nn.Flatten(),
        nn.Linear(width, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 5),
    )
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=job["lr"])
    seconds = []
    for _ in range(1 + job["epochs"]):
        start = time.perf_counter()
        for batch, labels in images:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(batch), labels).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    return {"epochs": seconds[1:], "first_epoch": seconds[0]}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
