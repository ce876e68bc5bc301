"""The second learner: a trunk and a head that are trained through phases."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from regraft.backbones.backbone import build
from regraft.backbones.spec import BackboneSpec
from regraft.classifiers.batches import Pictures
from regraft.classifiers.grafting import Grafted, build_optimizer, parameter_groups
from regraft.classifiers.heads import Head, find_head
from regraft.classifiers.phases import Phase, frozen
from regraft.classifiers.training import Part, Settings, run_phase
from regraft.compute import choose_device
from regraft.data.dataset import Dataset
from regraft.data.images import Picture
from regraft.errors import DataError, UsageError
from regraft.progress import progress_bar


class NetworkClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A network whose head, and as much of its trunk as the phases say, is trained.

    Args:
        backbone: A name or a spec; ``weights=None`` there for training from nothing.
        head: A head or the name of one.
        phases: What is trained, phase by phase; by default a new head on the frozen trunk.
        batch_size: Pictures per step.
        seed: Everything random is drawn from it.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        precision: ``"fp32"``, or ``"bf16"`` for automatic mixed precision.
        verbose: Whether to show progress on standard error.

    Attributes:
        classes_: The class names in the order of the columns of ``predict_proba``.
        backbone_: The network with its preprocessing; its weights are the trained ones.
        history_: One record per phase, each with one record per epoch.

    Example:
        >>> from regraft.classifiers.phases import from_scratch
        >>> spec = BackboneSpec("small_cnn", weights=None)
        >>> dark, light = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
        >>> net = NetworkClassifier(spec, phases=from_scratch(2), device="cpu")
        >>> net.fit([dark, light] * 4, ["night", "day"] * 4).predict([light]).shape
        (1,)
    """

    def __init__(
        self,
        backbone: str | BackboneSpec,
        *,
        head: str | Head = "linear",
        phases: Sequence[Phase] | None = None,
        batch_size: int = 32,
        seed: int = 0,
        device: str = "auto",
        precision: str = "fp32",
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.head = head
        self.phases = phases
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.precision = precision
        self.verbose = verbose

    def fit(
        self, X: Sequence[Picture], y: Sequence[str], *, validation: Dataset | None = None
    ) -> Self:
        """Train through all phases.

        Args:
            X: Pictures: paths, PIL pictures or H × W × 3 arrays of 8 bits.
            y: The class of each picture, by name.
            validation: Decides which epoch of a phase was best; without it the last one stays.

        Raises:
            DataError: Labels are no names, or a validation class is unknown.
            ImageError: A picture cannot be read.
        """
        classes = sorted(set(y))
        if len(y) != len(X) or not all(isinstance(label, str) for label in y):
            raise DataError("every picture needs the name of its class")
        if len(classes) < 2:
            raise UsageError("a classifier needs two classes or more", why=f"found {classes}")
        spec = BackboneSpec(self.backbone) if isinstance(self.backbone, str) else self.backbone
        self.backbone_ = build(spec)
        self.classes_ = np.array(classes)
        device = choose_device(self.device)
        self._network = Grafted(
            self.backbone_, find_head(self.head), outputs=len(classes), seed=self.seed
        ).to(device)
        settings = Settings(
            batch_size=self.batch_size, seed=self.seed, device=device, precision=self.precision
        )
        train = self._part(X, y)
        held = None if validation is None else self._part(validation.paths, validation.labels)
        phases = frozen() if self.phases is None else self.phases
        self.history_ = {
            "phases": [
                self._run(number, phase, train, held, settings)
                for number, phase in enumerate(phases)
            ]
        }
        return self

    def predict_proba(self, X: Sequence[Picture]) -> NDArray[np.float64]:
        """Return the probability of each class for each picture, (n, classes)."""
        check_is_fitted(self)
        device = choose_device(self.device)
        pictures = self._pictures(X)
        self._network.eval()
        rows = []
        with torch.inference_mode():
            for start in range(0, len(pictures), self.batch_size):
                samples = np.arange(start, min(start + self.batch_size, len(pictures)))
                logits = self._network(pictures.take(samples, 0).to(device))
                rows.append(logits.double().softmax(1).cpu().numpy())
        return np.concatenate(rows) if rows else np.empty((0, len(self.classes_)))

    def predict(self, X: Sequence[Picture]) -> NDArray[np.str_]:
        """Return the name of the most probable class of each picture, (n,)."""
        names: NDArray[np.str_] = self.classes_[self.predict_proba(X).argmax(1)]
        return names

    def _pictures(self, X: Sequence[Picture]) -> Pictures:
        size = self.backbone_.preprocessing.size
        return Pictures(X, self.backbone_.prepare, size=size, verbose=self.verbose)

    def _part(self, X: Sequence[Picture], y: Sequence[str]) -> Part:
        places = {name: index for index, name in enumerate(self.classes_)}
        unknown = sorted(set(y) - set(places))
        if unknown:
            raise DataError("unknown class", why=f"{unknown} are none of {list(places)}")
        codes = torch.tensor([places[label] for label in y])
        return Part(self._pictures(X), nn.functional.one_hot(codes, len(places)).float())

    def _run(
        self, number: int, phase: Phase, train: Part, validation: Part | None, settings: Settings
    ) -> dict[str, Any]:
        network = self._network
        trained = network.freeze(phase)
        before, start = network.frozen_checksum(), time.perf_counter()
        optimizer = build_optimizer(phase, parameter_groups(network, phase, trained))
        with progress_bar(
            f"Training, phase {number + 1}", phase.epochs, unit="epochs", visible=self.verbose
        ) as advance:
            state = run_phase(
                network,
                optimizer,
                phase,
                train,
                validation,
                loss=_cross_entropy,
                settings=settings,
                number=number,
                set_mode=network.set_mode,
                after_epoch=lambda _state: advance(1),
            )
        network.eval()
        whole = sum(p.numel() for p in network.parameters())
        moved = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
        return {
            "phase": copy.copy(vars(phase)),
            "share_of_stages": trained.stages,
            "share_of_parameters": moved / whole,
            "parameters": moved,
            "epochs": state.records,
            "best_epoch": None if state.best is None else state.best[1],
            "last_epoch": state.epoch,
            "frozen": {"before": before, "after": network.frozen_checksum()},
            "seconds": time.perf_counter() - start,
        }


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, targets)
