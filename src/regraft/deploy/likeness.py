"""How like images are to those that a deployed model has learned from."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regraft.errors import ModelError, UsageError
from regraft.explain.neighbours import TrainingFeatures, tell_strangers
from regraft.files import write_bytes
from regraft.results.inspection import ImageAddress
from regraft.results.intervals import Estimate
from regraft.settings import settings_class

TRAINING = "training.npy"  # the features, beside deploy.json
MOST = 5_000  # training images are kept


@settings_class(ModelError, code="MODEL-CORRUPT", kw_only=True)
class Likeness:
    """What a deployed model keeps of images, beside their features in ``training.npy``.

    Args:
        labels: The class of each training image, as its place among the classes.
        held: How far validation images are from these; see ``TrainingFeatures.distances``.
        strangers: How well this tells images of a class that was left out from the test images:
            the area under the ROC curve; see ``tell_strangers``.
        seen: Whether the network itself has learned from these images: it then knows all classes,
            and tells those of a really unknown one less well.
        images: Small copies of the training images; empty unless they were asked for.
    """

    labels: tuple[int, ...]
    held: tuple[float, ...] = ()
    strangers: Estimate | None = None
    seen: bool = False
    images: tuple[ImageAddress, ...] = ()

    def limit(self, share: float) -> float:
        """Return from which distance on an image is unlike all that was learned.

        Args:
            share: How many of the images of known classes are taken for unknown ones, 0 to 1.

        Raises:
            UsageError: There are too few validation images for it (``USAGE-CALIBRATION``).
        """
        if not 0 < share < 1:
            raise UsageError("--unlike is a share between 0 and 1", why=f"found {share}")
        rank = math.ceil(round((len(self.held) + 1) * (1 - share), 9))
        if rank > len(self.held):
            needed = math.ceil(round(1 / share, 9)) - 1
            what = "unlike images cannot be told so surely"
            why = f"it takes {needed:,} validation images, there are {len(self.held):,}"
            hint = "allow a larger share, or fit with more validation images"
            raise UsageError(what, why=why, hint=hint, code="USAGE-CALIBRATION")
        return sorted(self.held)[rank - 1]


def likeness_of(
    training: TrainingFeatures,
    classes: Sequence[str],
    *,
    held: NDArray[np.float32] | None,
    tested: tuple[NDArray[np.float32], Sequence[str]] | None,
    seen: bool,
    images: Sequence[str] = (),
) -> Likeness:
    """Measure what is known of the images that a model has learned from.

    Args:
        training: Their features.
        classes: All classes of the model, in their order.
        held: The features of the validation images, (n, d).
        tested: Features and classes of the test images.
        seen: Whether the network itself was trained on them.
        images: Small copies of the training images.
    """
    place = {name: index for index, name in enumerate(classes)}
    return Likeness(
        labels=tuple(place[name] for name in training.labels),
        held=() if held is None else tuple(training.distances(held).round(6).tolist()),
        strangers=None if tested is None else tell_strangers(training, *tested),
        seen=seen,
        images=tuple(images),
    )


def write_training(training: TrainingFeatures, folder: Path) -> None:
    """Write the features of training images into the folder of a deployed model."""
    stream = io.BytesIO()
    np.save(stream, training.rows, allow_pickle=False)
    write_bytes(folder / TRAINING, stream.getvalue())


def read_training(folder: Path, likeness: Likeness, classes: Sequence[str]) -> TrainingFeatures:
    """Read them; the images are called by their numbers, from 0.

    Raises:
        ModelError: They are damaged (``MODEL-CORRUPT``).
    """
    file = folder / TRAINING
    try:
        rows = np.load(file, allow_pickle=False)
        names = tuple(classes[place] for place in likeness.labels)
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise _damaged(file, str(error)) from error
    if rows.dtype != np.float16 or rows.ndim != 2 or len(rows) != len(names):
        raise _damaged(file, f"{rows.dtype} of shape {rows.shape} for {len(names)} images")
    return TrainingFeatures(rows, tuple(map(str, range(len(rows)))), names)


def _damaged(file: Path, why: str) -> ModelError:
    what, hint = "cannot read the features of the training images", "export the run again"
    return ModelError(what, path=file, why=why, hint=hint, code="MODEL-CORRUPT")
