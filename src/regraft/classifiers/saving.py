"""Saving a fitted learner as data and getting it back; see ``model_folder`` for the files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sklearn.utils.validation import check_is_fitted

from regraft.backbones.spec import Preprocessing
from regraft.classifiers import conversion
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.feature_saving import read_feature_model, write_feature_model
from regraft.classifiers.model_folder import read_model
from regraft.classifiers.model_record import unknown
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.classifiers.network_saving import head_record, read_network_model, write_network_model
from regraft.classifiers.shallow import find_shallow


def can_save(classifier: Any) -> bool:
    """Say, before any fitting, whether a learner with this classifier can be saved.

    Args:
        classifier: A name of ``shallow.NAMED`` or a scikit-learn classifier.

    Raises:
        UsageError: The name is unknown, or the object is no classifier.

    Example:
        >>> from sklearn.svm import SVC
        >>> can_save("random_forest"), can_save(SVC())
        (True, False)
    """
    return not conversion.obstacle(find_shallow(classifier)[0])


def refuse_unsaveable(learner: FeatureClassifier | NetworkClassifier) -> None:
    """Refuse, before any fitting, a learner that could not be saved afterwards.

    Args:
        learner: A learner, fitted or not.

    Raises:
        ModelError: Its classifier or its head is not kept as data (``MODEL-UNSAVEABLE``).
        UsageError: A name in it is unknown.

    Example:
        >>> refuse_unsaveable(FeatureClassifier("vgg16", classifier="knn"))
    """
    if isinstance(learner, NetworkClassifier):
        head_record(learner)
    elif why := conversion.obstacle(find_shallow(learner.classifier)[0]):
        raise conversion.unsaveable(why)


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
        >>> from regraft.backbones.spec import BackboneSpec
        >>> dark, light = [np.full((32, 32, 3), shade, np.uint8) for shade in (20, 220)]
        >>> learner = FeatureClassifier(BackboneSpec("simple_cnn", weights=None), classifier="knn")
        >>> folder = Path(tempfile.mkdtemp()) / "model"
        >>> save_model(learner.fit([dark, light], ["night", "day"]), folder)
        >>> load_model(folder).predict([light]).tolist()
        ['day']
    """
    check_is_fitted(learner)
    if isinstance(learner, NetworkClassifier):
        write_network_model(learner, folder, with_backbone=with_backbone)
    else:
        write_feature_model(learner, folder, with_backbone=with_backbone)


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
            ``MODEL-UNKNOWN`` (of a kind that is not known), ``MODEL-CORRUPT``, ``MODEL-NAN``,
            ``MODEL-PREPROCESSING`` (another than the saved one) or ``MODEL-WEIGHTS`` (the network
            is not there, or is not the one that was saved).
    """
    place = Path(folder)
    files = read_model(place)
    kind = files.record.get("learner")
    if kind == "FeatureClassifier":
        return read_feature_model(files, place, preprocessing=preprocessing, weights=weights)
    if kind == "NetworkClassifier":
        return read_network_model(files, place, preprocessing=preprocessing, weights=weights)
    raise unknown("learner", kind, "FeatureClassifier, NetworkClassifier", place)
