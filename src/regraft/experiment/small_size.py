"""The small size of a plan: the same rows with little networks, few epochs and other pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from regraft.backbones.catalog import DEFAULT_BACKBONE
from regraft.errors import UsageError
from regraft.experiment.keys import refuse_unknown, refuse_wrong_kinds
from regraft.experiment.recipe import AMOUNTS, BACKBONE_KEYS


class _StandIn:
    """What may stand in for a network, with what kind of value."""

    backbone: str
    weights: str | Path
    arguments: Mapping[str, Any]
    size: int
    stages: Mapping[str, str]


_STAND_IN = tuple(_StandIn.__annotations__)


@dataclass(frozen=True)
class SmallSize:
    """What takes the place of what in a plan, under ``[small]``.

    Args:
        data: Fields of ``DataPlan``, in place of those of the plan and of its rows.
        row: Keys of every row, in place of its own.
        epochs: The most epochs of each phase, of ``epochs`` and of ``head_epochs``.
        steps: The most batches of each epoch, where there are ``phases``.
        backbones: What stands in for a network: from its name to a table with the name of another
            ``backbone``, its ``weights`` and ``arguments``, the ``size`` of its pictures in pixels,
            and ``stages``, from the names of stages to those of the other network.

    Raises:
        UsageError: A key is unknown, or a value is impossible.

    Example:
        >>> small = SmallSize(epochs=2, backbones={"vgg16": {"backbone": "efficientnet_lite0"}})
        >>> small.shrunk({"backbone": "vgg16", "strategy": "frozen", "epochs": 30})
        {'backbone': 'efficientnet_lite0', 'strategy': 'frozen', 'epochs': 2}
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    row: Mapping[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    steps: int | None = None
    backbones: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "steps"):
            most = getattr(self, name)
            if most is not None and most < 1:
                raise UsageError(f"small: {name} must be a whole number above 0", why=repr(most))
        for name, stand_in in self.backbones.items():
            if not isinstance(stand_in, Mapping):
                raise UsageError(f"small: {stand_in!r:.100} for {name}", why="it is a table")
            refuse_unknown(stand_in, _STAND_IN)
            refuse_wrong_kinds(stand_in, _StandIn)
            if "backbone" not in stand_in:
                raise UsageError(f"small: nothing stands in for {name}", hint="name a backbone")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> SmallSize:
        """Return what a plan says under ``[small]``.

        Raises:
            UsageError: A key is unknown, or a value is impossible.
        """
        refuse_unknown(values, (f.name for f in fields(cls)))
        refuse_wrong_kinds(values, cls)
        return cls(**values)

    @property
    def note(self) -> str:
        """What the reader of the table should know.

        Example:
            >>> SmallSize(epochs=2).note
            'this is the small size, at most 2 epochs: its figures stand beside published ones to \
show the table, not to be compared'
        """
        told = [
            f"{new['backbone']} at {new.get('size', 'its own')} pixels for {old}"
            for old, new in self.backbones.items()
        ]
        told += [f"at most {self.epochs} epochs"] if self.epochs else []
        return (
            f"this is the small size{''.join(f', {each}' for each in told)}: its figures stand "
            "beside published ones to show the table, not to be compared"
        )

    def changed(self, row: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row, whose lists still stand for many, with what is given in its place.

        Args:
            row: The row.
            own: What the row itself gives as ``small``; it comes last.
        """
        given = {**self.row, **own}
        if set(AMOUNTS) & set(given):  # a row learns from one amount
            row = {key: value for key, value in row.items() if key not in AMOUNTS}
        return {**row, **given}

    def shrunk(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row without lists with its stand-in and no more epochs than allowed."""
        row, stages = self._with_stand_in(row)
        if row.get("strategy", "features") == "features":
            return row
        if "phases" in row:
            return {**row, "phases": [self._shorter(phase, stages) for phase in row["phases"]]}
        if self.epochs is None:
            return row
        names = ["epochs"] + ["head_epochs"] * (row["strategy"] == "two_stage")
        return row | {name: min(row.get(name, self.epochs), self.epochs) for name in names}

    def _with_stand_in(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, str]]:
        stand_in = dict(self.backbones.get(row.get("backbone", DEFAULT_BACKBONE), {}))
        if not stand_in:
            return dict(row), {}
        size, stages = stand_in.pop("size", None), stand_in.pop("stages", {})
        asked = row.get("preprocessing")
        if size is not None and asked and not {"size", "resize"} <= asked.keys():
            raise UsageError(
                "preprocessing needs size and resize", why=f"there are {', '.join(asked)}"
            )
        if size is not None and asked:
            part = size / asked["size"]
            asked = {**asked, "size": size, "resize": max(size, round(part * asked["resize"]))}
        elif size is not None:
            stand_in["arguments"] = {**stand_in.get("arguments", {}), "size": size}
        kept = {key: value for key, value in row.items() if key not in BACKBONE_KEYS}
        if row.get("weights") == "random":
            stand_in["weights"] = "random"
        return {**stand_in, **kept, **({"preprocessing": asked} if asked else {})}, stages

    def _shorter(self, phase: Mapping[str, Any], stages: Mapping[str, str]) -> dict[str, Any]:
        shorter = dict(phase)
        for name, usual in (("epochs", 30), ("steps", None)):
            most, asked = getattr(self, name), phase.get(name, usual)
            if most is not None:
                shorter[name] = most if asked is None else min(asked, most)
        if phase.get("unfreeze_from") in stages:
            shorter["unfreeze_from"] = stages[phase["unfreeze_from"]]
        return shorter
