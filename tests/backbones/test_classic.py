"""GoogLeNet as published in 2014."""

import torch

from regraft.backbones.classic import BvlcGoogLeNet, Inception


def test_the_feature_maps_have_the_published_sizes():
    net = BvlcGoogLeNet().eval()
    shapes = {}
    for name, child in net.named_children():
        child.register_forward_hook(
            lambda _module, _inputs, output, name=name: shapes.update(
                {name: tuple(output.shape[1:])}
            )
        )

    net(torch.zeros(1, 3, 224, 224))

    assert shapes["pool1"] == (64, 56, 56)
    assert shapes["i3b"] == (480, 28, 28)
    assert shapes["i4e"] == (832, 14, 14)
    assert shapes["i5b"] == (1024, 7, 7)


def test_the_names_are_those_of_the_published_file():
    names = set(BvlcGoogLeNet().state_dict())

    assert len(names) == 116
    assert {"conv2r.weight", "i3a.pp.bias", "i5b.r5.weight", "fc.bias"} <= names


def test_an_inception_module_keeps_its_paths_in_order():
    module = Inception(2, (1, 1, 2, 1, 3, 4))
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    module.c1.bias.data.fill_(1)
    module.pp.bias.data.fill_(4)

    assert module(torch.zeros(1, 2, 1, 1)).flatten().tolist() == [1, 0, 0, 0, 0, 0, 4, 4, 4, 4]
