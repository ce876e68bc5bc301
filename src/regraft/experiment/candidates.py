"""Which networks can be compared at once: those whose weights are on this machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regraft.backbones.catalog import GROUPS, Entry, list_backbones
from regraft.backbones.published import in_group
from regraft.backbones.sources import find, locate
from regraft.backbones.spec import BackboneSpec
from regraft.errors import RegraftError

NOT_HERE = "the weights are not on this machine; `regraft weights fetch NAME` brings them"
NO_WEIGHTS = "there are no trained weights to fetch"


@dataclass(frozen=True)
class Candidate:
    """A network whose weights are here.

    Attributes:
        spec: What is built.
        bytes: The size of its file of weights; None for random weights and networks of your own.
    """

    spec: BackboneSpec
    bytes: int | None

    @property
    def name(self) -> str:
        """The name of the network."""
        return self.spec.name


@dataclass(frozen=True)
class LeftOut:
    """What was not measured, and why.

    Attributes:
        backbone: The name of the network.
        why: The reason, without a full stop.
        preprocessing: Which wrong preprocessing it would have had; None where it is the network
            itself that was left out.

    Example:
        >>> LeftOut("vgg16", NO_WEIGHTS).to_json()["backbone"]
        'vgg16'
    """

    backbone: str
    why: str
    preprocessing: str | None = None

    def to_json(self) -> dict[str, str]:
        """Return what stands here; the preprocessing only where there is one."""
        more = {} if self.preprocessing is None else {"preprocessing": self.preprocessing}
        return {"backbone": self.backbone, "why": self.why, **more}

    def __str__(self) -> str:
        wrong = "" if self.preprocessing is None else f" ({self.preprocessing})"
        return f"{self.backbone}{wrong}"


def find_candidates(
    named: Sequence[str | BackboneSpec] | None = None,
) -> tuple[list[Candidate], list[LeftOut]]:
    """Return the networks that can be used without a download, smallest file first, and the others.

    Weights in the cache of the Hugging Face hub or of torch hub are on this machine, too; they are
    taken into the store. Nothing is fetched.

    Args:
        named: Names, groups of the catalogue or specs; None for the whole catalogue, registered
            networks and all imported weights.

    Raises:
        BackboneError: A name is unknown.
        ModelError: The weights of a named network are damaged.

    Example:
        >>> here, others = find_candidates(["efficientnet_lite0", "vgg16"])
        >>> [candidate.name for candidate in here], others[0].why == NOT_HERE
        (['efficientnet_lite0'], True)
    """
    if named is None:
        names = dict.fromkeys(entry.name for entry in list_backbones())
        specs = [BackboneSpec(name) for name in names]
    else:
        specs = list(dict.fromkeys(spec for one in named for spec in _named(one)))
    here: list[Candidate] = []
    others: list[LeftOut] = []
    for spec in specs:
        try:
            found = _candidate(spec)
        except RegraftError as error:
            if named is not None:
                raise
            found = LeftOut(spec.name, str(error))  # damaged: the others can be compared
        if isinstance(found, Candidate):
            here.append(found)
        else:
            others.append(found)
    return sorted(here, key=lambda candidate: candidate.bytes or 0), others


def by_reason(left_out: Sequence[LeftOut]) -> dict[str, list[str]]:
    """Return the names that share a reason, by reason.

    Example:
        >>> by_reason([LeftOut("vgg16", "too slow"), LeftOut("vgg19", "too slow")])
        {'too slow': ['vgg16', 'vgg19']}
    """
    names: defaultdict[str, list[str]] = defaultdict(list)
    for one in left_out:
        names[one.why].append(str(one))
    return dict(names)


def _named(one: str | BackboneSpec) -> list[BackboneSpec]:
    if isinstance(one, BackboneSpec):
        return [one]
    names = [entry.name for entry in in_group(one)] if one in GROUPS else [one]
    return [BackboneSpec(name) for name in names]


def _candidate(spec: BackboneSpec) -> Candidate | LeftOut:
    entry = find(spec.name)
    if entry.trained or spec.weights is None:
        return Candidate(spec, None)
    if spec.weights != "default":
        file = Path(spec.weights)
        return Candidate(spec, file.stat().st_size if file.is_file() else None)
    path = _stored(entry)
    if path is None:
        return LeftOut(spec.name, NOT_HERE if entry.weights else NO_WEIGHTS)
    return Candidate(spec, path.stat().st_size)


def _stored(entry: Entry) -> Path | None:
    try:
        return locate(entry, download=False, verbose=False).path
    except RegraftError as error:
        if error.code == "WEIGHTS-MISSING":
            return None
        raise
