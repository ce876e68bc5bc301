"""Transfer learning for image classification: find out which way works on your pictures.

>>> import regraft
>>> "FeatureClassifier" in regraft.__all__
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from regraft.version import __version__ as __version__

# Every public name under its module; resolved on first use, so that `import regraft` is instant.
_MODULES = {
    "backbones.backbone": ["Backbone"],
    "backbones.catalog": ["list_backbones", "register_backbone"],
    "backbones.sources": ["import_weights"],
    "backbones.spec": ["BackboneSpec", "Compute", "Preprocessing"],
    "classifiers.feature_classifier": ["FeatureClassifier"],
    "classifiers.network_classifier": ["NetworkClassifier"],
    "classifiers.saving": ["load_model", "save_model"],
    "data.check": ["check"],
    "data.dataset": ["Dataset", "Split"],
    "data.images": ["Decoding"],
    "errors": ["RegraftError"],
    "experiment.config": ["DataConfig", "MethodConfig", "RunConfig"],
    "experiment.run": ["fit_run"],
    "features.extractor": ["FeatureExtractor"],
    "results.predictions": ["Predictions", "evaluate"],
    "results.run": ["Run"],
    "results.store": ["RunStore"],
    "training.augment": ["Augmentation"],
    "training.heads": ["ConvHead", "LinearHead", "MLPHead"],
    "training.phases": ["Phase", "fine_tune", "from_scratch", "frozen", "two_stage"],
    "training.regularize": ["Regularization"],
}
_HOME = {name: f"regraft.{module}" for module, names in _MODULES.items() for name in names}
__all__ = list(_HOME)

if TYPE_CHECKING:
    from regraft.backbones.backbone import Backbone as Backbone
    from regraft.backbones.catalog import (
        list_backbones as list_backbones,
        register_backbone as register_backbone,
    )
    from regraft.backbones.sources import import_weights as import_weights
    from regraft.backbones.spec import (
        BackboneSpec as BackboneSpec,
        Compute as Compute,
        Preprocessing as Preprocessing,
    )
    from regraft.classifiers.feature_classifier import FeatureClassifier as FeatureClassifier
    from regraft.classifiers.network_classifier import NetworkClassifier as NetworkClassifier
    from regraft.classifiers.saving import load_model as load_model, save_model as save_model
    from regraft.data.check import check as check
    from regraft.data.dataset import Dataset as Dataset, Split as Split
    from regraft.data.images import Decoding as Decoding
    from regraft.errors import RegraftError as RegraftError
    from regraft.experiment.config import (
        DataConfig as DataConfig,
        MethodConfig as MethodConfig,
        RunConfig as RunConfig,
    )
    from regraft.experiment.run import fit_run as fit_run
    from regraft.features.extractor import FeatureExtractor as FeatureExtractor
    from regraft.results.predictions import Predictions as Predictions, evaluate as evaluate
    from regraft.results.run import Run as Run
    from regraft.results.store import RunStore as RunStore
    from regraft.training.augment import Augmentation as Augmentation
    from regraft.training.heads import (
        ConvHead as ConvHead,
        LinearHead as LinearHead,
        MLPHead as MLPHead,
    )
    from regraft.training.phases import (
        Phase as Phase,
        fine_tune as fine_tune,
        from_scratch as from_scratch,
        frozen as frozen,
        two_stage as two_stage,
    )
    from regraft.training.regularize import Regularization as Regularization


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'regraft' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
