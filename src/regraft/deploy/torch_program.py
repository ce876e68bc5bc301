"""A fitted model as a program of torch, which needs neither timm nor Regraft."""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regraft.backbones.backbone import Backbone
from regraft.backbones.views import prepare
from regraft.data.images import ImageLike, open_image
from regraft.deploy.export import compare
from regraft.deploy.modules import Learner, as_module, refused
from regraft.deploy.predictor import Agreement
from regraft.files import write_bytes
from regraft.settings import to_json

FACTS = "regraft.json"  # the name under which the file holds labels and preprocessing
_AT_ONCE = 16


def write_program(
    learner: Learner,
    file: str | os.PathLike[str],
    images: Sequence[ImageLike],
    *,
    provenance: Mapping[str, Any] | None = None,
) -> Agreement:
    """Write a fitted learner as what ``torch.export`` makes of it, a ``.pt2`` file.

    It takes views of any number, (n, size, size, 3) in RGB of 8 bits, resized and cropped as the
    preprocessing says, and gives probabilities (n, k). The file ``regraft.json`` in it holds
    ``labels``, ``preprocessing`` and where the model comes from:
    ``torch.export.load(file, extra_files={"regraft.json": ""})``.

    Args:
        learner: A fitted learner, with a head or with a linear classifier or k-NN.
        file: The file to write.
        images: On which both must agree; a few are enough.
        provenance: Where the model comes from.

    Raises:
        ModelError: There is no such program of it, or it answers differently
            (``MODEL-UNSAVEABLE``).
    """
    backbone, facts = learner.backbone_, {"labels": list(map(str, learner.classes_))}
    known = {**facts, "preprocessing": to_json(backbone.preprocessing), **(provenance or {})}
    content = _exported(_Probabilities(as_module(learner)), backbone, json.dumps(known))

    def predict(shown: Sequence[ImageLike]) -> NDArray[np.float64]:
        program = torch.export.load(io.BytesIO(content)).module()
        rows = [np.empty((0, len(learner.classes_)))]
        for start in range(0, len(shown), _AT_ONCE):
            opened = [open_image(i, learner.compute.decoding) for i in shown[start:][:_AT_ONCE]]
            views = np.stack([prepare(image, backbone.preprocessing) for image in opened])
            rows.append(program(torch.from_numpy(views)).numpy(force=True))
        return np.concatenate(rows)

    agreement = compare(learner, predict, images)
    write_bytes(Path(file), content)
    return agreement


def _exported(module: nn.Module, backbone: Backbone, facts: str) -> bytes:
    device = next(backbone.module.parameters()).device
    size, content = backbone.preprocessing.size, io.BytesIO()
    views = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    batch = torch.export.Dim("n", min=1)
    with _without_top(backbone), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch itself will change
        try:
            program = torch.export.export(
                module.cpu(), (views,), dynamic_shapes=({0: batch},), strict=False
            )
            torch.export.save(program, content, extra_files={FACTS: facts})
        except Exception as error:
            raise refused("a program of torch", f"{type(error).__name__}: {error}") from error
        finally:
            module.to(device)
    return content.getvalue()


class _Probabilities(nn.Module):
    """A module of two outputs without the second, the features."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, views: Tensor) -> Tensor:
        found: Tensor = self.module(views)[0]
        return found


@contextlib.contextmanager
def _without_top(backbone: Backbone) -> Iterator[None]:
    """Take the network's former head out for a while: its weights would go with the program."""
    before = {name: backbone.module.get_submodule(name) for name in backbone.top}
    for name in before:
        backbone.module.set_submodule(name, nn.Identity())
    try:
        yield
    finally:
        for name, part in before.items():
            backbone.module.set_submodule(name, part)
