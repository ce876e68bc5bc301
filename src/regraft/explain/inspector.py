"""What a run keeps to explain itself, computed while the fitted network is in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.data.images import open_image
from regraft.data.tables import write_table
from regraft.explain.maps import class_maps, methods_for, seen
from regraft.explain.neighbours import TrainingFeatures
from regraft.explain.projection import project
from regraft.report.gallery import choose, image_address
from regraft.results.inspection import InspectedImage, Inspection, Near
from regraft.results.predictions import Predictions, part_name
from regraft.results.run import Run
from regraft.system import threads

Pixels = NDArray[np.uint8]

ERRORS = "errors.csv"
_NEAREST = 3
_MOST_POINTS = 1000  # of a map of the data
_SMALL = 56  # pixels of a side, in the sheet of small images
_COLUMNS = 32
_SIDE = 160  # pixels of a view
_GRID = 28  # cells of a side of a map; the network's own are fewer
_NO_MAPS = (
    "This classifier has no gradient, so there are no class-activation maps here: by covering each "
    "image piece by piece they would take minutes. `regraft explain` makes them for one image."
)
_DARKEST = 180  # of 255: how much of the view is dark where a map is 0


def inspect_run(
    run: Run,
    learner: FeatureClassifier | NetworkClassifier,
    files: Mapping[str, Path],
    features: NDArray[np.float32] | None,
) -> Inspection:
    """Compute what a run keeps to explain itself, and write it into its folder.

    That are class-activation maps and the nearest training images of what the page shows, maps of
    the data, the features of the training part, and ``errors.csv``.

    Args:
        run: A finished run.
        learner: What it has fitted.
        files: Where the images lie, by their path in the data set.
        features: Of all images that were predicted, in the order of the predictions, (n, d); None
            where there are none, and then there are neither neighbours nor maps of the data.

    Raises:
        ImageError: An image cannot be read any more.
    """
    part = part_name(run.shown_part)
    places = [place for place, own in enumerate(run.predictions.parts) if own == part]
    p, choice = run.predictions.take(places), choose(run.predictions.take(places))
    near: dict[str, tuple[Near, ...]] = {}
    points: list[int] = []
    projections = {}
    if features is not None:
        training = TrainingFeatures.of(run, features)
        training.write(run)
        wanted = sorted({*choice.all, *np.flatnonzero(~p.correct).tolist()})
        names = [p.paths[i] for i in wanted]
        rows = features[[places[i] for i in wanted]]
        near = dict(zip(names, training.nearest(rows, most=_NEAREST, names=names), strict=True))
        points = _spread(p.truth)
        seed = run.record.method.get("seed", 0)
        projections = project(features[[places[i] for i in points]], seed=seed)
    images = {p.paths[i]: InspectedImage(nearest=near.get(p.paths[i], ())) for i in choice.all}
    notes = []
    if methods_for(learner)[0] == "grad-cam":
        images |= _with_maps(learner, p.take(choice.with_maps), files, images)
    else:
        notes.append(_NO_MAPS)
    beside = [one.path for image in images.values() for one in image.nearest]
    pictured = list(dict.fromkeys([*(p.paths[i] for i in points), *beside]))
    found = Inspection(
        images=images,
        sheet=_sheet([files[path] for path in pictured]) if pictured else "",
        sheet_paths=tuple(pictured),
        columns=_COLUMNS,
        points=tuple(p.paths[i] for i in points),
        projections={
            name: tuple((round(x, 4), round(y, 4)) for x, y in found.tolist())
            for name, found in projections.items()
        },
        notes=tuple(notes),
    )
    found.write(run.folder)
    _write_errors(run.folder / ERRORS, p, near)
    return found


def _spread(labels: Sequence[str]) -> list[int]:
    """Return places of at most ``_MOST_POINTS`` images, as many of each class as it has a share."""
    order = np.argsort(np.array(labels, dtype=object), kind="stable")
    count = min(len(order), _MOST_POINTS)
    return sorted(order[np.linspace(0, len(order) - 1, count).astype(int)].tolist())


def _with_maps(
    learner: FeatureClassifier | NetworkClassifier,
    p: Predictions,
    files: Mapping[str, Path],
    images: Mapping[str, InspectedImage],
) -> dict[str, InspectedImage]:
    """Return images with what the network saw of them, and its maps for both classes."""
    if not len(p):
        return {}
    paths = [files[path] for path in p.paths]
    views = [Image.fromarray(view).resize((_SIDE, _SIDE)) for view in seen(learner, paths)]
    kinds = {
        "predicted": (p.predicted, class_maps(learner, paths, p.predicted)),
        "true": (p.truth, class_maps(learner, paths, p.truth)),
    }
    return {
        path: InspectedImage(
            nearest=images[path].nearest,
            view=image_address(views[row], "jpeg", quality=75),
            maps={names[row]: overlay(maps[row]) for names, maps in kinds.values()},
        )
        for row, path in enumerate(p.paths)
    }


def overlay(strength: NDArray[np.float32]) -> str:
    """Return a map (h, w) as what is laid over its image: dark where it is 0, clear where it is 1.

    So it needs no colour. Sixteen levels are seen as smooth, and take half of the bytes.
    """
    dark = Image.fromarray((_DARKEST * (1 - strength.clip(0, 1))).astype(np.uint8))
    small = np.asarray(dark.resize((_GRID, _GRID), Image.Resampling.BILINEAR)) // 16 * 16
    black = np.zeros_like(small)
    return image_address(Image.fromarray(np.dstack([black, small]), "LA"), "png", optimize=True)


def _sheet(files: Sequence[Path]) -> str:
    """Return many images as small squares of one."""

    def small(file: Path) -> Image.Image:
        return ImageOps.fit(open_image(file), (_SMALL, _SMALL))

    rows = -(-len(files) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _SMALL, rows * _SMALL))
    with ThreadPoolExecutor(threads()) as pool:
        for place, image in enumerate(pool.map(small, files)):
            sheet.paste(image, (place % _COLUMNS * _SMALL, place // _COLUMNS * _SMALL))
    return image_address(sheet, "jpeg", quality=60)


def _write_errors(file: Path, p: Predictions, near: Mapping[str, Sequence[Near]]) -> None:
    """Write a row for each wrong image, the most confident mistake first."""
    columns = ["path", "true", "predicted", "confidence", "true_probability"]
    for number in range(1, _NEAREST + 1):
        columns += [f"nearest_{number}", f"label_{number}", f"distance_{number}"]
    rows = []
    for i in sorted(np.flatnonzero(~p.correct).tolist(), key=lambda i: -p.confidence[i]):
        own = float(p.probabilities[i, p.truth_index[i]])
        row = [p.paths[i], p.truth[i], p.predicted[i], f"{p.confidence[i]:.4f}", f"{own:.4f}"]
        for one in near.get(p.paths[i], ()):
            row += [one.path, one.label, f"{one.distance:.4f}"]
        rows.append(row + [""] * (len(columns) - len(row)))
    write_table(file, columns, rows)
