"""Activations at the split point, computed once and kept; which way a phase runs; predictions.

A phase runs ``cached`` where the activations of its frozen part are kept, else ``live``: the whole
network then runs in every step. A trained network predicts the way that its last phase ran.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regraft.backbones import engines
from regraft.backbones.backbone import Backbone
from regraft.backbones.spec import Compute, PrecisionName
from regraft.data.images import ImageLike
from regraft.features.cache import FeatureCache, FeatureRows
from regraft.features.embed import EmbeddingStats, as_list, embed, key_facts
from regraft.files import free_bytes, sha256_bytes
from regraft.system import choose_device, exact_float32, has_bf16, progress_bar, within_memory
from regraft.training import split_point as cuts
from regraft.training.batches import AugmentedImages, Images, Inputs, LabelledImages
from regraft.training.loop import autocast
from regraft.training.network import TransferNetwork
from regraft.training.optim import probabilities

_IN_MEMORY = 1 << 30  # bytes of one part that are read once and held


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A network, what it computes with, and where its activations are kept.

    Args:
        network: Trunk and head.
        backbone: The trunk as it is now; its fingerprint is part of the key of activations.
        compute: Device, engine and precision as they are to be had, and decoding.
        batch_size: Images per pass.
        verbose: Whether to show progress.
        shared: Where rows behind the whole trunk are kept, which classifiers on features read, too.
        workspace: Where other activations are kept.
    """

    network: TransferNetwork
    backbone: Backbone
    compute: Compute
    batch_size: int = 32
    verbose: bool = False
    shared: FeatureCache
    workspace: FeatureCache

    @classmethod
    def prepare(
        cls, network: TransferNetwork, backbone: Backbone, compute: Compute, **options: Any
    ) -> Self:
        """Put a network on the device that is asked for, with caches as they are asked for."""
        device = choose_device(compute.device)
        bf16 = compute.precision == "bf16" and has_bf16(device)
        usable: PrecisionName = "bf16" if bf16 else "fp32"
        # OpenVINO would leave an accelerator idle.
        engine = compute.engine if device == "cpu" else "torch"
        shared = FeatureCache.chosen(compute.cache)
        own = compute.cache not in {"default", None}
        return cls(
            # Another order in memory would change the last bits.
            network=network.to(device).to(memory_format=torch.channels_last),
            backbone=backbone,
            compute=replace(compute, device=device, engine=engine, precision=usable),
            shared=shared,
            workspace=shared if own else FeatureCache.temporary(),
            **options,
        )


class CachedActivations:
    """Activations as inputs of the loop; they are read from disk unless they are few.

    Args:
        rows: Where they stand.
        digests: The key of each sample's row, one list per view.
    """

    def __init__(self, rows: FeatureRows, digests: Sequence[Sequence[str]]) -> None:
        self._rows = rows
        self._digests = digests
        few = len(digests) * len(self) * rows.width * 4 <= _IN_MEMORY
        self._held = [rows.read(view) for view in digests] if few else None

    def __len__(self) -> int:
        return len(self._digests[0])

    def take(self, samples: NDArray[np.int64], epoch: int) -> Tensor:
        """Return the rows of these samples, float32 (n, width); views take turns with epochs."""
        view = epoch % len(self._digests)
        if self._held is not None:
            return torch.from_numpy(self._held[view][samples])
        return torch.from_numpy(self._rows.read([self._digests[view][s] for s in samples]))


@dataclass(eq=False)
class ActivationCache:
    """Computes the activations of images in front of a split point, and keeps them.

    Args:
        runtime: The network, and what it computes with.
        split_point: Where the network is cut.
    """

    runtime: Runtime
    split_point: cuts.SplitPoint

    @property
    def cache(self) -> FeatureCache:
        """Where rows of images as they are are kept."""
        behind = self.split_point.is_behind_trunk
        return self.runtime.shared if behind else self.runtime.workspace

    def plain(self, images: Sequence[ImageLike]) -> tuple[CachedActivations, int]:
        """Return the rows of images as they are, and how many had to be computed.

        Raises:
            ImageError: An image cannot be used.
            RegraftError: The rows cannot be stored.
        """
        runtime = self.runtime
        embedded = embed(
            runtime.backbone,
            images,
            cache=self.cache,
            width=self.split_point.width,
            pooling=self._pooling,
            build_engine=lambda: self._engine,
            compute=runtime.compute,
            batch_size=runtime.batch_size,
            verbose=runtime.verbose,
        )
        return CachedActivations(embedded.rows, [embedded.sha256s]), embedded.stats.embedded

    def views(
        self, images: AugmentedImages, views: int, about: dict[str, Any]
    ) -> tuple[CachedActivations, int]:
        """Return the rows of several augmented views of each image, and how many were computed.

        What shaped the views, as JSON values, becomes part of the key.

        Raises:
            RegraftError: The rows cannot be stored.
        """
        runtime = self.runtime
        key = key_facts(
            runtime.backbone,
            self._pooling,
            runtime.compute,
            engine=self._engine.name,
            device=runtime.compute.device,
            view=about,
        )
        # Views are of use to this training alone.
        rows = runtime.workspace.rows(key, self.split_point.width)
        contents, total, computed = images.images.sha256s, views * len(images), 0
        digests = [
            [sha256_bytes(f"{content} {i} {view}".encode()) for i, content in enumerate(contents)]
            for view in range(views)
        ]
        with (
            progress_bar("Embedding views", total, visible=runtime.verbose) as advance,
            rows.writer() as add,
        ):
            for view, names in enumerate(digests):
                missing = np.flatnonzero(~rows.known(names))
                advance(len(names) - len(missing))
                for start in range(0, len(missing), runtime.batch_size):
                    batch = missing[start : start + runtime.batch_size]
                    features = self._engine(images.take(batch, view).numpy())
                    add([names[sample] for sample in batch], features)
                    advance(len(batch))
                computed += len(missing)
        return CachedActivations(rows, digests), computed

    @cached_property
    def _engine(self) -> engines.Engine:
        """What computes the rows, built when the first of them is missing."""
        runtime, network = self.runtime, self.runtime.network
        before = self.split_point.before(network)
        embedder = engines.Embedder(network.trunk, runtime.backbone.preprocessing, before)
        return engines.make_engine(
            embedder.eval(),  # rows that depend on their batch, or move averages, are no rows
            name=runtime.compute.engine,
            precision=runtime.compute.precision,
            fingerprint=runtime.backbone.fingerprint_of(self._pooling),
            device=runtime.compute.device,
        )

    @property
    def _pooling(self) -> str:
        """What a row is: behind the whole trunk the same that a classifier on features reads."""
        names = {"pooled": "avg", "map": "flatten"}
        last = ", channels last" if self.split_point.channels_last else ""
        return names.get(self.split_point.name, f"map behind {self.split_point.name}{last}")


