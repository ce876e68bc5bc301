"""Write the trained backbone as the file that travels in the package: float16, with its facts.

python pretrain/export.py --run RUN --out regraft_mini.safetensors --size 128
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from regraft.backbones.mini import GUESSED
from regraft.backbones.spec import Preprocessing

LARGEST = 6_000_000  # bytes that the package may spend on it


def averaged_student(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a finished run, or the running average of an unfinished one."""
    if (run / "student.pt").exists():
        return torch.load(run / "student.pt", weights_only=True)
    average = torch.load(run / "checkpoint.pt", weights_only=True)["average"]
    return {k.removeprefix("module."): v for k, v in average.items() if k.startswith("module.")}


def with_guesses(student: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the backbone, its last layer the student's guesses of ViT-Tiny's features.

    Of these the ones with the largest weights are kept: what could not be guessed has small ones.
    """
    weight, bias = student["features.vit.weight"], student["features.vit.bias"]
    kept = weight.norm(dim=1).topk(GUESSED).indices.sort().values
    prefix = "backbone."
    backbone = {k.removeprefix(prefix): v for k, v in student.items() if k.startswith(prefix)}
    last = {"head.3.weight": weight[kept, :, None, None], "head.3.bias": bias[kept]}
    return backbone | last


def main() -> None:
    """Write the file, or refuse where a number does not fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, required=True, help="default side in pixels")
    arguments = parser.parse_args()
    state = {
        key: value.half().contiguous() if value.is_floating_point() else value
        for key, value in with_guesses(averaged_student(arguments.run)).items()
    }
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise SystemExit("a weight is not finite in float16")
    preprocessing = Preprocessing(size=arguments.size, resize=round(arguments.size * 8 / 7))
    last = json.loads((arguments.run / "log.jsonl").read_text().splitlines()[-1])
    metadata = {
        "format": "pt",
        "backbone": "regraft_mini",
        "preprocessing": json.dumps(preprocessing.to_json()),
        "images_seen": str(last["images"]),
    }
    save_file(state, arguments.out, metadata=metadata)
    size = arguments.out.stat().st_size
    if size > LARGEST:
        raise SystemExit(f"{arguments.out} has {size} bytes, more than {LARGEST}")
    print(f"{arguments.out}: {size} bytes")


if __name__ == "__main__":
    main()
