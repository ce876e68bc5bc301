"""One run as plain values: which pictures, which network and how it learns."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from regraft.backbones.catalog import DEFAULT_BACKBONE
from regraft.errors import UsageError
from regraft.experiment.keys import refuse_unknown, refuse_wrong_kinds
from regraft.experiment.preparation import DataPlan
from regraft.experiment.strategies import LearnerOptions, Strategy, build_learner
from regraft.files import sha256_json

if TYPE_CHECKING:
    from regraft.backbones.spec import BackboneSpec
    from regraft.classifiers.feature_classifier import FeatureClassifier
    from regraft.classifiers.network_classifier import NetworkClassifier

AMOUNTS = ("per_class", "size", "fraction")  # of the pictures to learn from: each run has its own
DATA_KEYS = tuple(f.name for f in fields(DataPlan) if f.name not in AMOUNTS)
LEARNER_KEYS = tuple(
    f.name for f in fields(LearnerOptions) if f.name not in {"resume", "verbose", "tensorboard"}
)
BACKBONE_KEYS = ("backbone", "weights", "arguments", "preprocessing")
LABEL_KEYS = ("id", "description", "published")
ROW_KEYS = (*LABEL_KEYS, *AMOUNTS, *BACKBONE_KEYS, *LEARNER_KEYS)
# What a line about a row tells of it; see `described`.
TOLD = (
    *("backbone", "strategy", "classifier", "head", "unfreeze", "regularize", "augment"),
    "per_class",
)
_PATHS = ("source", "root", "weights", "start")
# What changes nothing of what is computed.
_IDLE = ("cache", *LABEL_KEYS)


class _Labels:
    """What else a row may have, with what kind of value."""

    id: str | int | None
    description: str | None
    published: Mapping[str, Any] | None
    backbone: str | None
    weights: str | Path | None
    arguments: Mapping[str, Any] | None
    preprocessing: Mapping[str, Any] | None


@dataclass(frozen=True)
class Recipe:
    """One run, written as in a plan.

    Args:
        data: Fields of ``DataPlan``: which pictures, and how they are split.
        row: The keys of ``ROW_KEYS``: how much of them is learned from, by which network and how.

    Raises:
        UsageError: A key is unknown, or a value is impossible.

    Example:
        >>> recipe = Recipe({"source": "flowers"}, {"backbone": "vgg16", "strategy": "frozen"})
        >>> recipe.description
        'vgg16 + frozen (linear)'
        >>> Recipe({"source": "flowers"}, {"backbon": "vgg16"})
        Traceback (most recent call last):
        regraft.errors.UsageError: unknown key 'backbon' - did you mean 'backbone'?
    """

    data: Mapping[str, Any]
    row: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        refuse_unknown(self.data, DATA_KEYS)
        refuse_unknown(self.row, ROW_KEYS)
        if "source" not in self.data:
            raise UsageError("no pictures are named", hint="write source = FOLDER under [data]")
        strategy = self.row.get("strategy", "features")
        if strategy not in get_args(Strategy):
            known = ", ".join(get_args(Strategy))
            raise UsageError(f"unknown strategy {strategy!r}", why=f"there are {known}")
        refuse_wrong_kinds(self.data, DataPlan)
        refuse_wrong_values(self.row)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Recipe:
        """Return the recipe of a command's options: those that differ from the defaults.

        Args:
            given: Options by name; what is no key of a recipe is passed over.
        """
        defaults = {f.name: f.default for kind in (DataPlan, LearnerOptions) for f in fields(kind)}
        told = {
            key: value
            for key, value in given.items()
            if value != defaults.get(key) and value not in (None, "", {})
        }
        if "folds" in told and "fold" in given:  # without it a plan means every fold
            told["fold"] = given["fold"]
        return cls(*({k: told[k] for k in keys if k in told} for keys in (DATA_KEYS, ROW_KEYS)))

    @property
    def description(self) -> str:
        """The line that tells it from others in a table."""
        return str(self.row.get("description") or described(self.row))

    @property
    def published(self) -> Mapping[str, Any]:
        """What the source of the run printed."""
        found = self.row.get("published", {})
        return found if isinstance(found, Mapping) else {}

    @property
    def seed(self) -> int:
        """What everything random is drawn from, but the split."""
        return int(self.row.get("seed", 0))

    @property
    def backbone(self) -> BackboneSpec:
        """The network.

        Raises:
            BackboneError: An argument or the preprocessing is impossible.
        """
        from regraft.backbones.spec import BackboneSpec

        weights = self.row.get("weights", "default")
        given = {
            "name": self.row.get("backbone", DEFAULT_BACKBONE),
            "weights": None if weights == "random" else weights,
            "arguments": self.row.get("arguments", {}),
            "preprocessing": self.row.get("preprocessing") or None,  # {}: the weights' own
            "seed": self.seed if weights == "random" else 0,
        }
        return BackboneSpec.from_json(given)

    @property
    def data_plan(self) -> DataPlan:
        """The pictures; another seed of the row learns from other ones of them."""
        amounts = {key: self.row[key] for key in AMOUNTS if key in self.row}
        return DataPlan(**{"draw": self.seed, **self.data}, **amounts)

    def options(self, *, verbose: bool = False) -> LearnerOptions:
        """Return how it learns."""
        given = {key: self.row[key] for key in LEARNER_KEYS if key in self.row}
        return LearnerOptions(**given, verbose=verbose)

    def learner(self, *, verbose: bool = False) -> FeatureClassifier | NetworkClassifier:
        """Return the learner, not fitted yet.

        Raises:
            UsageError: An option makes no sense, or its value cannot be read.
            BackboneError: The network cannot be described.
        """
        return build_learner(self.backbone, self.options(verbose=verbose))

    @property
    def plan(self) -> dict[str, Any]:
        """The recipe as a plan of one run, JSON values, whatever the current folder."""
        data, row = (_plain(absolute_paths(part, Path())) for part in (self.data, self.row))
        return {"data": data, "rows": [row]}

    @property
    def digest(self) -> str:
        """Tells it from every recipe that computes something else, in 8 hexadecimal digits."""
        telling = {key: value for key, value in self.row.items() if key not in _IDLE}
        return sha256_json({"data": _plain(self.data), "row": _plain(telling)})[:8]

    @property
    def link(self) -> str:
        """What stands for its run as the ``start`` of another recipe, whatever it is called."""
        return f"run-{self.digest}"

    @property
    def folder(self) -> str:
        """The name of its folder among the runs of a plan."""
        name = f"{self.row.get('id', '')} {self.description}".lower()
        plain = re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:60].rstrip("-")
        return f"{plain or 'run'}-{self.digest}"

    def without(self, *keys: str) -> tuple[str, str]:
        """Return what is left without these keys of data and row, to find recipes that belong."""
        kept = [
            {key: value for key, value in part.items() if key not in keys}
            for part in (self.data, self.row)
        ]
        return (json.dumps(_plain(kept[0]), sort_keys=True), json.dumps(_plain(kept[1])))


def refuse_wrong_values(row: Mapping[str, Any]) -> None:
    """Refuse values of a row that their keys cannot have.

    Raises:
        UsageError: Naming the first such key.
    """
    refuse_wrong_kinds(row, DataPlan, LearnerOptions, _Labels)
    for phase in row.get("phases") or ():
        if not isinstance(phase, Mapping):
            raise UsageError(f"a phase cannot be {phase!r:.100}", why="it is a table")


def described(row: Mapping[str, Any]) -> str:
    """Return a line about a row of a plan that has no description.

    Example:
        >>> described({"backbone": "vgg16", "classifier": "knn", "per_class": 100})
        'vgg16 + knn, 100 per class'
        >>> described({"backbone": "vgg16", "strategy": "fine_tune", "augment": "standard"})
        'vgg16 + fine_tune (linear), augment standard'
    """
    given = {key: row[key] for key in LEARNER_KEYS if key in row}
    options = LearnerOptions(**given)
    name, _, head = options.label.partition(" ")
    text = f"{row.get('backbone', DEFAULT_BACKBONE)} + {name}" + (f" ({head})" if head else "")
    unfreeze = row.get("unfreeze")
    text += "" if unfreeze is None else f", unfreeze {unfreeze}"
    for key in ("regularize", "augment"):
        if row.get(key) not in {None, "none"}:
            text += f", {key} {short(row[key])}"
    if row.get("per_class") is not None:
        text += f", {row['per_class']} per class"
    return text


def short(value: Any) -> str:
    """Return a value of a plan as a few words.

    Example:
        >>> short({"rotation": 30, "flip": True})
        'rotation=30 flip=True'
    """
    if isinstance(value, Mapping):
        return " ".join(f"{key}={short(item)}" for key, item in value.items())
    return str(value)


def absolute_paths(values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Return values whose paths do not depend on where the command is run.

    Args:
        values: Of data or of a row; ``weights`` that are no file stay as they are.
        base: The folder that relative paths begin in.
    """
    changed = dict(values)
    for key in _PATHS:
        value = changed.get(key)
        if isinstance(value, str | os.PathLike):
            path = base / Path(value).expanduser()
            # A word such as "default", or the id of a row, is no path.
            there = {"weights": path.is_file, "start": path.is_dir}.get(key, lambda: True)()
            changed[key] = os.path.normpath(path.absolute()) if there else str(value)
    return changed


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, os.PathLike) else value
