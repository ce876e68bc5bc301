"""From 8-bit pictures to rows in one module, which every engine runs or converts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regraft.backbones.network import Apply
from regraft.backbones.spec import Preprocessing


class Normalise(nn.Module):
    """Turn 8-bit RGB pictures (n, size, size, 3) into a float32 batch (n, 3, size, size).

    Blended pictures may hold any float between 0 and 255.

    Args:
        preprocessing: Its scale, mean, standard deviation and channel order are used.

    Example:
        >>> Normalise(Preprocessing.tf(2))(torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)).max()
        tensor(1.)
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.reverse = preprocessing.channels == "BGR"
        self.scale = preprocessing.scale
        self.mean = nn.Buffer(torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the normalised batch."""
        batch = pictures.permute(0, 3, 1, 2).float()
        if self.reverse:
            batch = batch.flip(1)
        normalised: Tensor = (batch / self.scale - self.mean) / self.std
        return normalised


class Embedder(nn.Module):
    """From 8-bit pictures to rows: normalisation, trunk and pooling in one module.

    Args:
        module: The whole network; held here so that its weights move and convert with the embedder.
        preprocessing: The network's.
        rows: From a normalised batch to rows.
    """

    def __init__(self, module: nn.Module, preprocessing: Preprocessing, rows: Apply) -> None:
        super().__init__()
        self.module = module
        self.normalise = Normalise(preprocessing)
        self.rows = rows

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the rows (n, feature_dim) in float32 of pictures (n, size, size, 3) in uint8."""
        return self.rows(self.normalise(pictures)).float()