@dataclass(frozen=True)
class ExecutionMode:
    """How a phase gets from images to logits.

    Attributes:
        cache: Computes and keeps activations; None where every step runs the whole network.
        why: Why it is run live, as half a sentence; empty where activations are kept.
        size: Bytes that the activations take.
    """

    cache: ActivationCache | None
    why: str = ""
    size: int = 0

    def facts(self) -> dict[str, Any]:
        """Return what a reader of the run should know, as JSON values."""
        if self.cache is None:
            return {"mode": "live", "boundary": {"why": self.why} if self.why else None}
        at = self.cache.split_point
        boundary = {"stage": at.name, "shape": list(at.shape), "bytes": self.size}
        return {"mode": "cached", "boundary": boundary}


def recall_mode(facts: Mapping[str, Any], runtime: Runtime) -> ExecutionMode:
    """Return the mode that `ExecutionMode.facts` has described: a phase resumes as it began.

    Raises:
        RegraftError: The network has no such split point.
    """
    kept = facts["boundary"] or {}
    if facts["mode"] == "live":
        return ExecutionMode(None, why=kept.get("why", ""))
    split_point = cuts.named_split_point(runtime.network, kept["stage"])
    return ExecutionMode(ActivationCache(runtime, split_point), size=kept.get("bytes", 0))


def choose_mode(
    runtime: Runtime,
    first: int,
    train: LabelledImages,
    loss: Callable[[Tensor, Tensor], Tensor],
    samples: int,
) -> ExecutionMode:
    """Return where a network is cut for a phase; live where it cannot be, or the disk is too small.

    Args:
        runtime: Its network is frozen for the phase.
        first: The index of the first stage that is trained.
        train: Some of these images are looked at, to compare gradients.
        loss: From logits and targets to a number.
        samples: How many activations are to be kept.
    """
    network, device = runtime.network, runtime.compute.device
    split_point: cuts.SplitPoint | None = cuts.behind_trunk(network)
    if first < len(network.stages):
        images, targets = (tensor.to(device) for tensor in train.few())
        split_point = cuts.find_split_point(network, first, images, lambda x: loss(x, targets))
    if split_point is None:
        return ExecutionMode(None, "this network cannot be cut in front of what is trained")
    cache, size = ActivationCache(runtime, split_point), samples * split_point.width * 4
    allowed = free_bytes(cache.cache.folder) // 2
    if size > allowed:
        why = f"its activations would take {size:,} bytes, and {allowed:,} are allowed"
        return ExecutionMode(None, why)
    return ExecutionMode(cache, size=size)


@dataclass(frozen=True)
class Predictor:
    """Probabilities from a trained network.

    Where the last phase kept the activations of a frozen part, these are used again: images that
    were trained with do not pass the trunk a second time.

    Args:
        runtime: The network, and what it computes with.
        cache: Computes the activations of the frozen part; None to run the whole network.
    """

    runtime: Runtime
    cache: ActivationCache | None

    def __call__(self, images: Sequence[ImageLike]) -> tuple[NDArray[np.float64], EmbeddingStats]:
        """Return the probability of each class for each image, (n, classes), and what it cost.

        Raises:
            ImageError: An image cannot be used.
        """
        start, images = time.perf_counter(), as_list(images)
        runtime = self.runtime
        network = runtime.network.to(runtime.compute.device).eval()
        if not images:
            nothing = probabilities(network(network.blank(1)))[:0].numpy()
            return nothing, EmbeddingStats(0, 0, 0.0)
        if self.cache is None:
            preprocessing = runtime.backbone.preprocessing
            decoding, verbose = runtime.compute.decoding, runtime.verbose
            inputs = Images(images, preprocessing, decoding=decoding, verbose=verbose)
            rows, passed = self._run(network, inputs), len(images)
        else:
            kept, passed = self.cache.plain(images)
            rows = self._run(self.cache.split_point.behind(network).eval(), kept)
        return rows, EmbeddingStats(len(images), passed, time.perf_counter() - start)

    def _run(self, network: nn.Module, inputs: Inputs) -> NDArray[np.float64]:
        compute, size = self.runtime.compute, self.runtime.batch_size

        def run(samples: NDArray[np.int64]) -> NDArray[np.float64]:
            rows = probabilities(network(inputs.take(samples, 0).to(compute.device)).float())
            found: NDArray[np.float64] = rows.numpy()
            return found

        every = np.arange(len(inputs))
        numbers = autocast(compute.device, compute.precision)
        with torch.inference_mode(), exact_float32(compute.device), numbers:
            batches = [every[start : start + size] for start in range(0, len(every), size)]
            return np.concatenate([within_memory(run, batch) for batch in batches])
