"""Activations at the boundary, computed once, kept on disk and handed out by sample and epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regraft.backbones.backbone import Backbone
from regraft.backbones.embedder import Embedder
from regraft.backbones.engines import Engine, make_engine
from regraft.backbones.spec import Compute, EngineName
from regraft.data.images import Decoding, Picture
from regraft.features.cache import STORED_AS, FeatureCache, FeatureRows, StoredType
from regraft.features.embed import embed, key_facts
from regraft.files import sha256_bytes
from regraft.progress import progress_bar
from regraft.training.batches import AugmentedPictures
from regraft.training.network import TransferNetwork
from regraft.training.split_point import Boundary

_IN_MEMORY = 1 << 30  # bytes of one part that are read once and held


class KeptRows:
    """Activations as inputs of the loop; they are read from disk unless they are few.

    Args:
        rows: Where they stand.
        digests: The key of each sample's row, one list per view.
    """

    def __init__(self, rows: FeatureRows, digests: Sequence[Sequence[str]]) -> None:
        self._rows = rows
        self._digests = digests
        total = len(digests) * len(self) * rows.width * STORED_AS[rows.stored].itemsize
        self._held = [rows.read_stored(view) for view in digests] if total <= _IN_MEMORY else None

    def __len__(self) -> int:
        return len(self._digests[0])

    def take(self, samples: NDArray[np.int64], epoch: int) -> Tensor:
        """Return the rows of these samples, float32 (n, width); views take turns with epochs."""
        view = epoch % len(self._digests)
        if self._held is not None:
            stored = self._held[view][samples]
        else:
            stored = self._rows.read_stored([self._digests[view][sample] for sample in samples])
        tensor = torch.from_numpy(stored)
        if self._rows.stored == "bfloat16":
            tensor = tensor.view(torch.bfloat16)
        return tensor.float()


@dataclass(kw_only=True, eq=False)
class Keeper:
    """Computes the activations of pictures in front of a boundary, and keeps them.

    Args:
        backbone: The trunk as it is now; its fingerprint is part of the key.
        network: Trunk and head.
        boundary: Where the network is cut.
        cache: Where rows are kept.
        engine: ``"auto"``, ``"torch"`` or ``"openvino"``.
        precision: ``"fp32"`` or ``"bf16"``.
        device: Where torch computes.
        batch_size: Pictures per pass.
        decoding: How files become pixels.
        stored: How a number is stored.
        verbose: Whether to show progress.
    """

    backbone: Backbone
    network: TransferNetwork
    boundary: Boundary
    cache: FeatureCache
    engine: EngineName
    precision: Literal["fp32", "bf16"]
    device: str
    batch_size: int = 32
    decoding: Decoding = Decoding()
    stored: StoredType = "float32"
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.device != "cpu":
            self.engine = "torch"  # OpenVINO would leave the accelerator idle

    def plain(self, pictures: Sequence[Picture]) -> tuple[KeptRows, int]:
        """Return the rows of pictures as they are, and how many had to be computed.

        Raises:
            ImageError: A picture cannot be used.
            RegraftError: The rows cannot be stored.
        """
        embedded = embed(
            self.backbone,
            pictures,
            cache=self.cache,
            width=self.boundary.width,
            pooling=self._pooling,
            build_engine=lambda: self.built_engine,
            compute=self._compute,
            stored=self.stored,
            batch_size=self.batch_size,
            verbose=self.verbose,
        )
        return KeptRows(embedded.rows, [embedded.sha256s]), embedded.stats.embedded

    def views(
        self, pictures: AugmentedPictures, views: int, about: dict[str, Any]
    ) -> tuple[KeptRows, int]:
        """Return the rows of several augmented views of each picture, and how many were computed.

        Args:
            pictures: The pictures, which look different in each of the first epochs.
            views: How many of these are kept.
            about: What shaped the views, as JSON has it.

        Raises:
            RegraftError: The rows cannot be stored.
        """
        engine = self.built_engine
        key = key_facts(
            self.backbone,
            self._pooling,
            self._compute,
            engine=engine.name,
            device=self.device,
            view=about,
        )
        rows = self.cache.rows(key, self.boundary.width, self.stored)
        digests = [
            [_view_digest(content, sample, view) for sample, content in enumerate(pictures.sha256s)]
            for view in range(views)
        ]
        total = views * len(pictures)
        computed = 0
        with (
            progress_bar("Embedding views", total, visible=self.verbose) as advance,
            rows.writer(total) as writer,
        ):
            for view, names in enumerate(digests):
                missing = np.flatnonzero(~rows.known(names))
                advance(len(names) - len(missing))
                for batch in np.array_split(missing, -(-len(missing) // self.batch_size) or 1):
                    if len(batch):
                        features = engine(pictures.take(batch, view).numpy())
                        writer.add([names[sample] for sample in batch], features)
                        advance(len(batch))
                computed += len(missing)
        return KeptRows(rows, digests), computed

    @cached_property
    def built_engine(self) -> Engine:
        """What computes the rows, built when the first of them is missing."""
        preprocessing = self.backbone.preprocessing
        embedder = Embedder(self.network.trunk, preprocessing, self.boundary.before(self.network))
        return make_engine(
            embedder.eval(),  # rows that depend on their batch, or move averages, are no rows
            name=self.engine,
            precision=self.precision,
            fingerprint=self.backbone.fingerprint_of(self._pooling),
            size=preprocessing.size,
            device=self.device,
        )

    @property
    def _compute(self) -> Compute:
        return Compute(
            device=self.device,
            engine=self.engine,
            precision=self.precision,
            decoding=self.decoding,
        )

    @property
    def _pooling(self) -> str:
        """What a row is: behind the whole trunk the same that a classifier on features reads."""
        names = {"pooled": "avg", "map": "flatten"}
        last = ", channels last" if self.boundary.channels_last else ""
        return names.get(self.boundary.name, f"map behind {self.boundary.name}{last}")


def needed_bytes(boundary: Boundary, stored: StoredType, samples: int) -> int:
    """Return how many bytes the rows of so many samples take.

    Example:
        >>> needed_bytes(Boundary("map", (512, 7, 7)), "float16", 10)
        501760
    """
    return samples * boundary.width * STORED_AS[stored].itemsize


def _view_digest(content: str, sample: int, view: int) -> str:
    return sha256_bytes(f"{content} {sample} {view}".encode())
