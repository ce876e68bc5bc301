"""What a fitted learner computes, from views to probabilities and features, in torch alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.classifiers.rotation import Scaling
from regraft.classifiers.shallow_files import ShallowModel
from regraft.errors import ModelError
from regraft.training.network import TransferNetwork

Learner = FeatureClassifier | NetworkClassifier
TINY = float(np.finfo(np.float32).tiny)  # the least probability whose logarithm is taken


def as_module(learner: Learner) -> nn.Module:
    """Return what a fitted learner does: from views (n, size, size, 3) in 8 bits to two tensors.

    These are the probabilities (n, k) and the features (n, d) that they were made from.

    Raises:
        ModelError: Its classifier has no form in torch (``MODEL-UNSAVEABLE``).
    """
    if isinstance(learner, NetworkClassifier):
        return _Network(learner.network_, learner.temperature_).eval()
    model = learner.shallow_.model
    if model is None or model.record.kind not in _MODULES:
        kind = learner.shallow_.obstacle if model is None else "only linear classifiers and k-NN do"
        raise refused("a program of torch", kind)
    scaled = Scaled(learner.backbone_.embedder, learner.shallow_.scaling)
    classifier = _MODULES[model.record.kind](model)
    return _Shallow(scaled, classifier, learner.temperature_).eval()


def refused(form: str, why: str) -> ModelError:
    """Return the error of a model that has no such form, to be raised.

    Example:
        >>> refused("ONNX", "it is a forest").what
        'this model cannot be written as ONNX'
    """
    what, hint = f"this model cannot be written as {form}", "use the model as it is"
    text = " ".join(why.split())[:300]
    return ModelError(what, why=text, hint=hint, code="MODEL-UNSAVEABLE")


class _Network(nn.Module):
    """From views to probabilities, by trunk and head."""

    def __init__(self, network: TransferNetwork, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.network.map(self.network.normalise(views))
        logits = self.network.head(maps).float() / self.temperature
        features = self.network.pool(maps).float()
        if logits.shape[1] > 1:
            return logits.softmax(1), features
        second = logits.sigmoid()
        return torch.cat([1 - second, second], 1), features


class _Shallow(nn.Module):
    """From views to probabilities, by trunk and classifier."""

    def __init__(self, scaled: nn.Module, classifier: nn.Module, temperature: float) -> None:
        super().__init__()
        self.scaled, self.classifier, self.temperature = scaled, classifier, temperature

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        rows, features = self.scaled(views)
        shares: Tensor = self.classifier(rows)
        if self.temperature != 1.0:
            shares = (shares.clamp_min(TINY).log() / self.temperature).softmax(1)
        return shares.float(), features


class Scaled(nn.Module):
    """From views to scaled features (n, m), and to the features (n, d) themselves."""

    def __init__(self, embedder: nn.Module, scaling: Scaling) -> None:
        super().__init__()
        self.embedder = embedder
        self.names = tuple(scaling.arrays)
        for name, values in scaling.arrays.items():
            self.register_buffer(name, torch.from_numpy(np.array(values)))

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Return both."""
        features: Tensor = self.embedder(views)
        if "components" in self.names:
            return features @ self.components.T - self.offset, features  # type: ignore[operator]
        if "divisor" in self.names:
            return (features - self.mean) / self.divisor, features  # type: ignore[operator]
        return features, features


class _Linear(nn.Module):
    """From features to probabilities, as ``shallow_files`` computes them, in float64."""

    def __init__(self, model: ShallowModel) -> None:
        super().__init__()
        self.separate = model.record.link == "one_vs_rest"
        self.coefficients = nn.Buffer(_exact(model.arrays["coefficients"]))
        self.intercepts = nn.Buffer(_exact(model.arrays["intercepts"]))

    def forward(self, features: Tensor) -> Tensor:
        scores = features.double() @ self.coefficients.T + self.intercepts
        if not self.separate:
            return scores.softmax(1)
        shares = scores.sigmoid().clamp_min(np.finfo(np.float64).tiny)
        return shares / shares.sum(1, keepdim=True)


class _Neighbours(nn.Module):
    """From features to the votes of the nearest training images, in float64."""

    def __init__(self, model: ShallowModel) -> None:
        super().__init__()
        self.record = model.record
        rows = _exact(model.arrays["features"])
        classes = torch.from_numpy(model.arrays["classes"].astype(np.int64))
        self.rows = nn.Buffer(_unit(rows) if self.record.metric == "cosine" else rows)
        self.votes = nn.Buffer(nn.functional.one_hot(classes).double())

    def forward(self, features: Tensor) -> Tensor:
        exact = features.double()
        if self.record.metric == "cosine":
            distances = (1 - _unit(exact) @ self.rows.T).clamp_min(0)
        else:
            squares = (exact**2).sum(1, keepdim=True) + (self.rows**2).sum(1)
            distances = (squares - 2 * exact @ self.rows.T).clamp_min(0).sqrt()
        nearest, places = distances.topk(self.record.neighbours, dim=1, largest=False)
        weights = torch.ones_like(nearest)
        if self.record.weights == "distance":  # an equal image, where there is one, votes alone
            equal = (nearest == 0).double()
            weights = torch.where(equal.sum(1, keepdim=True) > 0, equal, 1 / nearest)
        shares = (weights[:, :, None] * self.votes[places]).sum(1)
        return shares / shares.sum(1, keepdim=True)


_MODULES: dict[str, Callable[[ShallowModel], nn.Module]] = {
    "linear": _Linear,
    "neighbours": _Neighbours,
}


def _exact(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64))


def _unit(rows: Tensor) -> Tensor:
    lengths = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(lengths > 0, lengths, torch.ones_like(lengths))
