"""Saving a fitted learner as data and getting it back; see ``model_files`` for the files."""

from __future__ import annotations

import os

from sklearn.utils.validation import check_is_fitted

from regraft.backbones.spec import Preprocessing
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.model_files import read_model, reading
from regraft.classifiers.network_classifier import NetworkClassifier


def save_model(
    learner: FeatureClassifier | NetworkClassifier,
    folder: str | os.PathLike[str],
    *,
    with_backbone: bool = True,
) -> None:
    """Write a fitted learner into a folder as data, with its preprocessing and its classes.

    Args:
        learner: A fitted learner.
        folder: Where the model shall stand; an older model there is replaced, anything else is not.
        with_backbone: Whether the network's weights go with it, so that the model predicts on any
            machine. Without them the folder holds a few kilobytes to megabytes, and the same
            weights must be found where it is loaded. Weights that were trained always go with it.

    Raises:
        ModelError: The classifier or the head cannot be saved as data (``MODEL-UNSAVEABLE``), or a
            value is not finite (``MODEL-NAN``).
        UsageError: The weights of a trained trunk would be left out (``MODEL-WEIGHTS``), or
            parameters were changed since the fit (``USAGE-REFIT``).
        RegraftError: The folder holds something else (``FILE-EXISTS``) or cannot be written.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from regraft.backbones.spec import BackboneSpec
        >>> dark, light = [np.full((32, 32, 3), shade, np.uint8) for shade in (20, 220)]
        >>> learner = FeatureClassifier(BackboneSpec("simple_cnn", weights=None), classifier="knn")
        >>> folder = Path(tempfile.mkdtemp()) / "model"
        >>> save_model(learner.fit([dark, light], ["night", "day"]), folder)
        >>> load_model(folder).predict([light]).tolist()
        ['day']
    """
    check_is_fitted(learner)
    learner.save(folder, with_backbone=with_backbone)


def load_model(
    folder: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> FeatureClassifier | NetworkClassifier:
    """Read a saved learner; it predicts exactly what it predicted when it was saved.

    Every file is verified before it is read, and nothing is read that could hold code.

    Args:
        folder: Where the model stands.
        preprocessing: What the caller believes to be the model's preprocessing, if anything.
        weights: The file of the network's weights, for a model that was saved without them.

    Raises:
        ModelError: ``MODEL-MISSING``, ``MODEL-UNSAFE``, ``MODEL-CHECKSUM``, ``MODEL-VERSION``,
            ``MODEL-CORRUPT``, ``MODEL-NAN``, ``MODEL-PREPROCESSING`` (another than the saved one)
            or ``MODEL-WEIGHTS`` (the network is not there, or is not the one that was saved).
    """
    files = read_model(folder, preprocessing=preprocessing)
    kind = NetworkClassifier if files.record.shallow is None else FeatureClassifier
    with reading(folder):
        return kind.from_files(files, weights=weights)
