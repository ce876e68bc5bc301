"""The second learner: a trunk and a head that are trained through phases."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from regraft.backbones.backbone import Backbone, build, retrained
from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.feature_classifier import Labelled, paired, refuse_unknown_classes
from regraft.classifiers.network_settings import saved_parameters
from regraft.classifiers.warm_start import start_from
from regraft.data.images import ImageLike
from regraft.features.embed import EmbeddingStats
from regraft.training.activations import Predictor, Runtime
from regraft.training.augment import Augmentation, find_augmentation
from regraft.training.batches import LabelledImages
from regraft.training.callbacks import Callback
from regraft.training.heads import Head, find_head
from regraft.training.network import TransferNetwork
from regraft.training.phases import Phase, frozen
from regraft.training.regularize import Regularization, find_regularization
from regraft.training.trainer import Trainer, TrainingConfig


class NetworkClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A network whose head, and as much of its trunk as the phases say, is trained.

    What is frozen passes each picture once: its activations are kept, and every epoch runs only
    what is trained (see ``Compute.boundary``). On a processor the same seed gives the same bits;
    CUDA adds numbers in any order, so that the last digits differ from run to run.

    Args:
        backbone: A name or a spec; ``weights=None`` there for training from nothing.
        head: A head or the name of one.
        phases: What is trained, phase by phase; by default a new head on the frozen trunk.
        augment: How training pictures are changed by chance: a name of
            ``training.augment.AUGMENTATIONS``, settings, or an ``Augmentation``.
        views: How many augmented views of each picture there are, kept like pictures; None for a
            new view in every epoch, which then runs the whole network.
        regularize: A name of ``training.regularize.REGULARIZATIONS``, settings, or a
            ``Regularization``.
        class_weight: What an error counts: ``"balanced"``, a weight per class; None: the same.
        sampling: ``"balanced"`` to draw all classes equally often; None takes each picture once.
        output: ``"softmax"``, or for two classes ``"sigmoid"``: one output.
        start: The folder of a run or model to go on from. Its trunk is taken, and its head too
            where head and classes are the same.
        batch_size: Pictures per step, 2 or more.
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

    classes_: NDArray[np.str_]
    backbone_: Backbone
    network_: TransferNetwork
    history_: dict[str, Any]
    warnings_: tuple[str, ...]
    embedding_stats_: EmbeddingStats
    _predictor: Predictor
    _fitted_with: dict[str, Any]

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
            X: Pictures: paths, PIL pictures or H × W × 3 arrays of 8 bits.
            y: The class of each picture, by name.
            validation: Decides which epoch of a phase was best; without it the last one stays.
            checkpoints: A folder for checkpoints. If it holds some of the same work, that is gone
                on with, and ends as if it had never been interrupted: on a processor with the same
                bits. Beside it, ``history.jsonl`` gets a line per epoch.
            checkpoint_every: Seconds between two of them; 0 for one after every step.
            callbacks: Who hears of each epoch, such as ``TensorBoard(folder)``.

        Raises:
            DataError: A validation class is unknown.
            UsageError: Labels are no names, there is one class only, or an argument is impossible.
            ImageError: A picture cannot be read.
            RegraftError: The loss is no number any more (``TRAIN-NAN``), the memory is not enough
                (``TRAIN-MEMORY``), or the checkpoints are of other work (``TRAIN-RESUME``) or all
                damaged (``TRAIN-CHECKPOINT``).
        """
        trainer = self.trainer(
            X,
            y,
            validation=validation,
            checkpoints=checkpoints,
            checkpoint_every=checkpoint_every,
            callbacks=callbacks,
        )
        trainer.run()
        restore(
            self,
            classes=trainer.classes,
            network=trainer.network,
            backbone=trainer.trained_backbone(),
            history={"phases": trainer.records, "epochs": trainer.epochs},
            warnings=trainer.warnings,
            predictor=trainer.predictor(),
        )
        self.embedding_stats_ = EmbeddingStats(
            len(trainer.train) + len(trainer.validation or ()),
            trainer.embedded,
            sum(record["seconds"] for record in trainer.records),
        )
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
        X, labels = paired(X, y)
        classes = sorted(set(labels))
        if validation is not None:
            refuse_unknown_classes(validation.labels, classes)
        config = self._config()
        config.check(classes, validation=validation is not None and len(validation.labels) > 0)
        spec = BackboneSpec(self.backbone) if isinstance(self.backbone, str) else self.backbone
        backbone = build(spec)
        outputs = 1 if self.output == "sigmoid" else len(classes)
        head = config.regularize.head(find_head(self.head))
        network = TransferNetwork(backbone, head, outputs=outputs, seed=config.seed)
        warnings = []
        if self.start is not None:
            warnings = start_from(self.start, network, self, classes)
            backbone = retrained(backbone)

        def part(images: Sequence[ImageLike], names: Sequence[str]) -> LabelledImages:
            return LabelledImages(
                images,
                names,
                classes,
                backbone=backbone,
                decoding=self.compute.decoding,
                verbose=self.verbose,
            )

        return Trainer(
            network,
            backbone,
            config,
            part(X, labels),
            None if validation is None else part(validation.paths, validation.labels),
            classes=classes,
            verbose=self.verbose,
            warnings=warnings,
            **options,
        )

    def predict_proba(self, X: Sequence[ImageLike]) -> NDArray[np.float64]:
        """Return the probability of each class for each picture, (n, classes).

        Args:
            X: Pictures: paths, PIL pictures or H × W × 3 arrays of 8 bits.

        Raises:
            ImageError: A picture cannot be read.
        """
        check_is_fitted(self)
        rows, self.embedding_stats_ = self._predictor(X)
        return rows

    def predict(self, X: Sequence[ImageLike]) -> NDArray[np.str_]:
        """Return the name of the most probable class of each picture, (n,)."""
        best = self.predict_proba(X).argmax(1)
        names: NDArray[np.str_] = self.classes_[best]
        return names

    def save(self, folder: str | os.PathLike[str], *, with_backbone: bool = True) -> None:
        """Write the learner into a folder as data; see ``saving.save_model``."""
        from regraft.classifiers.saving import save_model

        save_model(self, folder, with_backbone=with_backbone)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def _config(self) -> TrainingConfig:
        return TrainingConfig(
            phases=tuple(frozen() if self.phases is None else self.phases),
            augment=find_augmentation(self.augment),
            views=self.views,
            regularize=find_regularization(self.regularize) or Regularization(),
            class_weight=self.class_weight,
            sampling=self.sampling,
            output=self.output,
            batch_size=self.batch_size,
            seed=self.seed,
            time_budget=self.time_budget,
            compute=self.compute,
        )


