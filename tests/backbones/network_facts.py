"""Write what is computed from the networks of the catalogue into ``networks.json``.

python tests/backbones/network_facts.py
"""

import json
from importlib.resources import files

import torch
from torch.utils.flop_counter import FlopCounterMode

from regraft.backbones.catalog import list_backbones
from regraft.backbones.sources import SOURCES, usual_preprocessing


def facts_of(entry):
    """Return parameters, multiply-adds, input size and feature width; no weights are allocated."""
    with torch.device("meta"):
        network = SOURCES[entry.source].build(entry.identifier, dict(entry.arguments))
        network.module.eval().requires_grad_(False)
        size = usual_preprocessing(entry, network).size
        blank = torch.zeros(1, 3, size, size)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.module(blank)
        with torch.no_grad():
            width = network.pooled(network.last_map(blank)).shape[1]
    parameters = sum(value.numel() for value in network.module.parameters())
    return [parameters, counter.get_total_flops() // 2, size, width]


if __name__ == "__main__":
    table = {f"{e.source}:{e.identifier}": facts_of(e) for e in list_backbones() if e.group}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in table.items())
    (files("regraft.backbones") / "networks.json").write_text(f"{{\n{lines}\n}}\n")
