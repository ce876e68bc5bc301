"""Images to features, as a scikit-learn transformer on top of the cache."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from sklearn.base import BaseEstimator, TransformerMixin

from regraft.backbones.backbone import Backbone, build
from regraft.backbones.engines import Engine
from regraft.backbones.sources import stored_hash
from regraft.backbones.spec import BackboneSpec, Compute, EngineName, PrecisionName
from regraft.data.images import ImageLike
from regraft.errors import UsageError
from regraft.features.cache import FeatureCache, Matrix
from regraft.features.embed import Embedded, EmbeddingStats, as_list, embed

_DEFAULT_POOLING = "avg"


class FeatureExtractor(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn images into the features of a pre-trained network.

    Features are cached by the content of each image and by all that shapes the numbers, so that
    no image passes a network twice: not in a grid search, not in a second run, not in another
    process. The network is built once per process, its engine only if an image is not cached.

    Args:
        backbone: A name, or a spec with weights, arguments and preprocessing of its own.
        pooling: ``"avg"``, ``"flatten"`` or ``"stage:NAME"``; a pooling in the spec counts too.
        batch_size: Images per pass, at least 1.
        compute: Engine, precision, cache and decoding; see ``Compute``.
        verbose: Whether to show progress.

    Attributes:
        backbone_: The network.
        stats_: Images, embedded images and seconds of the last call.

    Example:
        >>> import numpy as np
        >>> spec = BackboneSpec("simple_cnn", weights=None)
        >>> extractor = FeatureExtractor(spec, compute=Compute(engine="torch", cache=None))
        >>> extractor.fit_transform([np.zeros((50, 40, 3), np.uint8)] * 2).shape
        (2, 128)
        >>> extractor.stats_.embedded
        1
    """

    stats_: EmbeddingStats

    def __init__(
        self,
        backbone: str | BackboneSpec,
        *,
        pooling: str = _DEFAULT_POOLING,
        batch_size: int = 32,
        compute: Compute = Compute(),
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.pooling = pooling
        self.batch_size = batch_size
        self.compute = compute
        self.verbose = verbose

    @property
    def backbone_(self) -> Backbone:
        """The network, built at the first use in a process."""
        return _built(*self._identity())

    def fit(self, X: Sequence[ImageLike], y: object = None) -> Self:
        """Build the network, so that a wrong name or weights are found out; nothing is learned.

        Raises:
            BackboneError: The network is unknown or cannot be built.
            UsageError: The arguments contradict each other.
        """
        if self.batch_size < 1:
            raise UsageError("batch_size must be at least 1", why=f"found {self.batch_size}")
        _ = self.backbone_
        return self

    def transform(self, X: Sequence[ImageLike]) -> Matrix:
        """Return the features of images, float32 of shape (n, d), in their order.

        Raises:
            ImageError: An image cannot be used; what was computed before stays cached.
            RegraftError: The features cannot be stored.
        """
        return self.stream(X).matrix()

    def stream(self, X: Sequence[ImageLike]) -> Embedded:
        """Embed images without holding all their rows in memory.

        Args:
            X: Paths, Pillow images or H×W×3 uint8 arrays.

        Returns:
            The rows, which stand on disk until its ``blocks`` or its ``matrix`` are asked for.

        Raises:
            ImageError: An image cannot be used; what was computed before stays cached.
            RegraftError: The features cannot be stored.
        """
        self.fit(X)
        backbone, how = self.backbone_, self.compute
        embedded = embed(
            backbone,
            as_list(X),
            cache=FeatureCache.chosen(how.cache),
            width=backbone.feature_dim,
            pooling=backbone.spec.pooling,
            build_engine=lambda: _engine(*self._identity(), how.engine, how.precision),
            compute=how,
            batch_size=self.batch_size,
            verbose=self.verbose,
        )
        self.stats_ = embedded.stats
        return embedded

    def __sklearn_is_fitted__(self) -> bool:
        return True  # nothing is learned from images

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def _identity(self) -> tuple[BackboneSpec, object]:
        """Return the spec, and what tells its weights from their successors of the same name."""
        spec = _with_pooling(self.backbone, self.pooling)
        if spec.weights is None:
            return spec, None
        if spec.weights == "default":
            return spec, stored_hash(spec.name)
        try:
            facts = Path(str(spec.weights)).stat()
        except OSError:
            return spec, None  # building the network says what is wrong
        return spec, (facts.st_mtime_ns, facts.st_size)


# Networks are large: two of them stay, for a pipeline that compares.
@functools.lru_cache(maxsize=2)
def _built(spec: BackboneSpec, _stamp: object) -> Backbone:
    return build(spec)


@functools.lru_cache(maxsize=2)
def _engine(spec: BackboneSpec, stamp: object, name: EngineName, bits: PrecisionName) -> Engine:
    return _built(spec, stamp).engine(name, bits)


def _with_pooling(backbone: str | BackboneSpec, pooling: str) -> BackboneSpec:
    spec = BackboneSpec(backbone) if isinstance(backbone, str) else backbone
    if pooling == _DEFAULT_POOLING:
        return spec
    if spec.pooling not in {pooling, _DEFAULT_POOLING}:
        raise UsageError("two poolings", why=f"{spec.pooling!r} in the spec, {pooling!r} beside it")
    return dataclasses.replace(spec, pooling=pooling)