def restore(
    learner: NetworkClassifier,
    *,
    classes: Sequence[str],
    network: TransferNetwork,
    backbone: Backbone,
    history: dict[str, Any],
    warnings: Sequence[str],
    predictor: Predictor | None = None,
) -> None:
    """Make a learner a fitted one: the last step of ``fit``, and of loading a saved model.

    Args:
        learner: Its parameters stay as they are.
        classes: The class names in the order of the outputs.
        network: Trunk and head with their trained weights.
        backbone: The trunk of that network, with its preprocessing.
        history: ``phases`` and ``epochs``.
        warnings: What a reader should know.
        predictor: What predicts; by default the one that the history describes.
    """
    learner.classes_ = np.array(list(classes))
    learner.network_ = network.eval()
    learner.backbone_ = backbone
    learner.history_ = history
    learner.warnings_ = tuple(warnings)
    learner._fitted_with = saved_parameters(learner)  # noqa: SLF001 - the other half of the class
    if predictor is None:
        runtime = Runtime.prepare(
            network,
            backbone,
            learner.compute,
            batch_size=learner.batch_size,
            verbose=learner.verbose,
        )
        predictor = Predictor.from_records(runtime, history.get("phases") or ())
    learner._predictor = predictor  # noqa: SLF001 - the other half of the class
