"""How long it takes from the start of a process to the first printed label.

A run of the default network (features and logistic regression) on drawn flowers is exported.
`regraft predict RUN IMAGE` is then timed in processes of their own, with compiled bytecode, in
turns: with the exported model, and with the fitted one, which needs torch. The processor time is
that of the process with its threads: work beside it stretches the one time and not the other.

    python benchmarks/first_prediction.py

Writes ``first_prediction.csv`` beside this file: a row for each process.
"""

from __future__ import annotations

import csv
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from regraft.data.synthetic import make_flowers
from regraft.deploy.predictor import FOLDER
from regraft.experiment.config import DataConfig, MethodConfig, RunConfig
from regraft.experiment.export import export_run
from regraft.experiment.run import fit_run

RESULTS = Path(__file__).with_suffix(".csv")
ROUNDS = 5


def main() -> None:
    """Fit, export, time, and write what came of it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_flowers(folder / "flowers", species=3, per_class=20)
        config = RunConfig(DataConfig(folder / "flowers"), MethodConfig(explain=False))
        run = fit_run(config, out=folder / "exported").folder
        shutil.copytree(run, folder / "torch")
        print(export_run(run))
        image = next((folder / "flowers").rglob("*.jpg"))
        assert (run / "model" / FOLDER).is_dir()
        ways = {"exported": run, "torch": folder / "torch"}
        for way in ways.values():  # compiles bytecode, and warms the disk cache for both
            timed(way, image)
        rows = [
            {"round": number, "way": name, **timed(way, image)}
            for number in range(ROUNDS)
            for name, way in ways.items()
        ]
    for name in ways:
        wall, processor = (
            statistics.median(row[key] for row in rows if row["way"] == name)
            for key in ("seconds", "processor_seconds")
        )
        print(f"{name}: {wall:.2f} s, of the processor {processor:.2f} s (medians of {ROUNDS})")
    with RESULTS.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def timed(run: Path, image: Path) -> dict[str, float]:
    """Return how long a process takes for a prediction, by the clock and by the processor."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "regraft", "predict", str(run), str(image)]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 3), "processor_seconds": round(used, 3)}


if __name__ == "__main__":
    main()
