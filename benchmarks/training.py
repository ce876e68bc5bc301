"""The same training, three ways: Regraft, Keras on TensorFlow and plain PyTorch.

VGG16 with a head of 512, 512 and 5 units, SGD at 0.01, batches of 32, no augmentation: once with
the whole trunk frozen, once with its fifth block trained. Weights are random, images are drawn:
both cost the same time as real ones. Every measurement runs in a fresh process, all ways take turns
within a round, and what counts is the median over the rounds of the ratio within a round. Writes
``training.csv`` beside this file.

    python benchmarks/training.py [--rounds 3] [--sizes 150 224] [--precisions fp32 bf16]

With a frozen trunk Regraft is timed whole, from files to a trained network. The other two do the
same in every epoch, so that one epoch of a part of the images is timed and multiplied. With block
5, epochs of that part are timed on all ways, and what Regraft does once is reported beside them.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from training_images import draw_images

HERE = Path(__file__).parent
RESULTS = Path(__file__).with_suffix(".csv")
RATE = 0.01
FINE_TUNING = 4  # epochs of block 5 that are timed; the first one warms up and does not count
DISTURBED = 0.05  # share of the machine that others may take while something is timed
Row = dict[str, Any]


def main() -> None:
    """Measure round by round, write every measurement and print the medians."""
    chosen = arguments()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        whole, part = Path(name) / "whole", Path(name) / "part"
        draw_images(whole, chosen.images)
        draw_images(part, chosen.part)
        turns = itertools.product(chosen.sizes, range(1, 1 + chosen.rounds), chosen.tasks)
        for size, number, task in turns:
            for way in ways(chosen.precisions):
                row = {"round": number, "task": task, "size": size, "way": way}
                row |= measured(way, {"task": task, "size": size, "lr": RATE}, whole, part, chosen)
                rows.append(row)
                print(row, flush=True)
                write(rows)
    for task, size in itertools.product(chosen.tasks, chosen.sizes):
        print("\n".join(summary(rows, task, size)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[150, 224])
    parser.add_argument("--tasks", nargs="+", default=["frozen", "block5"])
    parser.add_argument("--precisions", nargs="+", help="by default all that the processor has")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument(
        "--part", type=int, default=96, help="images of a timed epoch of the others"
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--attempts", type=int, default=3, help="at an undisturbed measurement")
    chosen = parser.parse_args()
    chosen.precisions = chosen.precisions or (["fp32", "bf16"] if has_bf16() else ["fp32"])
    return chosen


def has_bf16() -> bool:
    """Return whether the processor computes in bf16; emulated, it is far slower than fp32."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def ways(precisions: list[str]) -> list[str]:
    return [*(f"regraft {precision}" for precision in precisions), "keras fp32", "torch fp32"]


def measured(
    way: str, job: Row, whole: Path, part: Path, chosen: argparse.Namespace
) -> dict[str, Any]:
    """Run one way and return its seconds per epoch of all images, and for the whole work."""
    name, precision = way.split()
    scale = chosen.images / chosen.part
    if name != "regraft":
        job = {**job, "folder": str(part), "epochs": 1}
        found, others = undisturbed(HERE / f"training_{name}.py", job, chosen.attempts)
        epoch = found["epochs"][0] * scale
        total = chosen.epochs * epoch
    elif job["task"] == "frozen":
        job = {**job, "folder": str(whole), "epochs": chosen.epochs, "precision": precision}
        found, others = undisturbed(HERE / "training_regraft.py", job, chosen.attempts)
        epoch, total = statistics.median(found["epochs"]), found["whole"]
    else:
        job = {**job, "folder": str(part), "epochs": FINE_TUNING, "precision": precision}
        found, others = undisturbed(HERE / "training_regraft.py", job, chosen.attempts)
        epoch, total = scale * statistics.median(found["epochs"][1:]), None
    return {
        "images": chosen.images if "whole" in found and total else chosen.part,
        "build_s": round(found.get("build", 0.0), 2),
        "once_s": round(found.get("once", 0.0), 2),
        "epoch_s": round(epoch, 3),
        "total_s": None if total is None else round(total, 1),
        "taken_by_others": round(others, 3),
        "loss": found.get("loss"),
    }


def undisturbed(script: Path, job: Row, attempts: int) -> tuple[dict[str, Any], float]:
    """Run a script until others leave the machine alone, and return the least disturbed run.

    Returns:
        What it printed, and the share of all processors that others took meanwhile.
    """
    runs = []
    for _ in range(attempts):
        runs.append(timed(script, job))
        if runs[-1][1] <= DISTURBED:
            break
    return min(runs, key=lambda run: run[1])


def timed(script: Path, job: Row) -> tuple[dict[str, Any], float]:
    """Run a script in a fresh process; return what it printed and what others took meanwhile."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    with tempfile.TemporaryDirectory() as home:
        before, own, start = busy(), children(), time.perf_counter()
        result = subprocess.run(
            [sys.executable, "-W", "ignore", script, json.dumps(job)],
            env=os.environ | quiet | {"REGRAFT_HOME": home},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        wall = time.perf_counter() - start
        others = (busy() - before - (children() - own)) / (wall * psutil.cpu_count())
    return json.loads(result.stdout.splitlines()[-1]), max(others, 0.0)


def busy() -> float:
    """Return the seconds that all processors have worked, or that a host has withheld them."""
    spent = psutil.cpu_times()._asdict()
    return sum(
        spent.get(kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal")
    )


def children() -> float:
    spent = os.times()
    return spent.children_user + spent.children_system + spent.user + spent.system


def write(rows: list[Row]) -> None:
    with RESULTS.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def summary(rows: list[Row], task: str, size: int) -> list[str]:
    """Return lines of a table: medians, and the ratios of the others to each way of Regraft."""
    counted = "total_s" if task == "frozen" else "epoch_s"
    here = [row for row in rows if (row["task"], row["size"]) == (task, size)]
    names = list(dict.fromkeys(row["way"] for row in here))
    seconds = {
        name: {row["round"]: row[counted] for row in here if row["way"] == name} for name in names
    }
    lines = ["", f"{task}, {size} px, {counted}:"]
    for name in names:
        lines.append(f"  {name}: {spread(list(seconds[name].values()))}")
        if name.startswith("regraft"):
            lines += [
                f"    {other} / {name}: "
                + spread([seconds[other][n] / own for n, own in seconds[name].items()])
                for other in names
                if not other.startswith("regraft")
            ]
    return lines


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


if __name__ == "__main__":
    main()
