"""Labelled pictures of one part, decoded no sooner and no more often than they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from regraft.backbones.backbone import Backbone
from regraft.data.images import Decoding, Picture, open_image, read_picture
from regraft.features.embed import as_list
from regraft.files import sha256_json
from regraft.training.batches import Pictures


class Source:
    """The pictures of one part and what each of them shows.

    Args:
        pictures: Paths, Pillow images or H×W×3 arrays of 8 bits.
        labels: The name of the class of each.
        classes: All classes, in the order of the columns of the targets.
        backbone: Its preprocessing is used.
        decoding: How files become pixels.
        verbose: Whether to show progress.

    Attributes:
        codes: The column of each picture's class, (n,).
        targets: One row per picture with a one in that column, (n, classes).
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        labels: Sequence[str],
        classes: Sequence[str],
        *,
        backbone: Backbone,
        decoding: Decoding = Decoding(),
        verbose: bool = False,
    ) -> None:
        places = {name: index for index, name in enumerate(classes)}
        self.pictures = as_list(pictures)
        self.labels = [str(label) for label in labels]
        self.codes = np.array([places[label] for label in self.labels], dtype=np.int64)
        self.targets: Tensor = torch.eye(len(classes))[self.codes]
        self._backbone = backbone
        self._decoding = decoding
        self._verbose = verbose

    def __len__(self) -> int:
        return len(self.pictures)

    @cached_property
    def pixels(self) -> Pictures:
        """All pictures as they enter the network, decoded at the first use."""
        return Pictures(
            self.pictures,
            self._backbone.prepare,
            size=self._backbone.preprocessing.size,
            decoding=self._decoding,
            verbose=self._verbose,
        )

    def few(self, count: int = 8) -> tuple[Tensor, Tensor]:
        """Return some pictures, (count, size, size, 3) in 8 bits, and their targets.

        They are spread over the part, which often stands sorted by class.
        """
        chosen = np.unique(np.linspace(0, len(self) - 1, count).astype(np.int64))
        prepared = [
            self._backbone.prepare(open_image(self.pictures[i], self._decoding)) for i in chosen
        ]
        return torch.from_numpy(np.stack(prepared)), self.targets[chosen]

    def fingerprint(self) -> str:
        """Return a hash of the content and the label of every picture, in their order."""
        contents = [
            read_picture(picture, limits=self._decoding.limits).sha256 for picture in self.pictures
        ]
        return sha256_json([contents, self.labels])
