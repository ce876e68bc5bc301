"""The losses against torch's own, where torch defines them; weights and balanced sampling."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    one_hot,
    softmax,
)

from regraft.errors import UsageError
from regraft.training.optim import balanced_order, class_weights, make_loss

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


def test_weighted_sigmoid_is_torch_s_with_the_weights_of_the_samples():
    logits, codes, _ = samples(classes=2)
    weights = torch.tensor([3.0, 0.5])

    found = make_loss("sigmoid", class_weights=weights)(logits[:, :1], one_hot(codes, 2).float())

    each = binary_cross_entropy_with_logits(logits[:, 0], codes.float(), reduction="none")
    own = weights[codes]
    assert torch.allclose(found, (own * each).sum() / own.sum())


def test_a_shared_target_counts_with_the_shared_weight():
    loss = make_loss(class_weights=torch.tensor([1.0, 3.0]))
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    targets = torch.tensor([[0.5, 0.5], [1.0, 0.0]])

    plain = [cross_entropy(logits[i : i + 1], targets[i : i + 1]) for i in range(2)]

    assert torch.allclose(loss(logits, targets), (2 * plain[0] + 1 * plain[1]) / 3)


@pytest.mark.parametrize(("output", "width"), [("softmax", 2), ("sigmoid", 1)])
@pytest.mark.parametrize("logit", [1e4, -1e4])
def test_extreme_logits_give_finite_losses_and_gradients(output, width, logit):
    logits = torch.full((2, width), 0.0)
    logits[:, -1] = logit
    logits.requires_grad_()

    value = make_loss(output, label_smoothing=0.1)(logits, torch.eye(2))
    value.backward()

    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    "arguments", [{"output": "linear"}, {"label_smoothing": 1.0}, {"label_smoothing": -0.1}]
)
def test_a_loss_that_does_not_exist_is_refused(arguments):
    with pytest.raises(UsageError):
        make_loss(**arguments)


def test_balanced_weights_let_every_class_count_the_same():
    labels = ["lily"] * 6 + ["poppy"] * 3 + ["rose"]

    weights = class_weights("balanced", labels, CLASSES)

    counts = torch.tensor([6.0, 3.0, 1.0])
    assert torch.allclose(weights * counts, torch.full((3,), 10 / 3))


def test_named_weights_stand_in_the_order_of_the_classes_and_are_1_where_not_named():
    weights = class_weights({"rose": 4, "lily": 0.5}, ["lily"], CLASSES)

    assert weights.tolist() == [0.5, 1.0, 4.0]
    assert class_weights(None, ["lily"], CLASSES) is None


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("even", "balanced"),
        ({"rosa": 2.0}, "did you mean 'rose'?"),
        ({"rose": 0.0}, "above 0"),
        ({"rose": float("nan")}, "above 0"),
        ({"rose": float("inf")}, "above 0"),
        ("balanced", "rose"),
    ],
)
def test_weights_that_cannot_be_are_refused(spec, said):
    with pytest.raises(UsageError) as refused:
        class_weights(spec, ["lily", "poppy"], CLASSES)

    assert said in str(refused.value)


@given(codes=st.lists(st.integers(0, 5), max_size=60), seed=st.integers(0, 99))
def test_a_balanced_order_has_as_many_samples_as_there_are_and_only_these(codes, seed):
    codes = np.array(codes, dtype=np.int64)

    order = balanced_order(codes, np.random.default_rng(seed))

    assert order.shape == codes.shape
    assert set(codes[order]) <= set(codes)
    assert np.array_equal(order, balanced_order(codes, np.random.default_rng(seed)))


def test_in_a_balanced_order_classes_and_the_samples_of_a_class_are_equally_likely():
    codes = np.array([2] * 6000 + [7] * 20 + [4] * 3980)
    np.random.default_rng(0).shuffle(codes)

    order = balanced_order(codes, np.random.default_rng(1))

    _, counts = np.unique(codes[order], return_counts=True)
    assert np.abs(counts - 10_000 / 3).max() < 200
    rare = np.bincount(order, minlength=len(codes))[codes == 7]
    assert rare.min() > 110  # 167 on average
    assert rare.max() < 225
