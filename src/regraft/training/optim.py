"""What a phase is trained with: optimizer, learning rates, and the loss on soft targets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from regraft.errors import UsageError
from regraft.settings import did_you_mean
from regraft.training.phases import OPTIMIZERS, AboveZero, Phase

Output = Literal["softmax", "sigmoid"]
ClassWeight = Literal["balanced"] | Mapping[str, AboveZero] | None
Loss = Callable[[Tensor, Tensor], Tensor]


def build_optimizer(phase: Phase, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer that a phase names, over the parameters that it trains."""
    name, fields, constants = OPTIMIZERS[phase.optimizer]
    chosen = {field: getattr(phase, field) for field in ("lr", "weight_decay", *fields)}
    made: torch.optim.Optimizer = getattr(torch.optim, name)(parameters, **chosen, **constants)
    return made


def rate_factor(phase: Phase, step: int, total: int) -> float:
    """Return what the learning rate is multiplied with at a step of so many, 0 to 1.

    Example:
        >>> round(rate_factor(Phase(schedule="cosine"), 50, 100), 3)
        0.5
    """
    if phase.schedule == "constant":
        return 1.0
    rise = phase.warmup * total
    if step < rise:
        return (step + 1) / (rise + 1)
    done = (step - rise) / max(total - rise, 1)
    return 0.5 * (1 + math.cos(math.pi * done))


def make_loss(
    output: Output = "softmax",
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    focal: float | None = None,
) -> Loss:
    """Return the cross-entropy of logits and soft targets, averaged over the batch.

    A sample counts with the weight of its class, or with the mean of the weights where its target
    is shared between classes; the average is divided by the sum of these weights, as in torch.

    Args:
        output: ``"softmax"`` for logits (n, classes); ``"sigmoid"`` for two classes and logits
            (n, 1), that of the second class: the binary cross-entropy.
        label_smoothing: Share of each target that is spread evenly over all classes.
        class_weights: One weight per class, (classes,).
        focal: Gamma of the focal loss (Lin, Goyal, Girshick, He and Dollár, Focal Loss for Dense
            Object Detection, ICCV 2017): each class counts (1 - p) ** gamma, p its probability, so
            that samples which are learned already count less. None for the cross-entropy itself.

    Example:
        >>> loss = make_loss("sigmoid")
        >>> loss(torch.tensor([[0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(0.6931)
    """

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        if output == "sigmoid":
            # The sigmoid of z is the softmax of (0, z), and log_softmax loses no digits either.
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        smooth = targets * (1 - label_smoothing) + label_smoothing / targets.shape[1]
        logs = nn.functional.log_softmax(logits, dim=1)
        if focal is not None:
            # The slope of a root at 0 is infinite, so that gammas below 1 need a least distance.
            smooth = smooth * (-torch.expm1(logs)).clamp_min(1e-8) ** focal
        each = -(smooth * logs).sum(1)
        if class_weights is None:
            return each.mean()
        weights = targets @ class_weights.to(targets)
        return (weights * each).sum() / weights.sum()

    return loss


def class_weights(
    spec: ClassWeight, labels: Sequence[str], classes: Sequence[str]
) -> Tensor | None:
    """Return the weight of each class in the loss, (classes,), or None.

    ``"balanced"`` weighs n / (k · n_c), so that each of the k classes counts the same whatever its
    number of images n_c; weights by class name are 1 for those not named.

    Raises:
        UsageError: A class is unknown.

    Example:
        >>> class_weights("balanced", ["a", "a", "a", "b"], ["a", "b"]).tolist()
        [0.6666666865348816, 2.0]
    """
    if spec is None:
        return None
    if isinstance(spec, str):
        counts = Counter(labels)
        return torch.tensor([len(labels) / (len(classes) * counts[name]) for name in classes])
    for name in spec:
        if name not in classes:
            why, hint = f"classes: {', '.join(classes)}", did_you_mean(name, classes)
            raise UsageError(f"class weights: unknown class {name!r}", why=why, hint=hint)
    return torch.tensor([float(spec.get(name, 1.0)) for name in classes])


def answers(logits: Tensor) -> Tensor:
    """Return the index of the class that logits stand for; a single logit is a sigmoid output."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)


def probabilities(logits: Tensor) -> Tensor:
    """Return the probability of each class, (n, classes), float64; one logit gives two classes.

    They stand in the memory of the processor, without a gradient.
    """
    exact = logits.detach().cpu().double()  # the graphics processors of Apple have no float64
    if exact.shape[1] > 1:
        return exact.softmax(1)
    second = exact.sigmoid()
    return torch.cat([1 - second, second], 1)
