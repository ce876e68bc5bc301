"""Weights fit exactly or are refused with what does not fit."""

import pytest
import torch

from regraft.backbones.network import misfit, state_sha256
from regraft.backbones.sources import build_network, find, load_state
from regraft.errors import BackboneError, WeightsError


def small():
    return build_network(find("simple_cnn"), {}).module


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)

    first, second, third = (
        build_network(find("simple_cnn"), {}, seed=seed).module for seed in (1, 1, 2)
    )

    assert state_sha256(first) == state_sha256(second) != state_sha256(third)
    assert torch.equal(torch.rand(3), expected)


def test_one_changed_number_changes_the_hash():
    module = small()
    before = state_sha256(module)

    module.head.bias.data[0] += 1

    assert state_sha256(module) != before


@pytest.mark.parametrize("name", ["simple_cnn", "squeezenet", "timm:test_resnet", "timm:test_vit"])
def test_an_empty_network_computes_the_same_once_its_weights_are_in(name, tmp_path):
    entry = find(name)
    drawn = build_network(entry, {}).module
    empty = build_network(entry, {}, empty=True)
    batch = torch.rand(1, 3, empty.size, empty.size)

    load_state(empty, drawn.state_dict(), path=tmp_path, entry=entry)

    with torch.inference_mode():
        assert torch.equal(empty.module(batch), drawn(batch))


def test_missing_unexpected_and_misshapen_tensors_are_named():
    own = {"a": torch.zeros(2), "b": torch.zeros(2, 3), "c": torch.zeros(())}

    found = misfit(own, {"b": torch.zeros(3, 3), "c": torch.zeros(1), "d": torch.zeros(1)})

    assert found == (
        "1 missing (a); 1 unexpected (d); "
        "2 of another shape (b is 3×3, expected 2×3, c is 1, expected one number)"
    )


def test_long_lists_are_cut():
    assert misfit({str(i): torch.zeros(1) for i in range(9)}, {}) == "9 missing (0, 1, 2, …)"


@pytest.mark.parametrize("other", ["squeezenet", "simple_cnn", "torchvision:alexnet"])
def test_the_error_names_the_network_that_the_file_fits(other, tmp_path):
    state = build_network(find(other), {}).module.state_dict()
    entry = find("mobilenet_v2")

    with pytest.raises(WeightsError) as caught:
        load_state(build_network(entry, {}), state, path=tmp_path / "net.safetensors", entry=entry)

    assert caught.value.code == "WEIGHTS-MISFIT"
    assert f"the file fits {other.removeprefix('torchvision:')}" in str(caught.value)
    assert "net.safetensors" in str(caught.value)


def test_a_file_that_fits_nothing_says_so(tmp_path):
    with pytest.raises(WeightsError, match="no network of the catalogue"):
        load_state(
            build_network(find("simple_cnn"), {}),
            {"x": torch.zeros(1)},
            path=tmp_path,
            entry=find("simple_cnn"),
        )


def test_auxiliary_heads_and_missing_counters_of_old_files_do_not_matter(tmp_path):
    network = build_network(find("simple_cnn"), {})
    state = {
        name: tensor
        for name, tensor in network.module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }

    given = {**state, "aux1.fc.bias": torch.zeros(1)}
    assert load_state(network, given, path=tmp_path, entry=find("simple_cnn")) == ()


def test_our_own_networks_refuse_unknown_arguments():
    with pytest.raises(BackboneError) as caught:
        build_network(find("simple_cnn"), {"width": 3})

    assert caught.value.code == "BACKBONE-ARGUMENT"
