"""A network's rows for pictures: what shapes them becomes the key that they are cached under."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from regraft.backbones.spec import EngineName
from regraft.data.images import DECODER_VERSION, Decoding, Picture
from regraft.features.cache import FeatureCache
from regraft.features.shards import Precision
from regraft.features.stream import Embedded, embed
from regraft.system import choose_device

if TYPE_CHECKING:
    from regraft.backbones.backbone import Backbone
    from regraft.backbones.engines import Engine


def embed_with(
    backbone: Backbone,
    pictures: Sequence[Picture],
    *,
    cache: FeatureCache,
    width: int,
    pooling: str,
    engine: EngineName,
    precision: str,
    build_engine: Callable[[], Engine],
    device: str = "auto",
    stored: Precision = "float32",
    batch_size: int = 32,
    decoding: Decoding = Decoding(),
    verbose: bool = False,
) -> Embedded:
    """Embed pictures with a network; each content passes it at most once.

    Args:
        backbone: The network; its preprocessing is used.
        pictures: Paths, Pillow images or H×W×3 uint8 arrays.
        cache: Where rows are looked for and added.
        width: Numbers per row.
        pooling: What becomes a row, as part of the key.
        engine: ``"auto"``, ``"torch"`` or ``"openvino"``.
        precision: ``"fp32"`` or ``"bf16"``.
        build_engine: Called if a picture is not cached.
        device: Where the engine computes if it is torch; OpenVINO takes the processor.
        stored: How a number is stored.
        batch_size: Pictures per pass.
        decoding: How files become pixels.
        verbose: Whether to show progress.

    Raises:
        ImageError: A picture cannot be used; what was computed before stays cached.
        RegraftError: The rows cannot be stored.
    """
    from regraft.backbones.engines import expected_engine

    def attempt(name: str) -> Embedded:
        about = ingredients(
            backbone,
            pooling=pooling,
            engine=name,
            precision=precision,
            decoding=decoding,
            device=choose_device(device) if name == "torch" else "cpu",
        )

        def build() -> Engine:
            built = build_engine()
            if built.name != name:
                raise _AnotherEngineError(built.name)
            return built

        return embed(
            pictures,
            cache.rows(about, width, stored),
            prepare=backbone.prepare,
            build_engine=build,
            about=_described(backbone, about),
            batch_size=batch_size,
            decoding=decoding,
            verbose=verbose,
        )

    try:  # a wrong guess costs time only: the engine that is built has the last word
        return attempt(expected_engine(engine))
    except _AnotherEngineError as other:
        return attempt(other.name)


def ingredients(
    backbone: Backbone,
    *,
    pooling: str,
    engine: str,
    precision: str,
    decoding: Decoding,
    device: str,
    view: Any = None,
) -> dict[str, Any]:
    """Return everything that shapes the numbers of a row, apart from the picture.

    Args:
        backbone: The network.
        pooling: What becomes a row.
        engine: ``"torch"`` or ``"openvino"``.
        precision: ``"fp32"`` or ``"bf16"``.
        decoding: How files become pixels.
        device: Where the engine computes.
        view: How pictures were changed before they entered the network, as JSON has it.
    """
    kind = device.partition(":")[0]
    # Rows of processors keep the key that they had before other devices had one.
    other = {} if kind == "cpu" else {"device": kind}
    return {
        **other,
        "backbone": backbone.fingerprint_of(pooling),
        "name": backbone.spec.name,
        "pooling": pooling,
        "preprocessing": backbone.preprocessing.to_json(),
        "engine": engine,
        "precision": precision,
        "view": view,
        "decoding": decoding.to_json(),
        "decoder": DECODER_VERSION,
    }


class _AnotherEngineError(Exception):
    """The engine that could be built is not the one whose rows were looked for."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _described(backbone: Backbone, about: Mapping[str, Any]) -> dict[str, str]:
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in about.items()}
    return {**texts, "backbone": backbone.spec.name, "fingerprint": backbone.fingerprint}
