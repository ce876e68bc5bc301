"""The second learner: a trunk and a head that are trained through phases."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from regraft.backbones.backbone import Backbone, build
from regraft.backbones.loading import state_sha256
from regraft.backbones.resolving import WeightsFacts
from regraft.backbones.spec import BackboneSpec
from regraft.compute import choose_device
from regraft.data.dataset import Dataset
from regraft.data.images import Picture
from regraft.errors import DataError, UsageError
from regraft.progress import progress_bar
from regraft.training.batches import Pictures
from regraft.training.grafted import Grafted, build_optimizer, parameter_groups
from regraft.training.heads import Head, find_head
from regraft.training.loop import Part, Settings, run_phase
from regraft.training.phases import Phase, frozen


class NetworkClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A network whose head, and as much of its trunk as the phases say, is trained.

    Args:
        backbone: A name or a spec; ``weights=None`` there for training from nothing.
        head: A head or the name of one.
        phases: What is trained, phase by phase; by default a new head on the frozen trunk.
        batch_size: Pictures per step.
        seed: Everything random is drawn from it, but the random weights of a spec from its own.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        precision: ``"fp32"``, or ``"bf16"`` for automatic mixed precision.
        verbose: Whether to show progress on standard error.

    Attributes:
        classes_: The class names in the order of the columns of ``predict_proba``.
        backbone_: The network with its preprocessing; its weights are the trained ones.
        history_: One record per phase, each with one record per epoch.

    Example:
        >>> from regraft.training.phases import from_scratch
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
            UsageError: There is one class only, or an argument is out of range.
            ImageError: A picture cannot be read.
            RegraftError: The loss is no number any more (``TRAIN-NAN``).
        """
        phases = frozen() if self.phases is None else list(self.phases)
        classes = _class_names(X, y)
        self._check(phases, classes, validation)
        spec = BackboneSpec(self.backbone) if isinstance(self.backbone, str) else self.backbone
        backbone = build(spec)
        device = choose_device(self.device)
        network = Grafted(backbone, find_head(self.head), outputs=len(classes), seed=self.seed).to(
            device
        )
        settings = Settings(
            batch_size=self.batch_size, seed=self.seed, device=device, precision=self.precision
        )
        train = self._part(backbone, X, y, classes)
        held = (
            self._part(backbone, validation.paths, validation.labels, classes)
            if validation
            else None
        )
        records = [
            self._run(network, number, phase, train, held, settings)
            for number, phase in enumerate(phases)
        ]
        self.classes_ = np.array(classes)
        self._network = network.cpu().eval()
        self.backbone_ = _with_new_weights(backbone)
        self.history_ = {"phases": records}
        return self

    def predict_proba(self, X: Sequence[Picture]) -> NDArray[np.float64]:
        """Return the probability of each class for each picture, (n, classes)."""
        check_is_fitted(self)
        device = choose_device(self.device)
        network = self._network.to(device)
        pictures = self._pictures(self.backbone_, X)
        rows = []
        with torch.inference_mode():
            for start in range(0, len(pictures), self.batch_size):
                samples = np.arange(start, min(start + self.batch_size, len(pictures)))
                logits = network(pictures.take(samples, 0).to(device))
                rows.append(logits.float().cpu().double().softmax(1).numpy())
        return np.concatenate(rows) if rows else np.empty((0, len(self.classes_)))

    def predict(self, X: Sequence[Picture]) -> NDArray[np.str_]:
        """Return the name of the most probable class of each picture, (n,)."""
        best = self.predict_proba(X).argmax(1)
        names: NDArray[np.str_] = self.classes_[best]
        return names

    def _check(
        self, phases: Sequence[Phase], classes: Sequence[str], validation: Dataset | None
    ) -> None:
        if self.precision not in {"fp32", "bf16"}:
            raise UsageError("unknown precision", why=repr(self.precision), hint="fp32 or bf16")
        if validation is not None:
            unknown = sorted(set(validation.labels) - set(classes))
            if unknown:
                raise DataError(
                    "validation has classes that training has not",
                    why=f"{', '.join(unknown)}; training has {', '.join(classes)}",
                )
        needs = [p for p in phases if p.patience is not None or p.schedule == "plateau"]
        if needs and not validation:
            raise UsageError(
                "patience and the schedule plateau need validation pictures",
                hint="give fit(..., validation=...), or choose another schedule and no patience",
            )

    def _pictures(self, backbone: Backbone, X: Sequence[Picture]) -> Pictures:
        size = backbone.preprocessing.size
        return Pictures(X, backbone.prepare, size=size, verbose=self.verbose)

    def _part(
        self, backbone: Backbone, X: Sequence[Picture], y: Sequence[str], classes: Sequence[str]
    ) -> Part:
        places = {name: index for index, name in enumerate(classes)}
        codes = torch.tensor([places[label] for label in y])
        return Part(self._pictures(backbone, X), nn.functional.one_hot(codes, len(classes)).float())

    def _run(
        self,
        network: Grafted,
        number: int,
        phase: Phase,
        train: Part,
        validation: Part | None,
        settings: Settings,
    ) -> dict[str, Any]:
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
        moved = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
        return {
            "phase": phase.to_json(),
            "share_of_stages": trained.stages,
            "share_of_parameters": moved / network.size(),
            "parameters": moved,
            "epochs": state.records,
            "best_epoch": None if state.best is None else state.best[1],
            "last_epoch": state.epoch,
            "frozen": {"before": before, "after": network.frozen_checksum()},
            "seconds": time.perf_counter() - start,
        }


def _class_names(X: Sequence[Picture], y: Sequence[str]) -> list[str]:
    if len(y) != len(X):
        raise DataError("every picture needs a class", why=f"{len(X)} pictures, {len(y)} labels")
    wrong = [label for label in y if not isinstance(label, str)]
    if wrong:
        raise DataError(
            "classes are given by their names",
            why=f"found {wrong[0]!r:.100} of type {type(wrong[0]).__name__}",
            hint="give the name of each picture's class as a text",
        )
    classes = sorted({str(label) for label in y})
    if len(classes) < 2:
        raise UsageError("a classifier needs two classes or more", why=f"found {classes}")
    return classes


def _with_new_weights(backbone: Backbone) -> Backbone:
    """Return the backbone with the facts of the weights that it has now.

    Its fingerprint is what rows and compiled networks are kept under: with the old one, those of
    the weights before training would be taken for those after it.
    """
    facts = WeightsFacts(
        sha256=state_sha256(backbone.module),
        licence=backbone.weights.licence,
        source=f"trained further from {backbone.weights.source}",
    )
    return Backbone(
        backbone.spec,
        backbone.network,
        preprocessing=backbone.preprocessing,
        weights=facts,
        identifier=backbone.identifier,
        arguments=backbone.arguments,
        notes=backbone.notes,
    )


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, targets)
