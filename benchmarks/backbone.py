"""Pictures per second of `regraft_mini` beside networks that others use for the same purpose.

All networks take turns within a round, and what counts is the median of the ratios within a round,
so that a machine which is slow for a while is slow for all of them. Random weights; one thread, for
what other processes take from a second one would be measured, too. Writes ``backbone.csv``.

    python benchmarks/backbone.py [--size 128] [--rounds 9] [--peers mobilenetv2_100 resnet18]
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import openvino as ov
import timm
import torch
from regraft.backbones.mini import RegraftMini
from torch import nn

RESULTS = Path(__file__).with_suffix(".csv")
OURS = "regraft_mini"
BATCH = 32
LEAST = 1.0  # seconds of work in one measurement
Run = Callable[[], object]


def eager(network: nn.Module, images: torch.Tensor) -> Run:
    """Return a pass in eager float32."""
    return lambda: network(images)


def channels_last(network: nn.Module, images: torch.Tensor) -> Run:
    """Return the same with channels last in memory."""
    network = network.to(memory_format=torch.channels_last)
    return eager(network, images.to(memory_format=torch.channels_last))


def openvino(network: nn.Module, images: torch.Tensor) -> Run:
    """Return a pass of the compiled network, float32 in one stream."""
    model = ov.convert_model(network, example_input=images, input=[*images.shape])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    compiled = ov.Core().compile_model(model, "CPU", settings)
    pixels = images.numpy()
    return lambda: compiled(pixels)


WAYS = {"eager": eager, "channels last": channels_last, "openvino": openvino}


def built(name: str) -> nn.Module:
    """Return a network that gives features, with random weights."""
    network = RegraftMini() if name == OURS else timm.create_model(name, num_classes=0)
    return network.eval()


def speed(run: Run) -> float:
    """Return pictures per second over at least a second."""
    begun, batches = time.perf_counter(), 0
    while (seconds := time.perf_counter() - begun) < LEAST:
        run()
        batches += 1
    return batches * BATCH / seconds


@torch.inference_mode()
def main() -> None:
    """Measure all ways, print the table and write every round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peers", nargs="+", default=["mobilenetv2_100", "resnet18"])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.randn(BATCH, 3, chosen.size, chosen.size)
    rows = []
    for way, prepare in WAYS.items():
        runs = {name: prepare(built(name), images) for name in (OURS, *chosen.peers)}
        for run in runs.values():  # the first passes choose kernels
            speed(run)
        for number in range(chosen.rounds):
            rows += [
                {"way": way, "size": chosen.size, "round": number, "network": name,
                 "pictures_per_second": round(speed(run), 1)}
                for name, run in runs.items()
            ]  # fmt: skip
        report([row for row in rows if row["way"] == way], chosen.peers)
    with RESULTS.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "openvino")))


def report(rows: list[dict], peers: list[str]) -> None:
    """Print how many times as many pictures as each peer; median, least and most of the rounds."""
    speeds = {(row["network"], row["round"]): row["pictures_per_second"] for row in rows}
    rounds = sorted({number for _, number in speeds})
    own = median(speeds[OURS, number] for number in rounds)
    for peer in peers:
        ratios = [speeds[OURS, number] / speeds[peer, number] for number in rounds]
        span = f"{min(ratios):.2f} to {max(ratios):.2f}"
        times = f"{median(ratios):5.2f} × {peer} ({span})"
        print(f"{rows[0]['way']:14} {own:6.0f}/s {times}", flush=True)


if __name__ == "__main__":
    main()
