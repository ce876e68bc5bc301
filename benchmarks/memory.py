"""Peak memory of an extraction to HDF5, for growing numbers of images.

Every measurement runs in a fresh process: images from disk, features to the cache and from there
to an HDF5 file, as ``regraft extract`` does it. Writes ``memory.csv`` beside this file.

    python benchmarks/memory.py [--sizes 500 1000 2000 5000] [--engines torch openvino]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

RESULTS = Path(__file__).with_suffix(".csv")
NETWORK = "squeezenet1_1"


def main() -> None:
    """Measure all sizes with all engines, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 1000, 2000, 5000])
    parser.add_argument("--engines", nargs="+", default=["torch", "openvino"])
    parser.add_argument("--repeats", type=int, default=1)
    chosen = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), max(chosen.sizes))
        for _ in range(chosen.repeats):
            for engine in chosen.engines:
                for images in chosen.sizes:
                    rows.append(
                        {"engine": engine, "images": images} | measure(folder, engine, images)
                    )
                    print(rows[-1], flush=True)
    with RESULTS.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for engine in chosen.engines:
        peaks = {
            size: max(r["peak_mib"] for r in rows if (r["engine"], r["images"]) == (engine, size))
            for size in chosen.sizes
        }
        growth = peaks[max(peaks)] / peaks[min(peaks)] - 1
        print(f"{engine}: {growth:+.1%} from {min(peaks)} to {max(peaks)} images")


def draw(folder: Path, count: int) -> None:
    """Write distinct JPEGs of 500×375: smooth colours with fine noise, about 80 KB each."""
    random = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + random.integers(-12, 13, smooth.shape, dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
            folder / f"{i:05}.jpg", quality=90
        )


def measure(folder: str, engine: str, images: int) -> dict[str, float]:
    """Run one extraction in a fresh process and return what it measured."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, __file__, "--extract", folder, engine, str(images), home]
        result = subprocess.run(
            command,
            env=os.environ | {"REGRAFT_HOME": home},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(result.stdout.splitlines()[-1])


def extract(folder: str, engine: str, images: int, out: str) -> None:
    """Extract the features of the first images of a folder and print the memory that it took."""
    from regraft.backbones.spec import BackboneSpec, Compute
    from regraft.features.extractor import FeatureExtractor
    from regraft.features.hdf5 import write_features

    paths = sorted(Path(folder).iterdir())[:images]
    extractor = FeatureExtractor(
        BackboneSpec(NETWORK, weights=None), compute=Compute(engine=engine)
    )
    extractor.transform(paths[:32])  # the network, its engine and one batch are there from here on
    started = peak_mib()
    embedded = extractor.stream(paths)
    write_features(Path(out) / "out.h5", embedded, ["a"] * images, classes=["a"])
    report = {
        "width": embedded.width,
        "started_mib": round(started),
        "peak_mib": round(peak_mib()),
        "images_per_second": round(embedded.embedded / embedded.seconds),
    }
    print(json.dumps(report))


def peak_mib() -> float:
    """Return the largest resident memory that this process ever had, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


if __name__ == "__main__":
    if sys.argv[1:2] == ["--extract"]:
        extract(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
    else:
        main()
