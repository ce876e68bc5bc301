"""The learner with a frozen backbone: features computed once, and a shallow classifier on top."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from regraft.backbones.backbone import Backbone
from regraft.backbones.spec import BackboneSpec, Compute
from regraft.backbones.views import views_of
from regraft.classifiers import model_files
from regraft.classifiers.model_files import ModelFiles
from regraft.classifiers.rotation import Scaling
from regraft.classifiers.shallow import (
    FittedShallow,
    Grid,
    check_settings,
    fit_shallow,
    fit_temperature,
    log_shares,
    tempered,
)
from regraft.classifiers.shallow_files import ShallowModel, unsaveable
from regraft.data.images import ImageLike, open_image
from regraft.errors import UsageError
from regraft.features.embed import EmbeddingStats, as_list, key_facts
from regraft.features.extractor import FeatureExtractor
from regraft.system import Stopwatch, threads

_AT_ONCE = 64  # images whose views are in memory together


class Labelled(Protocol):
    """Anything with images and the name of the class of each, such as a ``Dataset``."""

    @property
    def paths(self) -> Sequence[ImageLike]:
        """The images."""

    @property
    def labels(self) -> Sequence[str]:
        """The name of the class of each image."""


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """What both learners are: scikit-learn classifiers of images that predict names."""

    classes_: NDArray[np.str_]
    history_: dict[str, Any]
    warnings_: tuple[str, ...]
    temperature_: float = 1.0
    embedding_stats_: EmbeddingStats
    compute: Compute
    _fitted_with: dict[str, Any]
    _recorded: list[NDArray[np.float32]] | None = None
    backbone_: Any

    def predict(self, X: Sequence[ImageLike]) -> NDArray[np.str_]:
        """Return the name of the most probable class of each image, (n,).

        Equal probabilities go to the class that comes first in ``classes_``.

        Raises:
            ImageError: An image cannot be used.
        """
        best = self.predict_proba(X).argmax(axis=1)
        names: NDArray[np.str_] = self.classes_[best]
        return names

    def predict_proba(self, X: Sequence[ImageLike], *, views: int = 1) -> NDArray[np.float64]:
        """Return the probability of each class, (n, k), columns in the order of ``classes_``.

        Args:
            X: Images.
            views: How many views of each image are predicted, whose mean is returned: 1, 2 (with
                the mirror image) or 10 (centre and corners, with their mirror images).

        Raises:
            ImageError: An image cannot be used.
            UsageError: Parameters were changed since the fit, or there are no so many views.
        """
        check_is_fitted(self)
        if views == 1:
            rows, self.embedding_stats_ = self._predict(X)
            return tempered(rows, self.temperature_)
        images, means = as_list(X), [np.empty((0, len(self.classes_)))]
        embedded, watch = 0, Stopwatch()

        def cut(image: ImageLike) -> list[NDArray[np.uint8]]:
            opened = open_image(image, self.compute.decoding)
            return views_of(opened, self.backbone_.preprocessing, views)

        with watch.step("all"), ThreadPoolExecutor(threads()) as pool:
            for start in range(0, len(images), _AT_ONCE):
                block = images[start : start + _AT_ONCE]
                every = [view for each in pool.map(cut, block) for view in each]
                rows, stats = self._predict(every)
                means.append(rows.reshape(len(block), views, -1).mean(axis=1))
                embedded += stats.embedded
        self.embedding_stats_ = EmbeddingStats(len(images), embedded, watch.seconds["all"])
        return tempered(np.concatenate(means), self.temperature_)

    def calibrate(self, probabilities: NDArray[np.floating[Any]], labels: Sequence[str]) -> Self:
        """Fit the temperature of the probabilities, so that they say how often they are right.

        No prediction becomes another: Guo et al., On calibration of modern neural networks, 2017.

        Args:
            probabilities: What this learner has predicted for images that it has not learned from,
                such as those of the validation part, (n, k).
            labels: The class of each, by name.

        Example:
            >>> dark, light = [np.full((32, 32, 3), shade, np.uint8) for shade in (20, 220)]
            >>> spec = BackboneSpec("simple_cnn", weights=None)
            >>> learner = FeatureClassifier(spec).fit([dark, light], ["night", "day"])
            >>> sure = learner.predict_proba([light])
            >>> _ = learner.calibrate(np.repeat(sure, 9, axis=0), ["day"] * 5 + ["night"] * 4)
            >>> bool(0.5 < learner.predict_proba([light])[0, 0] < sure[0, 0])
            True
        """
        scores = log_shares(probabilities) * self.temperature_
        self.temperature_ = fit_temperature(scores, np.searchsorted(self.classes_, list(labels)))
        return self

    @property
    def can_be_saved_(self) -> bool:
        """Whether what was fitted can be kept as data."""
        return True

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[NDArray[np.float32]]]:
        """Keep the features of all images that are predicted within the ``with`` block.

        They cost no further pass: they are what the prediction was made from. Of a trained network
        that is its last feature map, pooled.

        Yields:
            A list that gets them in blocks, (m, d), in the order of the images and their views.

        Example:
            >>> dark, light = [np.full((32, 32, 3), shade, np.uint8) for shade in (20, 220)]
            >>> spec = BackboneSpec("simple_cnn", weights=None)
            >>> learner = FeatureClassifier(spec, classifier="knn", compute=Compute(cache=None))
            >>> with learner.fit([dark, light], ["night", "day"]).recording() as features:
            ...     _ = learner.predict([light, dark])
            >>> [block.shape for block in features]
            [(2, 128)]
        """
        check_is_fitted(self)
        self._recorded = []
        try:
            yield self._recorded
        finally:
            self._recorded = None

    def _predict(self, images: Sequence[ImageLike]) -> tuple[NDArray[np.float64], EmbeddingStats]:
        """Return the probabilities of images as they are, and what they cost."""
        raise NotImplementedError

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_fitted_with")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def _refuse_changes(self) -> None:
        """Refuse a learner that is not any more what it was when it was fitted."""
        check_is_fitted(self)
        now = self._described()
        changed = [name for name, value in self._fitted_with.items() if now[name] != value]
        if changed:
            what = "this learner was fitted with other parameters"
            hint = "fit it again, or set them back"
            why = f"changed since: {', '.join(changed)}"
            raise UsageError(what, why=why, hint=hint, code="USAGE-REFIT")

    def _described(self) -> dict[str, Any]:
        """Return what must not change between the fit and its use, by name."""
        raise NotImplementedError

    def _record(self, *, trained: bool = False, **part: Any) -> model_files.ModelRecord:
        return model_files.ModelRecord(
            classes=tuple(map(str, self.classes_)),
            backbone=model_files.backbone_record(self.backbone_, trained=trained),
            compute=model_files.portable_compute(self.compute),
            history=self.history_,
            warnings=self.warnings_,
            temperature=self.temperature_,
            **part,
        )

    def _become(
        self,
        classes: Sequence[str],
        history: dict[str, Any],
        warnings: Sequence[str],
        temperature: float = 1.0,
    ) -> None:
        """Become a fitted learner: the last step of ``fit``, and of loading a saved model."""
        self.classes_ = np.array(list(classes), dtype=str)
        self.history_ = history
        self.warnings_ = tuple(warnings)
        self.temperature_ = temperature
        self._fitted_with = self._described()


class FeatureClassifier(ImageClassifier):
    """Classify images by the features of a pre-trained network that stays as it is.

    A scikit-learn classifier whose X is a list of images (paths, Pillow images or H×W×3 uint8
    arrays) and whose y is a list of class names. Thanks to the cache of features, grids, folds and
    other classifiers on the same images pass no image through the network twice.

    Args:
        backbone: A name, or a spec with weights, arguments and preprocessing of its own.
        classifier: ``"logistic"``, ``"linear_svm"``, ``"knn"``, ``"random_forest"``,
            ``"gradient_boosting"``, ``"xgboost"``, or any scikit-learn classifier, which is cloned.
        grid: ``"default"`` for the named classifier's own grid, None for no search, or parameter
            names with lists of values; searched by 3-fold cross-validation on training images.
        scale: ``"auto"``, or a key of ``rotation.SCALES``: ``"unit"``, ``"columns"``,
            ``"principal"``, ``"none"``.
        pooling: ``"avg"``, ``"flatten"`` or ``"stage:NAME"``.
        compute: Engine, precision, cache and decoding; see ``Compute``.
        seed: For folds and for classifiers that draw numbers.
        verbose: Whether to show progress.

    Attributes:
        classes_: The names of the classes, sorted.
        classifier_: The fitted scikit-learn classifier, on scaled features and the classes 0 to
            k - 1; None in a loaded learner.
        history_: ``classifier`` (type and parameters), ``n``, ``d``, ``grid`` (mean and sd of the
            accuracy at each point), ``best``, ``converged``, ``temperature``, ``seconds`` per
            step.
        warnings_: What the fit complained about, each complaint once.
        embedding_stats_: Images, embedded images and seconds of the last call.
        backbone_: The network.

    Example:
        >>> dark, light = [np.full((32, 32, 3), shade, np.uint8) for shade in (20, 220)]
        >>> spec = BackboneSpec("simple_cnn", weights=None)
        >>> learner = FeatureClassifier(spec, classifier="knn", compute=Compute(cache=None))
        >>> learner.fit([dark, light], ["night", "day"]).predict([light, dark]).tolist()
        ['day', 'night']
    """

    _fitted: FittedShallow

    def __init__(
        self,
        backbone: str | BackboneSpec,
        *,
        classifier: Any = "logistic",
        grid: str | Grid | None = "default",
        scale: str = "auto",
        pooling: str = "avg",
        compute: Compute = Compute(),
        seed: int = 0,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.classifier = classifier
        self.grid = grid
        self.scale = scale
        self.pooling = pooling
        self.compute = compute
        self.seed = seed
        self.verbose = verbose

    @property
    def backbone_(self) -> Backbone:
        """The network, built at the first use in a process."""
        return self._extractor().backbone_

    @property
    def can_be_saved_(self) -> bool:
        """Whether what was fitted can be kept as data."""
        return self._fitted.model is not None

    @property
    def classifier_(self) -> Any:
        """The fitted scikit-learn classifier; None in a loaded learner."""
        check_is_fitted(self)
        return self._fitted.estimator

    @property
    def shallow_(self) -> FittedShallow:
        """What was fitted on the features: a function from these to probabilities."""
        self._refuse_changes()
        return self._fitted

    def fit(self, X: Sequence[ImageLike], y: Sequence[str]) -> Self:
        """Learn to tell the classes apart.

        Args:
            X: Images: paths, Pillow images or H×W×3 uint8 arrays.
            y: The name of the class of each image.

        Raises:
            UsageError: The parameters contradict each other, or labels are no names.
            DataError: There is only one class, or an image cannot be used.
            BackboneError: The network cannot be built.
        """
        images, names = paired(X, y)
        check_settings(self.classifier, self.grid, self.scale)
        classes, indices = np.unique(np.asarray(names, dtype=object), return_inverse=True)
        extractor = self._extractor()
        features = extractor.transform(images)
        self.embedding_stats_ = extractor.stats_
        self._fitted = fitted = fit_shallow(
            features,
            indices,
            classifier=self.classifier,
            grid=self.grid,
            scale=self.scale,
            seed=self.seed,
        )
        lost = [f"the model cannot be saved: {fitted.obstacle}"] if fitted.obstacle else []
        self._become(classes.tolist(), dict(fitted.history), [*fitted.warnings, *lost])
        return self

    def _predict(self, images: Sequence[ImageLike]) -> tuple[NDArray[np.float64], EmbeddingStats]:
        self._refuse_changes()
        embedded = self._extractor().stream(images)
        nothing = np.empty((0, len(self.classes_)))
        rows = [nothing]
        for block in embedded.blocks():
            rows.append(self._fitted.predict_proba(block))
            if self._recorded is not None:
                self._recorded.append(block)
        return np.concatenate(rows), embedded.stats

    def save(self, folder: str | os.PathLike[str], *, with_backbone: bool = True) -> None:
        """Write the learner into a folder as data; see ``network_classifier.save_model``."""
        self._refuse_changes()
        fitted = self._fitted
        if fitted.model is None:
            raise unsaveable(fitted.obstacle)
        named = self.classifier
        part = model_files.ShallowPart(
            name=named if isinstance(named, str) else type(named).__name__,
            scaling=fitted.scaling.name,
            model=fitted.model.record,
        )
        arrays = {f"classifier.{name}": array for name, array in fitted.model.arrays.items()}
        arrays |= {f"scaling.{name}": array for name, array in fitted.scaling.arrays.items()}
        model_files.write_model(
            folder,
            self._record(shallow=part),
            arrays,
            content=fitted.model.content,
            backbone=self.backbone_ if with_backbone else None,
        )

    @classmethod
    def from_files(
        cls, files: ModelFiles, *, weights: str | os.PathLike[str] | None = None
    ) -> Self:
        """Return the learner that a saved model holds; see ``network_classifier.load_model``.

        Raises:
            ModelError: Its parts do not fit together, or its network is not to be had.
        """
        record, part = files.record, files.record.shallow
        assert part is not None
        arrays: dict[str, dict[str, NDArray[Any]]] = {"classifier": {}, "scaling": {}}
        for full, array in files.arrays.items():
            owner, _, name = full.partition(".")
            if owner not in arrays:
                raise model_files.corrupt(files.place, f"unknown array {full!r:.80}")
            arrays[owner][name] = array
        scaling = Scaling(part.scaling, arrays["scaling"])
        model = ShallowModel(part.model, arrays["classifier"], files.content)
        fitted = FittedShallow(None, scaling, model, record.history, record.warnings)
        fitted.check(record.backbone.feature_dim, len(record.classes))
        spec, compute = record.backbone.spec, record.compute
        learner = cls(spec, classifier=part.name, scale=part.scaling, compute=compute)

        def build(spec: BackboneSpec) -> Backbone:
            learner.backbone = spec
            return learner.backbone_

        model_files.open_backbone(files, build, weights=weights)
        learner._fitted = fitted
        learner._become(record.classes, record.history, record.warnings, record.temperature)
        return learner

    def _described(self) -> dict[str, Any]:
        """Return what shapes the features: a classifier is of use on the same ones alone."""
        backbone = self.backbone_
        # All engines are as exact, and a model may go to a machine with another one.
        compute = model_files.portable_compute(self.compute)
        return key_facts(backbone, backbone.spec.pooling, compute, engine="any")

    def _extractor(self) -> FeatureExtractor:
        return FeatureExtractor(
            self.backbone, pooling=self.pooling, compute=self.compute, verbose=self.verbose
        )


def paired(images: Sequence[ImageLike], labels: Sequence[str]) -> tuple[list[ImageLike], list[str]]:
    """Return images, and labels as plain texts, as lists: what belongs together by position.

    Raises:
        UsageError: The numbers differ, there is a single image, or a label is no name
            (``USAGE-LABELS``).
    """
    taken, names = as_list(images), list(labels)
    if len(names) != len(taken):
        why = f"{len(taken)} images, {len(names)} labels"
        raise UsageError("every image needs one label", why=why)
    for name in names:
        if not isinstance(name, str) or not name:
            why = f"found {name!r:.80} of type {type(name).__name__}"
            hint = "pass the names, for example through [names[i] for i in numbers]"
            raise UsageError("labels are names of classes", why=why, hint=hint, code="USAGE-LABELS")
    return taken, [str(name) for name in names]
