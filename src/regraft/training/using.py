"""A trained network used: pictures in, probabilities out, on the way that its last phase ran."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from regraft.backbones.backbone import Backbone
from regraft.backbones.spec import EngineName
from regraft.data.images import Decoding, Picture
from regraft.features.cache import FeatureCache
from regraft.features.embed import EmbeddingStats, as_list
from regraft.system import exact_float32, within_memory
from regraft.training.activations import Keeper
from regraft.training.batches import Inputs, Pictures
from regraft.training.network import TransferNetwork
from regraft.training.optim import probabilities
from regraft.training.split_point import Boundary
from regraft.training.state import Settings
from regraft.training.steps import autocast
from regraft.training.ways import recalled


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Probabilities from a trained network.

    Where the last phase kept the activations of a frozen part, these are used again: pictures that
    were trained with do not pass the trunk a second time.

    Args:
        network: Trunk and head.
        backbone: The trunk with its preprocessing.
        keeper: Computes the activations of the frozen part; None to run the whole network.
        settings: Batch size, device and precision.
        decoding: How files become pixels.
        verbose: Whether to show progress.
    """

    network: TransferNetwork
    backbone: Backbone
    keeper: Keeper | None
    settings: Settings
    decoding: Decoding = Decoding()
    verbose: bool = False

    @classmethod
    def from_history(
        cls,
        network: TransferNetwork,
        backbone: Backbone,
        history: Mapping[str, Any],
        *,
        device: str,
        precision: Literal["fp32", "bf16"],
        engine: EngineName,
        cache: FeatureCache,
        workspace: FeatureCache,
        batch_size: int,
        decoding: Decoding,
        verbose: bool,
    ) -> Predictor:
        """Return the predictor of a network whose last phase ran as its history says.

        Args:
            network: Trunk and head.
            backbone: The trunk with its preprocessing.
            history: Its ``phases``; the last one says where activations were kept.
            device: Where torch computes.
            precision: ``"fp32"`` or ``"bf16"``.
            engine: What runs the frozen part.
            cache: Where rows behind the whole trunk are kept.
            workspace: Where other activations are kept.
            batch_size: Pictures per pass.
            decoding: How files become pixels.
            verbose: Whether to show progress.

        Raises:
            RegraftError: The network has no such boundary.
        """

        def make_keeper(boundary: Boundary) -> Keeper:
            return Keeper(
                backbone=backbone,
                network=network,
                boundary=boundary,
                cache=cache if boundary.is_behind_trunk else workspace,
                engine=engine,
                precision=precision,
                device=device,
                batch_size=batch_size,
                decoding=decoding,
                verbose=verbose,
            )

        phases = history.get("phases")
        keeper = recalled(phases[-1], network, make_keeper).keeper if phases else None
        settings = Settings(batch_size=batch_size, device=device, precision=precision)
        return cls(
            network=network,
            backbone=backbone,
            keeper=keeper,
            settings=settings,
            decoding=decoding,
            verbose=verbose,
        )

    def __call__(self, pictures: Sequence[Picture]) -> tuple[NDArray[np.float64], EmbeddingStats]:
        """Return the probability of each class for each picture, (n, classes), and what it cost.

        Raises:
            ImageError: A picture cannot be used.
        """
        start, pictures = time.perf_counter(), as_list(pictures)
        network = self.network.to(self.settings.device).eval()
        inputs: Inputs
        if not pictures:
            nothing = probabilities(network(network.blank(1)))[:0].numpy()
            return nothing, EmbeddingStats(0, 0, 0.0)
        if self.keeper is None:
            inputs, passed = self._pixels(pictures), len(pictures)
            rows = self._run(network, inputs)
        else:
            try:
                inputs, passed = self.keeper.plain(pictures)
            except OverflowError:  # beyond float16, which was enough for the pictures learned from
                inputs, passed = replace(self.keeper, stored="float32").plain(pictures)
            rows = self._run(self.keeper.boundary.behind(network).eval(), inputs)
        seconds = time.perf_counter() - start
        return rows, EmbeddingStats(len(pictures), passed, seconds)

    def _run(self, network: nn.Module, inputs: Inputs) -> NDArray[np.float64]:
        device, size = self.settings.device, self.settings.batch_size

        def run(samples: NDArray[np.int64]) -> NDArray[np.float64]:
            rows = probabilities(network(inputs.take(samples, 0).to(device)).float())
            found: NDArray[np.float64] = rows.numpy()
            return found

        every = np.arange(len(inputs))
        with torch.inference_mode(), exact_float32(device), autocast(self.settings):
            batches = [every[start : start + size] for start in range(0, len(every), size)]
            return np.concatenate([within_memory(run, batch) for batch in batches])

    def _pixels(self, pictures: Sequence[Picture]) -> Pictures:
        return Pictures(
            pictures,
            self.backbone.prepare,
            size=self.backbone.preprocessing.size,
            decoding=self.decoding,
            verbose=self.verbose,
        )
