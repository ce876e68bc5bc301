"""Draw what was logged and measured: `curves.svg` and `probes.svg`.

python pretrain/plots.py --log pretrain/log-*.jsonl --probes pretrain/probes.json --out pretrain
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from regraft.report.figures import element, percent_axis, standalone

# Pictures per class in the training part, so that "all" has a place on the axis.
TRAINING = {
    "flowers5": 1500 / 5,
    "flowers17": 1020 / 17,
    "animals": 337 / 3,
    "hymenoptera": 243 / 2,
    "chest_xray": 5216 / 2,
}
COLOURS = ("#1f6f8b", "#9aa3a8", "#b4532a", "#6a51a3", "#3d7a3a", "#c08a1e")
LOSSES = {
    "labels": ("labels of tiles", COLOURS[0]),
    "probabilities": ("teachers' probabilities", COLOURS[2]),
    "vit": ("features of ViT-Tiny", COLOURS[3]),
    "mobilenet": ("features of MobileNetV1", COLOURS[4]),
}
FEW = 20


def read_logs(files: Sequence[Path], kind: str) -> list[dict[str, Any]]:
    """Return the lines that have `kind`, each run's pictures counted on from those of the last.

    Of steps that stand twice in a run, what came after the resume is taken.
    """
    found: list[dict[str, Any]] = []
    before = 0
    for file in files:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        latest = {line["step"]: line for line in lines if kind in line}
        found += [{**latest[step], "images": before + latest[step]["images"]}
                  for step in sorted(latest)]  # fmt: skip
        before += lines[-1]["images"]
    return found


def draw_curves(files: Sequence[Path]) -> str:
    """Return the losses, and the accuracy on held-out tiles, against the pictures seen."""
    log, judged = read_logs(files, "labels"), read_logs(files, "held_out")
    borders = [
        max(line["images"] for line in read_logs(files[:count], "held_out")) / 1e6
        for count in range(1, len(files))
    ]

    def draw(losses: Axes, accuracy: Axes) -> None:
        seen = [line["images"] / 1e6 for line in log]
        for key, (name, colour) in LOSSES.items():
            values = [line.get(key, float("nan")) for line in log]
            losses.plot(seen, values, color=colour, label=name, linewidth=1.2)
        losses.set_ylabel("training loss")
        for side, colour in zip(("64", "96", "128"), COLOURS[2:], strict=False):
            points = [(line["images"] / 1e6, line["held_out"].get(side)) for line in judged]
            known = [point for point in points if point[1] is not None]
            accuracy.plot(*zip(*known, strict=True), color=colour, label=f"at {side} px",
                          marker="o", markersize=3, linewidth=1.2)  # fmt: skip
        accuracy.set_ylabel("held-out tiles named (202 classes)")
        percent_axis(accuracy.yaxis)
        for axes in (losses, accuracy):
            for border in borders:
                axes.axvline(border, color=COLOURS[1], linewidth=0.9, linestyle=":")
            axes.set_xlabel("million pictures seen")
            axes.set_ylim(bottom=0)
            axes.legend(frameon=False)

    return element(draw, (10, 3.6), alt="training curves of regraft_mini", key="log", panels=2)


def draw_probes(probes: dict[str, Any]) -> str:
    """Return test accuracy against pictures per class, with Wilson's intervals at 95 %."""

    def draw(*panels: Axes) -> None:
        for axes, (name, training) in zip(panels, TRAINING.items(), strict=True):
            for place, (network, colour) in enumerate(zip(probes, COLOURS, strict=False)):
                if name in probes[network]:
                    _line(axes, probes[network][name], training, place, network, colour)
            axes.set_title(name, fontsize=10)
            axes.set_xscale("log")
            axes.set_xticks([FEW, training], [str(FEW), f"{training:.0f}"])
            axes.minorticks_off()
            axes.set_xlabel("pictures per class")
            axes.set_ylim(0.2, 1)
            percent_axis(axes.yaxis)
        drawn = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in panels]
        handles = {label: handle for panel in drawn for handle, label in panel}
        panels[0].figure.legend(handles.values(), handles.keys(), loc="outside lower center",
                                ncols=3, frameon=False)  # fmt: skip

    alt = "test accuracy of linear probes against pictures per class"
    return element(draw, (11, 4.4), alt=alt, key="probes", panels=len(TRAINING))


def _line(
    axes: Axes, probe: dict[str, Any], training: float, place: int, network: str, colour: str
) -> None:
    parts = (probe["twenty"], probe["all"])
    share = [part["accuracy"] for part in parts]
    low = [part["accuracy"] - part["low"] for part in parts]
    high = [part["high"] - part["accuracy"] for part in parts]
    aside = 1 + 0.05 * (place - 2.5)  # so that intervals do not hide each other
    axes.errorbar([FEW * aside, training * aside], share, (low, high), color=colour, label=network,
                  marker="o", markersize=3, linewidth=1.2, elinewidth=0.9)  # fmt: skip


def main() -> None:
    """Write both figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, nargs="+", required=True, help="in their order")
    parser.add_argument("--probes", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    curves = draw_curves(arguments.log)
    (arguments.out / "curves.svg").write_text(standalone(curves))
    probes = draw_probes(json.loads(arguments.probes.read_text()))
    (arguments.out / "probes.svg").write_text(standalone(probes))


if __name__ == "__main__":
    main()
