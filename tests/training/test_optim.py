"""Losses against torch's own, where torch defines them; class weights; how the rate runs."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot, softmax
from torchvision.ops import sigmoid_focal_loss

from regraft.errors import UsageError
from regraft.training.optim import (
    answers,
    build_optimizer,
    class_weights,
    make_loss,
    probabilities,
    rate_factor,
)
from regraft.training.phases import OPTIMIZERS, Phase

CLASSES = ["lily", "poppy", "rose"]


def samples(n=20, classes=3, seed=0):
    """Return logits, class numbers and soft targets."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=random) * 4
    codes = torch.randint(classes, (n,), generator=random)
    return logits, codes, softmax(torch.randn(n, classes, generator=random), dim=1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_softmax_is_torch_s_cross_entropy_of_soft_targets(smoothing):
    logits, _, soft = samples()

    found = make_loss("softmax", label_smoothing=smoothing)(logits, soft)

    assert torch.allclose(found, cross_entropy(logits, soft, label_smoothing=smoothing))


def test_weighted_softmax_is_torch_s_weighted_mean_for_certain_targets():
    logits, codes, _ = samples()
    weights = torch.tensor([0.2, 1.0, 5.0])

    found = make_loss("softmax", class_weights=weights)(logits, one_hot(codes, 3).float())

    assert torch.allclose(found, cross_entropy(logits, codes, weight=weights))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sigmoid_is_torch_s_binary_cross_entropy_smoothed_towards_a_half(smoothing):
    logits, _, soft = samples(classes=2)
    logits = logits[:, :1]

    found = make_loss("sigmoid", label_smoothing=smoothing)(logits, soft)

    expected = soft[:, 1:] * (1 - smoothing) + 0.5 * smoothing
    assert torch.allclose(found, binary_cross_entropy_with_logits(logits, expected))


def test_a_shared_target_counts_with_the_shared_weight():
    loss = make_loss(class_weights=torch.tensor([1.0, 3.0]))
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    targets = torch.tensor([[0.5, 0.5], [1.0, 0.0]])

    plain = [cross_entropy(logits[i : i + 1], targets[i : i + 1]) for i in range(2)]

    assert torch.allclose(loss(logits, targets), (2 * plain[0] + 1 * plain[1]) / 3)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_focal_loss_is_the_published_one(gamma):
    """Torchvision has it for sigmoids, where alpha weighs the second class against the first."""
    logits, codes, _ = samples(classes=2)
    targets = one_hot(codes, 2).float()

    found = make_loss("sigmoid", focal=gamma)(logits[:, :1], targets)

    theirs = sigmoid_focal_loss(logits[:, :1], targets[:, 1:], alpha=-1, gamma=gamma)
    assert torch.allclose(found, theirs.mean(), rtol=1e-5)


def test_the_focal_loss_of_many_classes_counts_what_is_learned_less():
    logits, codes, _ = samples()
    targets, right = one_hot(codes, 3).float(), softmax(logits, 1)[range(20), codes]
    weights = torch.tensor([0.2, 1.0, 5.0])

    found = make_loss(focal=2.0, class_weights=weights)(logits, targets)

    own = weights[codes]
    assert torch.allclose(found, -(own * (1 - right) ** 2 * right.log()).sum() / own.sum())
    assert torch.allclose(make_loss(focal=0.0)(logits, targets), cross_entropy(logits, targets))


@pytest.mark.parametrize(("output", "width"), [("softmax", 2), ("sigmoid", 1)])
@pytest.mark.parametrize("logit", [1e4, -1e4])
@pytest.mark.parametrize("focal", [None, 0.5, 2.0])
def test_extreme_logits_give_finite_losses_and_gradients(output, width, logit, focal):
    logits = torch.full((2, width), 0.0)
    logits[:, -1] = logit
    logits.requires_grad_()

    value = make_loss(output, label_smoothing=0.1, focal=focal)(logits, torch.eye(2))
    value.backward()

    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


def test_named_weights_stand_in_the_order_of_the_classes_and_are_1_where_not_named():
    weights = class_weights({"rose": 4, "lily": 0.5}, ["lily"], CLASSES)

    assert weights.tolist() == [0.5, 1.0, 4.0]
    counts = torch.tensor([6.0, 3.0, 1.0])  # balanced ones let every class count the same
    labels = ["lily"] * 6 + ["poppy"] * 3 + ["rose"]
    balanced = class_weights("balanced", labels, CLASSES)
    assert torch.allclose(balanced * counts, torch.full((3,), 10 / 3))
    with pytest.raises(UsageError, match="did you mean 'rose'"):
        class_weights({"rosa": 2.0}, ["lily", "poppy"], CLASSES)
    assert class_weights(None, ["lily"], CLASSES) is None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_gets_what_its_phase_says(name):
    phase = Phase(optimizer=name, lr=0.02, weight_decay=0.03, momentum=0.4, betas=(0.5, 0.6))

    optimizer = build_optimizer(phase, [nn.Parameter(torch.zeros(1))])

    group = optimizer.param_groups[0]
    assert type(optimizer).__name__.lower() == name
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.03)
    assert group.get("momentum", 0.4) == 0.4
    assert group.get("betas", (0.5, 0.6)) == (0.5, 0.6)
    assert "momentum" in group or "betas" in group
    assert group.get("alpha", 0.9) == 0.9


def test_one_logit_stands_for_two_classes():
    logits = torch.tensor([[-1.0], [0.0], [3.0]])

    found = probabilities(logits)

    assert torch.allclose(found.sum(1), torch.ones(3, dtype=torch.float64))
    assert torch.equal(found.argmax(1), answers(logits))
    assert found[2, 1] == pytest.approx(0.952574, abs=1e-6)


@given(st.floats(0, 0.5), st.integers(100, 5000))
def test_a_cosine_ends_near_zero_and_only_falls_after_the_warmup(warmup, total):
    phase = Phase(schedule="cosine", warmup=warmup)
    factors = [rate_factor(phase, step, total) for step in range(total)]
    peak = factors.index(max(factors))

    assert factors[-1] < 0.01
    assert warmup * total - 1 <= peak <= warmup * total + 1
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    rise = factors[: int(warmup * total)]
    assert all(before < after for before, after in pairwise(rise))
    assert not rise or 0 < rise[0] < 2 / len(rise)
