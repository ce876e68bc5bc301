"""The network of regraft_mini: its size, its maps and its order of stages."""

import pytest
import torch

from regraft.backbones.mini import FEATURE_DIM, RegraftMini


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return RegraftMini().eval()


def test_it_fits_into_six_megabytes_of_float16(network):
    numbers = sum(value.numel() for value in network.state_dict().values())

    assert 2 * numbers < 5_990_000


@pytest.mark.parametrize(("size", "places"), [(64, 2), (65, 3), (96, 3), (128, 4), (224, 7)])
def test_the_maps_are_a_thirty_second_of_the_picture(network, size, places):
    with torch.inference_mode():
        maps = network.forward_features(torch.zeros(2, 3, size, size))

    assert maps.shape == (2, FEATURE_DIM, places, places)


def test_the_children_stand_in_depth_order(network):
    children = [name for name, _ in network.named_children()]

    assert children == ["stem", "stage1", "stage2", "stage3", "head"]


def test_the_features_are_the_mean_of_the_maps(network):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    with torch.inference_mode():
        features = network(images)
        maps = network.forward_features(images)

    torch.testing.assert_close(features, maps.mean((2, 3)))


def test_the_features_hold_three_depths(network):
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))

    with torch.inference_mode():
        middle = network.stage2(network.stage1(network.stem(images)))
        late = network.stage3(middle)
        last = torch.nn.Sequential(*network.head)(late[:, :256])
        features = network(images)

    depths = [maps.mean((2, 3)) for maps in (last, late[:, :256], middle)]
    torch.testing.assert_close(features, torch.cat(depths, dim=1))


def test_every_parameter_learns():
    network = RegraftMini()

    network(torch.randn(2, 3, 64, 64)).sum().backward()

    assert all(parameter.grad is not None for parameter in network.parameters())
