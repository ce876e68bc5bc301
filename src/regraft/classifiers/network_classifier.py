"""The second learner, a trunk and a head that are trained through phases; either one, loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from regraft.backbones.backbone import Backbone, build, retrained
from regraft.backbones.network import misfit
from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.classifiers import feature_classifier, model_files
from regraft.classifiers.feature_classifier import FeatureClassifier, Labelled
from regraft.classifiers.model_files import ModelFiles
from regraft.data.images import ImageLike
from regraft.errors import DataError, ModelError, UsageError
from regraft.features.embed import EmbeddingStats
from regraft.training.activations import Predictor, Runtime, recall_mode
from regraft.training.augment import Augmentation, find_augmentation
from regraft.training.batches import LabelledImages
from regraft.training.callbacks import Callback
from regraft.training.heads import Head, entrance, find_head, head_to_json
from regraft.training.network import TransferNetwork
from regraft.training.phases import Phase, frozen
from regraft.training.regularize import Regularization, find_regularization
from regraft.training.trainer import Trainer, TrainingConfig

_HEAD = "head."


class NetworkClassifier(feature_classifier.ImageClassifier):
    """A network whose head, and as much of its trunk as the phases say, is trained.

    What is frozen passes each image once: its activations are kept, and every epoch runs only
    what is trained (see ``Compute.boundary``). On a processor the same seed gives the same bits;
    CUDA adds numbers in any order, so that the last digits differ from run to run.

    Args:
        backbone: A name or a spec; ``weights=None`` there for training from nothing.
        head: A head or the name of one.
        phases: What is trained, phase by phase; by default a new head on the frozen trunk.
        augment: How training images are changed by chance: a name of
            ``training.augment.AUGMENTATIONS``, settings, or an ``Augmentation``.
        views: How many augmented views of each image there are, kept like images; None for a
            new view in every epoch, which then runs the whole network.
        regularize: A name of ``training.regularize.REGULARIZATIONS``, settings, or a
            ``Regularization``.
        class_weight: What an error counts: ``"balanced"``, a weight per class; None: the same.
        focal: Gamma of the focal loss, such as 2; None for the cross-entropy. See ``make_loss``.
        sampling: ``"balanced"`` to draw all classes equally often; None takes each image once.
        output: ``"softmax"``, or for two classes ``"sigmoid"``: one output.
        start: The folder of a run or model to start from. Its trunk is taken, and its head too
            where head and classes are the same.
        batch_size: Images per step, 2 or more.
        seed: Everything random is drawn from it, 0 to 4294967295, but the random weights of a spec
            from its own.
        time_budget: Minutes after which training ends with what it has; None for no end.
        compute: Device, engine, precision, cache and decoding; see ``Compute``.
        verbose: Whether to show progress on standard error.

    Attributes:
        classes_: The class names in the order of the columns of ``predict_proba``.
        backbone_: The trunk with its preprocessing; its weights are the trained ones.
        network_: Trunk and head as one module.
        history_: ``phases``: what was trained and how each phase ran; ``epochs``: what was measured
            after each epoch.
        warnings_: What the reader should know before trusting a number.
        embedding_stats_: Images, images that passed through the trunk, and seconds of the last
            call.

    Example:
        >>> from regraft.training.phases import from_scratch
        >>> spec = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
        >>> dark, light = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
        >>> net = NetworkClassifier(spec, phases=from_scratch(2))
        >>> net.fit([dark, light] * 4, ["night", "day"] * 4).predict([light]).shape
        (1,)
    """

    backbone_: Backbone
    network_: TransferNetwork
    _predictor: Predictor

    def __init__(
        self,
        backbone: str | BackboneSpec,
        *,
        head: str | Head = "linear",
        phases: Sequence[Phase] | None = None,
        augment: str | Augmentation | None = None,
        views: int | None = None,
        regularize: str | Regularization | None = None,
        class_weight: Literal["balanced"] | Mapping[str, float] | None = None,
        focal: float | None = None,
        sampling: Literal["balanced"] | None = None,
        output: Literal["softmax", "sigmoid"] = "softmax",
        start: str | os.PathLike[str] | None = None,
        batch_size: int = 32,
        seed: int = 0,
        time_budget: float | None = None,
        compute: Compute = Compute(),
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.head = head
        self.phases = phases
        self.augment = augment
        self.views = views
        self.regularize = regularize
        self.class_weight = class_weight
        self.focal = focal
        self.sampling = sampling
        self.output = output
        self.start = start
        self.batch_size = batch_size
        self.seed = seed
        self.time_budget = time_budget
        self.compute = compute
        self.verbose = verbose

    def fit(
        self,
        X: Sequence[ImageLike],
        y: Sequence[str],
        *,
        validation: Labelled | None = None,
        checkpoints: str | os.PathLike[str] | None = None,
        checkpoint_every: float = 30.0,
        callbacks: Sequence[Callback] = (),
    ) -> Self:
        """Train through all phases.

        Args:
            X: Images: paths, Pillow images or H × W × 3 arrays of 8 bits.
            y: The class of each image, by name.
            validation: Decides which epoch of a phase was best; without it the last one stays.
            checkpoints: A folder for checkpoints. If it holds some of the same training, it resumes
                from them and ends as if it had never been interrupted: on a processor with the same
                bits. Beside it, ``history.jsonl`` gets a line per epoch.
            checkpoint_every: Seconds between two of them; 0 for one after every step.
            callbacks: Who hears of each epoch, such as ``TensorBoard(folder)``.

        Raises:
            DataError: A validation class is unknown.
            UsageError: Labels are no names, there is one class only, or an argument is impossible.
            ImageError: An image cannot be read.
            RegraftError: The loss is NaN (``TRAIN-NAN``), the memory is not enough
                (``TRAIN-MEMORY``), or the checkpoints are of other work (``TRAIN-RESUME``) or all
                damaged (``TRAIN-CHECKPOINT``).
        """
        kept = {"checkpoints": checkpoints, "checkpoint_every": checkpoint_every}
        trainer = self.trainer(X, y, validation=validation, callbacks=callbacks, **kept)
        trainer.run()
        self._use(trainer.predictor(), trainer.trained_backbone())
        history = {"phases": trainer.progress.finished, "epochs": trainer.progress.epochs}
        self._become(trainer.train.classes, history, trainer.warnings)
        images = len(trainer.train) + len(trainer.validation or ())
        seconds = sum(record["seconds"] for record in history["phases"])
        self.embedding_stats_ = EmbeddingStats(images, trainer.embedded, seconds)
        return self

    def trainer(
        self,
        X: Sequence[ImageLike],
        y: Sequence[str],
        *,
        validation: Labelled | None = None,
        **options: Any,
    ) -> Trainer:
        """Return what ``fit`` runs, with a network of its own; the learner stays as it is.

        Args:
            X: Images, as in ``fit``.
            y: The class of each image, by name.
            validation: Decides which epoch of a phase was best.
            **options: Checkpoints and callbacks, as in ``fit``.

        Raises:
            DataError: A validation class is unknown.
            UsageError: Labels are no names, there is one class only, or an argument is impossible.
        """
        X, labels = feature_classifier.paired(X, y)
        classes = sorted(set(labels))
        if validation is not None:
            unknown = sorted(set(validation.labels) - set(classes))
            if unknown:
                what = "the validation images have classes that the training images lack"
                why = f"unknown {', '.join(unknown)}; known {', '.join(classes)}"
                hint = "split one data set, so that both parts have the same classes"
                raise DataError(what, why=why, hint=hint, code="DATA-LABELS")
        config = self._config()
        config.check(classes, validation=validation is not None and len(validation.labels) > 0)
        spec = BackboneSpec(self.backbone) if isinstance(self.backbone, str) else self.backbone
        started = None if self.start is None else self._opened(Path(self.start))
        if started is not None:  # its weights are taken: those of the spec need not be here
            spec = replace(spec, weights=None)
            then, same = started[1].spec, spec.name == started[1].spec.name
            if same and spec.preprocessing is None and spec.arguments in ((), then.arguments):
                spec = replace(spec, preprocessing=started[1].preprocessing)
        backbone = build(spec)
        outputs = 1 if self.output == "sigmoid" else len(classes)
        head = config.regularize.head(find_head(self.head))
        network = TransferNetwork(backbone, head, outputs=outputs, seed=config.seed)
        warnings = []
        if started is not None:
            warnings = self._start(network, *started, classes=classes)
            backbone.weights = started[1].weights
            backbone = retrained(backbone)

        options |= {"verbose": self.verbose, "warnings": warnings}
        shared = (classes, backbone, self.compute.decoding, self.verbose)
        train, held = LabelledImages(X, labels, *shared), None
        if validation is not None:
            held = LabelledImages(validation.paths, validation.labels, *shared)
        return Trainer(network, config, train, held, **options)

    def _predict(self, images: Sequence[ImageLike]) -> tuple[NDArray[np.float64], EmbeddingStats]:
        if self._recorded is None:
            return self._predictor(images)
        with self._features_to(self._recorded.append):
            return self._predictor(images)

    @contextlib.contextmanager
    def _features_to(self, keep: Callable[[NDArray[np.float32]], None]) -> Iterator[None]:
        """Hand on what enters the head, pooled; a head that begins with the pooling is run on rows.

        Of such a head the first layer may not be run at all: what it gave was kept while training.
        """
        network, head = self.network_, self.network_.head
        pooled = entrance(head) == "pooled"

        def note(_module: Any, inputs: tuple[Tensor, ...]) -> None:
            keep((inputs[0] if pooled else network.pool(inputs[0])).float().cpu().numpy())

        first = list(head.children())[1] if pooled else head
        hook = first.register_forward_pre_hook(note)
        try:
            yield
        finally:
            hook.remove()

    def save(self, folder: str | os.PathLike[str], *, with_backbone: bool = True) -> None:
        """Write the learner into a folder as data; see ``save_model``."""
        check_is_fitted(self)
        head, trained = self._final_head(), self.trains_trunk_
        self._refuse_changes()
        if trained and not with_backbone:
            what, why = "a trained trunk is never left out of its model", "it exists nowhere else"
            hint = "save it with its backbone"
            raise UsageError(what, path=folder, why=why, hint=hint, code="MODEL-WEIGHTS")
        part = model_files.NetworkPart(
            head=head,  # type: ignore[arg-type] # one of Regraft's own, as was seen
            output=self.output,
            phases=None if self.phases is None else tuple(self.phases),
            batch_size=int(self.batch_size),
            seed=int(self.seed),
        )
        head_tensors = self.network_.head.state_dict()
        arrays = {_HEAD + name: tensor.cpu().numpy() for name, tensor in head_tensors.items()}
        backbone = self.backbone_ if with_backbone else None
        record = self._record(trained=trained, network=part)
        model_files.write_model(folder, record, arrays, backbone=backbone)

    @classmethod
    def from_files(
        cls, files: ModelFiles, *, weights: str | os.PathLike[str] | None = None
    ) -> Self:
        """Return the learner that a saved model holds; see ``load_model``.

        Raises:
            ModelError: Its parts do not fit together, or its network is not to be had.
        """
        record, part = files.record, files.record.network
        assert part is not None
        tensors = _head_tensors(files)
        backbone = model_files.open_backbone(files, build, weights=weights)
        learner = cls(
            backbone.spec,
            head=part.head,
            phases=None if part.phases is None else list(part.phases),
            output=part.output,
            batch_size=part.batch_size,
            seed=part.seed,
            compute=record.compute,
        )
        outputs = 1 if part.output == "sigmoid" else len(record.classes)
        network = TransferNetwork(backbone, part.head, outputs=outputs)
        network.head.load_state_dict(tensors)
        runtime = Runtime.prepare(network, backbone, record.compute, batch_size=part.batch_size)
        ran = record.history["phases"]
        cache = recall_mode(ran[-1], runtime).cache if ran else None
        learner._use(Predictor(runtime, cache), backbone)
        learner._become(record.classes, record.history, record.warnings, record.temperature)
        return learner

    def _config(self) -> TrainingConfig:
        given = {field.name: getattr(self, field.name) for field in fields(TrainingConfig)}
        given["phases"] = tuple(frozen() if self.phases is None else self.phases)
        given["augment"] = find_augmentation(self.augment)
        given["regularize"] = find_regularization(self.regularize) or Regularization()
        return TrainingConfig(**given)

    def _final_head(self) -> Head:
        """Return the head that is trained, unless it is somebody's own, which no file can hold."""
        chosen = find_head(self.head)
        try:
            head_to_json(chosen)
        except UsageError as error:
            what, why = "this head cannot be saved", "it is not one of Regraft's own"
            hint = f"model files hold data only, never code; {error.hint}"
            raise ModelError(what, why=why, hint=hint, code="MODEL-UNSAVEABLE") from error
        return self._config().regularize.head(chosen)

    @property
    def trains_trunk_(self) -> bool:
        """Whether the trunk's weights are other than those that its spec names."""
        phases = self.history_["phases"]
        trained = any(phase["share_of_stages"] and phase["last_epoch"] for phase in phases)
        return trained or self.start is not None

    def _described(self) -> dict[str, Any]:
        """Return the parameters that a saved network is described with, as they are now."""
        names = ("head", "regularize", "output", "start", "batch_size", "seed")
        compute = model_files.portable_compute(self.compute)
        return {
            **{name: getattr(self, name) for name in names},
            "phases": None if self.phases is None else tuple(self.phases),
            "precision": compute.precision,
            "decoding": compute.decoding,
        }

    def _use(self, predictor: Predictor, backbone: Backbone) -> None:
        self.network_ = predictor.runtime.network.eval()
        self.backbone_ = backbone
        self._predictor = predictor

    @staticmethod
    def _opened(place: Path) -> tuple[ModelFiles, Backbone]:
        files = model_files.read_model(place / "model" if (place / "model").is_dir() else place)
        with model_files.reading(place):
            return files, model_files.open_backbone(files, build)

    def _start(
        self,
        network: TransferNetwork,
        files: ModelFiles,
        backbone: Backbone,
        *,
        classes: Sequence[str],
    ) -> list[str]:
        """Copy the weights of a saved model into a network, and say what was taken of it."""
        place, record = Path(self.start or ""), files.record
        trunk, own = backbone.module.state_dict(), network.trunk.state_dict()
        if misfit(own, trunk):
            what = "the model to start from has another network"
            why = f"it is {backbone.spec.name} with other layers or sizes"
            hint = "name the same backbone with the same arguments"
            raise UsageError(what, path=place, why=why, hint=hint)
        if backbone.preprocessing != network.preprocessing:
            what = "the model to start from has another preprocessing"
            why = f"its own is {backbone.preprocessing}"
            hint = "give the backbone this preprocessing: its weights have learned with it"
            raise UsageError(what, path=place, why=why, hint=hint)
        network.trunk.load_state_dict(trunk)
        if record.network is None:
            return [f"started from the trunk of {place.name}; the head is new"]
        head = _head_tensors(files)
        same = record.classes == tuple(classes) and record.network.output == self.output
        if same and not misfit(network.head.state_dict(), head):
            network.head.load_state_dict(head)
            return [f"started from trunk and head of {place.name}"]
        why = "the head is new, its classes or layers differ"
        return [f"started from the trunk of {place.name}; {why}"]


def _head_tensors(files: ModelFiles) -> dict[str, Tensor]:
    unknown = [name for name in files.arrays if not name.startswith(_HEAD)]
    if unknown:
        raise model_files.corrupt(files.place, f"unknown array {unknown[0]!r:.80}")
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in files.arrays.items()}
    return {name.removeprefix(_HEAD): tensor for name, tensor in tensors.items()}


# ---- either learner, saved ----------------------------------------------------------------------


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
    files = model_files.read_model(folder, preprocessing=preprocessing)
    kind = NetworkClassifier if files.record.shallow is None else FeatureClassifier
    with model_files.reading(folder):
        return kind.from_files(files, weights=weights)
