"""Ask the teachers once what they see, and keep their answers beside the pictures.

Every tile is shown in two views: whole, and a fixed random part of it; every crop of the other
photographs in one. For each view the teachers' pooled features and 1000 logits are stored as
float16. Training shows the student the same part of the picture that its teachers saw.

    python pretrain/teach.py --weights FOLDER --out WORK
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openvino as ov
import timm
import torch
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch.nn.functional import interpolate

SIZE = 160  # the tiles hold 64 px: 224 px costs twice the time and brings 3 points of agreement
BATCH = 64
TEACHERS = {
    "vit": ("vit_tiny_patch16_224", {"img_size": SIZE}),
    "mobilenet": ("mobilenetv1_100", {"pad_type": "same"}),
}


class Teacher(torch.nn.Module):
    """A timm network that takes bytes (n, 3, SIZE, SIZE) and gives pooled features and logits."""

    def __init__(self, name: str, arguments: dict[str, object], folder: Path) -> None:
        super().__init__()
        self.network = timm.create_model(name, **arguments).eval()
        state = {
            key: value.float() for key, value in load_file(folder / f"{name}.safetensors").items()
        }
        if "pos_embed" in state:
            grid = (SIZE // 16, SIZE // 16)
            state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], grid)
        self.network.load_state_dict(state)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (n, d) and logits (n, 1000)."""
        maps = self.network.forward_features(pixels / 127.5 - 1)
        features = self.network.forward_head(maps, pre_logits=True)
        return features, self.network.get_classifier()(features)


def whole(count: int, side: int) -> np.ndarray:
    """Return boxes that hold the whole picture."""
    return np.tile(np.array([0, 0, side, side], np.int16), (count, 1))


def enlarge(picture: np.ndarray, box: np.ndarray) -> torch.Tensor:
    """Return the part `box` of a picture (h, w, 3) as (1, 3, SIZE, SIZE), still 0 to 255."""
    top, left, height, width = (int(value) for value in box)
    part = torch.from_numpy(picture[top : top + height, left : left + width].copy())
    part = part.permute(2, 0, 1)[None].float()
    return interpolate(part, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 255)


def batches(pictures: np.ndarray, boxes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield start and batch; the last batch is filled up with its last picture."""
    for start in range(0, len(pictures), BATCH):
        rows = np.minimum(np.arange(start, start + BATCH), len(pictures) - 1)
        yield start, torch.cat([enlarge(pictures[i], boxes[i]) for i in rows]).numpy()


def teach(pictures: np.ndarray, boxes: np.ndarray, teachers: dict[str, ov.CompiledModel]) -> dict:
    """Return features and logits of every teacher for one view of every picture."""
    answers = {key: ([], []) for key in teachers}
    for start, batch in batches(pictures, boxes):
        for key, teacher in teachers.items():
            features, logits = teacher(batch).to_tuple()
            answers[key][0].append(features.astype(np.float16))
            answers[key][1].append(logits.astype(np.float16))
        if start // BATCH % 50 == 0:
            print(f"{start}/{len(pictures)}", flush=True)
    named = {}
    for key, (features, logits) in answers.items():
        named[f"{key}_features"] = np.concatenate(features)[: len(pictures)]
        named[f"{key}_logits"] = np.concatenate(logits)[: len(pictures)]
    return named


def compile_teacher(name: str, arguments: dict[str, object], folder: Path) -> ov.CompiledModel:
    """Return a teacher compiled for this processor in bfloat16."""
    with torch.no_grad():
        example = torch.zeros(BATCH, 3, SIZE, SIZE)
        teacher = Teacher(name, arguments, folder)
        model = ov.convert_model(teacher, example_input=example, input=[*example.shape])
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
    return ov.Core().compile_model(model, "CPU", settings)


def main() -> None:
    """Write one folder of arrays per view; views already there are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    tiles = np.load(arguments.out / "tiles.npy", mmap_mode="r")
    photographs = np.load(arguments.out / "photographs.npy", mmap_mode="r")
    views = {
        "tiles_whole": (tiles, whole(len(tiles), tiles.shape[1])),
        "photographs": (photographs, whole(len(photographs), photographs.shape[1])),
    }
    teachers = {
        key: compile_teacher(*teacher, arguments.weights) for key, teacher in TEACHERS.items()
    }
    for view, (pictures, boxes) in views.items():
        folder = arguments.out / view
        if (folder / "boxes.npy").exists():
            continue
        print(f"view {view}: {len(pictures)} pictures", flush=True)
        folder.mkdir(exist_ok=True)
        for name, array in teach(pictures, boxes, teachers).items():
            np.save(folder / f"{name}.npy", array)
        np.save(folder / "boxes.npy", boxes)  # last: it marks the view as complete


if __name__ == "__main__":
    main()
