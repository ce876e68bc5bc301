"""Losses on logits and soft targets, and classes that count more than others."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regraft.errors import UsageError
from regraft.training.named_values import Range
from regraft.training.state import Loss

Output = Literal["softmax", "sigmoid"]
ClassWeight = Literal["balanced"] | Mapping[str, float] | None


def make_loss(
    output: Output = "softmax",
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Loss:
    """Return the cross-entropy of logits and soft targets, averaged over the batch.

    A sample counts with the weight of its class, or with the mean of the weights where its target
    is shared between classes; the average is divided by the sum of these weights, as in torch.

    Args:
        output: ``"softmax"`` for logits (n, classes); ``"sigmoid"`` for two classes and logits
            (n, 1), that of the second class: the binary cross-entropy.
        label_smoothing: Share of each target that is spread evenly over all classes (Szegedy et
            al., 2016), 0 to below 1.
        class_weights: One weight per class, (classes,).

    Returns:
        A function of logits and soft targets (n, classes), rows summing to 1, to a scalar.

    Raises:
        UsageError: The output is unknown, or the smoothing is out of range.

    Example:
        >>> loss = make_loss("sigmoid")
        >>> loss(torch.tensor([[0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(0.6931)
    """
    if output not in {"softmax", "sigmoid"}:
        raise UsageError(f"unknown output {output!r}", hint="softmax or sigmoid")
    smoothing = Range(0, 1, "a share", below=True)
    if label_smoothing not in smoothing:
        raise UsageError(
            "label smoothing is out of range", why=repr(label_smoothing), hint=str(smoothing)
        )

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        if output == "sigmoid":
            # The sigmoid of z is the softmax of (0, z), and log_softmax loses no digits either.
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        smooth = targets * (1 - label_smoothing) + label_smoothing / targets.shape[1]
        each = -(smooth * nn.functional.log_softmax(logits, dim=1)).sum(1)
        if class_weights is None:
            return each.mean()
        weights = targets @ class_weights.to(targets)
        return (weights * each).sum() / weights.sum()

    return loss


def class_weights(
    spec: ClassWeight, labels: Sequence[str], classes: Sequence[str]
) -> Tensor | None:
    """Return the weight of each class in the loss.

    Args:
        spec: ``"balanced"`` for n / (k · n_c), so that each of the k classes counts the same
            whatever its number of pictures n_c; weights by class name, 1 for those not named; None.
        labels: The class of each training picture.
        classes: All classes, in the order of the logits.

    Returns:
        Weights (classes,) in float32, or None.

    Raises:
        UsageError: A class is unknown or has no picture, or a weight is not above 0.

    Example:
        >>> class_weights("balanced", ["a", "a", "a", "b"], ["a", "b"]).tolist()
        [0.6666666865348816, 2.0]
    """
    if spec is None:
        return None
    if isinstance(spec, str):
        return _balanced(spec, labels, classes)
    allowed = Range(0, math.inf, above=True, below=True)
    for name, weight in spec.items():
        if name not in classes:
            near = difflib.get_close_matches(str(name), classes, n=1)
            raise UsageError(
                f"class weights: unknown class {name!r}",
                why=f"classes: {', '.join(classes)}",
                hint=f"did you mean {near[0]!r}?" if near else "",
            )
        if weight not in allowed:
            raise UsageError(f"the weight of class {name!r} is not above 0", why=repr(weight))
    return torch.tensor([float(spec.get(name, 1.0)) for name in classes])


def balanced_order(codes: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Return as many samples as there are, drawn with replacement, every class equally likely.

    Args:
        codes: The class of each sample, as a number, (n,).
        random: Where the samples are drawn from.

    Returns:
        Indices of samples, (n,).

    Example:
        >>> codes = np.array([0] * 90 + [1] * 10)
        >>> drawn = codes[balanced_order(codes, np.random.default_rng(0))]
        >>> 30 < (drawn == 1).sum() < 70
        np.True_
    """
    by_class = np.argsort(codes, kind="stable")
    _, starts, counts = np.unique(codes[by_class], return_index=True, return_counts=True)
    chosen = random.integers(len(counts), size=len(codes)) if len(codes) else codes
    order: NDArray[np.int64] = by_class[starts[chosen] + random.integers(counts[chosen])]
    return order


def _balanced(spec: str, labels: Sequence[str], classes: Sequence[str]) -> Tensor:
    if spec != "balanced":
        raise UsageError(
            f"unknown class weights {spec!r}", hint="'balanced', or a weight for each class name"
        )
    counts = Counter(labels)
    empty = [name for name in classes if not counts[name]]
    if empty:
        raise UsageError("a class without pictures has no balanced weight", why=", ".join(empty))
    return torch.tensor([len(labels) / (len(classes) * counts[name]) for name in classes])
