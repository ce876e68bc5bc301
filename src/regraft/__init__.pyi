# The public names: type checkers read them here, and `__init__.py` does, too.

from regraft.system import __version__ as __version__
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
from regraft.classifiers.network_classifier import (
    load_model as load_model,
    save_model as save_model,
)
from regraft.data.check import check as check
from regraft.data.dataset import Dataset as Dataset, Split as Split
from regraft.data.images import Decoding as Decoding
from regraft.deploy.answers import Answerer as Answerer, Promises as Promises
from regraft.deploy.export import write_deployed as write_deployed
from regraft.deploy.predictor import Predictor as Predictor, load as load
from regraft.errors import RegraftError as RegraftError
from regraft.experiment.config import (
    DataConfig as DataConfig,
    MethodConfig as MethodConfig,
    RunConfig as RunConfig,
)
from regraft.experiment.run import fit_run as fit_run
from regraft.features.extractor import FeatureExtractor as FeatureExtractor
from regraft.results.comparison import RunStore as RunStore
from regraft.results.predictions import Predictions as Predictions, evaluate as evaluate
from regraft.results.run import Run as Run
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
