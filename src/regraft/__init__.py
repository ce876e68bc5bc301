"""Transfer learning for image classification: find out which way works on your pictures.

>>> import regraft
>>> "FeatureClassifier" in regraft.__all__
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from regraft.version import __version__ as __version__

# Every public name and its module; resolved on first use, so that `import regraft` is instant.
_HOME = {
    "Augmentation": "regraft.training.augment",
    "Backbone": "regraft.backbones.backbone",
    "BackboneSpec": "regraft.backbones.spec",
    "check": "regraft.data.check",
    "ConvHead": "regraft.training.heads",
    "Dataset": "regraft.data.dataset",
    "Decoding": "regraft.data.images",
    "evaluate": "regraft.results.predictions",
    "Compute": "regraft.backbones.spec",
    "FeatureClassifier": "regraft.classifiers.feature_classifier",
    "FeatureExtractor": "regraft.features.extractor",
    "fine_tune": "regraft.training.phases",
    "fit_run": "regraft.experiment.run",
    "from_scratch": "regraft.training.phases",
    "frozen": "regraft.training.phases",
    "import_weights": "regraft.backbones.sources",
    "LinearHead": "regraft.training.heads",
    "list_backbones": "regraft.backbones.catalog",
    "load_model": "regraft.classifiers.saving",
    "MLPHead": "regraft.training.heads",
    "NetworkClassifier": "regraft.classifiers.network_classifier",
    "Phase": "regraft.training.phases",
    "Predictions": "regraft.results.predictions",
    "Preprocessing": "regraft.backbones.spec",
    "register_backbone": "regraft.backbones.catalog",
    "RegraftError": "regraft.errors",
    "Regularization": "regraft.training.regularize",
    "Run": "regraft.results.run",
    "RunStore": "regraft.results.store",
    "save_model": "regraft.classifiers.saving",
    "Split": "regraft.data.dataset",
    "two_stage": "regraft.training.phases",
}
__all__ = [
    "Augmentation",
    "Backbone",
    "BackboneSpec",
    "Compute",
    "ConvHead",
    "Dataset",
    "Decoding",
    "FeatureClassifier",
    "FeatureExtractor",
    "LinearHead",
    "MLPHead",
    "NetworkClassifier",
    "Phase",
    "Predictions",
    "Preprocessing",
    "RegraftError",
    "Regularization",
    "Run",
    "RunStore",
    "Split",
    "check",
    "evaluate",
    "fine_tune",
    "fit_run",
    "from_scratch",
    "frozen",
    "import_weights",
    "list_backbones",
    "load_model",
    "register_backbone",
    "save_model",
    "two_stage",
]

if TYPE_CHECKING:
    from regraft.backbones.backbone import Backbone
    from regraft.backbones.catalog import list_backbones, register_backbone
    from regraft.backbones.sources import import_weights
    from regraft.backbones.spec import BackboneSpec, Preprocessing
    from regraft.classifiers.feature_classifier import FeatureClassifier
    from regraft.classifiers.network_classifier import NetworkClassifier
    from regraft.classifiers.saving import load_model, save_model
    from regraft.data.check import check
    from regraft.data.dataset import Dataset, Split
    from regraft.data.images import Decoding
    from regraft.errors import RegraftError
    from regraft.experiment.run import fit_run
    from regraft.features.extractor import FeatureExtractor
    from regraft.results.predictions import Predictions, evaluate
    from regraft.results.run import Run
    from regraft.results.store import RunStore
    from regraft.training.augment import Augmentation
    from regraft.training.heads import ConvHead, LinearHead, MLPHead
    from regraft.training.phases import Phase, fine_tune, from_scratch, frozen, two_stage
    from regraft.training.regularize import Regularization


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'regraft' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
