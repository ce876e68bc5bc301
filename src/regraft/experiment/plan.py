"""A plan: a table of runs in TOML, where a list means one run for each of its values."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from regraft.errors import RegraftError, UsageError
from regraft.experiment.config import (
    AMOUNTS,
    Count,
    DataConfig,
    MethodConfig,
    PathText,
    Plain,
    RunConfig,
    told,
)
from regraft.settings import did_you_mean, from_json, read_toml, settings_class
from regraft.training.phases import Phase

Table = dict[str, Any]  # as TOML has it; lists may still stand for many runs
_REPEATS = ("seed", "fold")  # runs that differ in nothing else belong to one row of the table
# What a line about a row tells of it.
_TOLD = (
    *("backbone", "strategy", "classifier", "head", "unfreeze", "regularize", "augment"),
    "per_class",
)


@settings_class(kw_only=True)
class StandIn:
    """What stands in for a network at the small size.

    Args:
        backbone: The other network.
        weights: Its weights.
        arguments: Its arguments.
        size: Height and width of its images in pixels; None for its own.
        stages: From the names of stages to those of the other network.
    """

    backbone: str
    weights: PathText = "default"
    arguments: dict[str, Plain] = field(default_factory=dict)
    size: Count | None = None
    stages: dict[str, str] = field(default_factory=dict)


@settings_class(kw_only=True)
class SmallSize:
    """What takes the place of what in a plan, under ``[small]``.

    Args:
        data: Fields of ``DataConfig``, in place of those of the plan and of its rows.
        row: Fields of every row, in place of its own.
        epochs: The most epochs of each phase, of ``epochs`` and of ``head_epochs``.
        steps: The most batches of each epoch, where there are ``phases``.
        backbones: What stands in for a network, by its name.

    Example:
        >>> small = SmallSize(epochs=2, backbones={"vgg16": StandIn(backbone="simple_cnn")})
        >>> whole = MethodConfig(backbone="vgg16", strategy="frozen", epochs=30)
        >>> small.shrink(whole).title, small.shrink(whole).epochs
        ('simple_cnn + frozen (linear)', 2)
    """

    data: Table = field(default_factory=dict)
    row: Table = field(default_factory=dict)
    epochs: Count | None = None
    steps: Count | None = None
    backbones: dict[str, StandIn] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """What the reader of the table should know.

        Example:
            >>> SmallSize(epochs=2).note
            'this is the small size, at most 2 epochs: its figures stand beside published ones to \
show the table, not to be compared'
        """
        parts = [
            f"{new.backbone} at {new.size or 'its own'} pixels for {old}"
            for old, new in self.backbones.items()
        ]
        parts += [f"at most {self.epochs} epochs"] if self.epochs else []
        return (
            f"this is the small size{''.join(f', {each}' for each in parts)}: its figures stand "
            "beside published ones to show the table, not to be compared"
        )

    def changed(self, row: Table, own: Table) -> Table:
        """Return a row, whose lists still stand for many, with what is given in its place."""
        given = {**self.row, **own}
        if set(AMOUNTS) & set(given):  # a row learns from one amount
            row = {key: value for key, value in row.items() if key not in AMOUNTS}
        return {**row, **given}

    def shrink(self, method: MethodConfig) -> MethodConfig:
        """Return a method with its stand-in and no more epochs than allowed."""
        stand_in = self.backbones.get(method.backbone)
        stages = stand_in.stages if stand_in else {}
        method = _with(stand_in, method) if stand_in else method
        if method.strategy == "features":
            return method
        if method.phases is not None:
            return replace(
                method, phases=tuple(self._shorter(one, stages) for one in method.phases)
            )
        if self.epochs is None:
            return method
        epochs, first = self._fewer(method.epochs), method.head_epochs
        first = self._fewer(first) if method.strategy == "two_stage" else first
        return replace(method, epochs=epochs, head_epochs=first)

    def _fewer(self, epochs: int | None) -> int | None:
        return min((n for n in (epochs, self.epochs) if n is not None), default=None)

    def _shorter(self, phase: Phase, stages: Mapping[str, str]) -> Phase:
        first = phase.unfreeze_from
        return replace(
            phase,
            epochs=min(phase.epochs, self.epochs or phase.epochs),
            steps=min(filter(None, (phase.steps, self.steps)), default=None),
            unfreeze_from=None if first is None else stages.get(first, first),
        )


def _with(stand_in: StandIn, method: MethodConfig) -> MethodConfig:
    arguments, preprocessing = stand_in.arguments, method.preprocessing
    if stand_in.size is not None and preprocessing is not None:
        preprocessing = preprocessing.at_size(stand_in.size)
    elif stand_in.size is not None:
        arguments = {**arguments, "size": stand_in.size}
    return replace(
        method,
        backbone=stand_in.backbone,
        weights="random" if method.weights == "random" else stand_in.weights,
        arguments=arguments,
        preprocessing=preprocessing,
    )


@settings_class(kw_only=True)
class _PlanFile:
    """The keys of a plan: ``data`` and ``defaults`` of every row, its rows, and ``small``."""

    title: str = ""
    note: str = ""
    data: Table = field(default_factory=dict)
    defaults: Table = field(default_factory=dict)
    small: SmallSize = SmallSize()
    rows: tuple[Table, ...] = ({},)  # a plan without rows stands for a single run


@dataclass(frozen=True)
class PlannedRow:
    """One row of the table that a plan makes.

    Args:
        description: The line that tells it from the others.
        configs: Its runs: one, or one for each seed or fold.
    """

    description: str
    configs: tuple[RunConfig, ...]

    @property
    def published(self) -> dict[str, float | str]:
        """What the source of the row printed."""
        return self.configs[0].method.published or {}

    @property
    def id(self) -> str:
        """What other rows call it."""
        return self.configs[0].method.id or self.description


@dataclass(frozen=True)
class Plan:
    """The rows of a plan.

    Args:
        title: What the table is called.
        rows: In the order in which they are run.
        note: What the reader of the table should know.

    Example:
        >>> values = {"data": {"source": "flowers"}, "rows": [{"classifier": ["knn", "logistic"]}]}
        >>> [row.description for row in plan_from(values).rows]
        ['efficientnet_lite0 + knn', 'efficientnet_lite0 + logistic']
    """

    title: str
    rows: tuple[PlannedRow, ...]
    note: str = ""

    def configs(self) -> tuple[RunConfig, ...]:
        """Return the runs of all rows, in their order."""
        return tuple(config for row in self.rows for config in row.configs)

    def only(self, names: Sequence[str]) -> Plan:
        """Return the rows with these ids or descriptions, and those that they start from.

        Raises:
            UsageError: There is no such row.
        """
        known: dict[str, list[PlannedRow]] = {}
        for row in self.rows:
            known.setdefault(row.id, []).append(row)
        for name in names:
            if name not in known:
                why = f"there are {', '.join(known)}"
                raise UsageError(f"the plan has no row {name!r}", why=why)
        links = {config.link: row for row in self.rows for config in row.configs}
        kept: set[str] = set()
        waiting = [row for name in names for row in known[name]]
        while waiting:
            row = waiting.pop()
            kept.add(row.description)
            starts = {str(config.method.start) for config in row.configs}
            waiting += [links[start] for start in starts if start in links]
        return replace(self, rows=tuple(row for row in self.rows if row.description in kept))


def read_plan(path: str | os.PathLike[str], *, small: bool = False, data: str = "") -> Plan:
    """Read a plan: a TOML file, or the ``run.json`` of a finished run.

    Args:
        path: The file. Paths in it are relative to its folder.
        small: Whether to take the small size that the plan describes under ``[small]``.
        data: The folder of the images, where it is not the one that the plan names. A small size
            takes it for every row; a whole plan must be about one set of images then.

    Raises:
        UsageError: The file is missing or no plan, a key is unknown, or a value is impossible.
    """
    file = Path(path)
    if not file.is_file():
        raise UsageError("no such plan", path=file, hint="name a TOML file, or a run's run.json")
    try:
        if file.suffix == ".json":
            return _plan_of_run(file, small=small, data=data)
        return plan_from(read_toml(file), base=file.parent, small=small, data=data)
    except RegraftError as error:
        raise UsageError(error.what, path=file, why=error.why, hint=error.hint) from error


def _plan_of_run(file: Path, *, small: bool, data: str) -> Plan:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError("the plan cannot be read", why=str(error)) from error
    found = values.get("config") if isinstance(values, dict) else None
    if not found or small:
        why = "a single run has no small size" if found else "it holds no settings of a run"
        raise UsageError("this is no plan", why=why)
    config = from_json(RunConfig, found).absolute(file.parent)
    if data:
        config = replace(config, data=replace(config.data, source=Path(data).absolute()))
    return Plan("", (PlannedRow(config.description, (config,)),))


def plan_from(values: Table, *, base: Path = Path(), small: bool = False, data: str = "") -> Plan:
    """Return the plan that plain values describe; see :func:`read_plan`.

    Args:
        values: ``title``, ``note``, ``data`` (fields of ``DataConfig``), ``defaults`` (of every
            row), ``rows`` (fields of ``MethodConfig``), and ``small`` (see ``SmallSize``). A row
            may have fields of ``data`` of its own, and fields for the small size.
        base: The folder that relative paths begin in.
        small: Whether to take the small size.
        data: See :func:`read_plan`.

    Raises:
        UsageError: A key is unknown, or a value is impossible.
    """
    file = from_json(_PlanFile, values)
    if not file.rows:
        raise UsageError("the plan has no rows")
    planned: list[PlannedRow] = []
    sources: set[str] = set()
    for number, row in enumerate(file.rows, start=1):
        try:
            part, own = _tables(file, row, small=small)
            sources.add(str(part.get("source", "")))
            if data:
                part["source"] = str(Path(data).absolute())
            planned += _expanded(part, own, file.small if small else None, base)
        except RegraftError as error:
            name = row.get("id") or row.get("description") or f"number {number}"
            raise UsageError(f"row {name}: {error.what}", why=error.why, hint=error.hint) from error
    if data and not small:
        _refuse_one_folder_for_several(sources)
    linked = _linked(planned)
    _refuse_twins(linked)
    notes = [file.note, file.small.note if small else ""]
    return Plan(file.title, tuple(linked), "; ".join(filter(None, notes)))


def repeated(
    data: DataConfig,
    method: MethodConfig,
    *,
    splits: Iterable[int],
    folds: Iterable[int],
    seeds: Iterable[int],
) -> PlannedRow:
    """Return the row of one method, measured on several splits and folds with several seeds."""
    configs = [
        RunConfig(replace(data, seed=split, fold=fold), replace(method, seed=seed))
        for split, fold, seed in itertools.product(splits, folds, seeds)
    ]
    return PlannedRow(method.title, tuple(configs))


def _refuse_one_folder_for_several(sources: Collection[str]) -> None:
    if len(sources) > 1:
        raise UsageError(
            "one folder (--data) cannot stand for several",
            why=f"the rows are about {', '.join(sorted(sources))}",
            hint="write the folders that you have into a copy of the plan",
        )


def _tables(file: _PlanFile, row: Table, *, small: bool) -> tuple[Table, Table]:
    """Return what a row says of data and method; its own tables replace those of the plan."""
    merged = {**file.defaults, **row}
    for name in ("data", "small"):
        for each in (file.defaults, row):
            if not isinstance(each.get(name, {}), dict):
                raise UsageError(f"{name} cannot be {each[name]!r:.100}", why="it is a table")
        merged[name] = {**file.defaults.get(name, {}), **row.get(name, {})}
    part, own = {**file.data, **merged.pop("data")}, merged.pop("small")
    known = [each.name for each in fields(MethodConfig)]
    for key in {**own, **file.small.row}:  # a wrong key is one, small or not
        if key not in known:
            raise UsageError(f"unknown key {key!r}", hint=did_you_mean(key, known))
    if small:
        return {**part, **file.small.data}, file.small.changed(merged, own)
    return part, merged


def _expanded(data: Table, row: Table, small: SmallSize | None, base: Path) -> Iterator[PlannedRow]:
    """Yield the rows of the table that one row of the plan stands for."""
    varied = {key: value for key, value in row.items() if _is_varied(key, value)}
    if not all(varied.values()):
        raise UsageError("an empty list stands for no run at all")
    splits = data["seed"] if isinstance(data.get("seed"), list) else [data.get("seed", 0)]
    if not splits:
        raise UsageError("an empty list stands for no run at all")
    seeds = varied.pop("seed", [row.get("seed", 0)])
    for choice in itertools.product(*varied.values()):
        chosen = dict(zip(varied, choice, strict=True))
        configs = []
        for split, seed in itertools.product(splits, seeds):
            part = from_json(DataConfig, {**data, "seed": split}).absolute(base)
            whole = from_json(MethodConfig, {**row, **chosen, "seed": seed})
            method = whole if small is None else small.shrink(whole)
            method = replace(method, description=_described(row, chosen, method))
            method = method.absolute(base)
            # The one that is named, or all of them.
            folds = range(part.folds) if part.folds and "fold" not in data else [part.fold]
            configs += [RunConfig(replace(part, fold=fold), method) for fold in folds]
        yield PlannedRow(configs[0].description, tuple(configs))


def _described(row: Table, chosen: Table, method: MethodConfig) -> str:
    named = bool(row.get("description"))
    line = method.description if named else replace(method, description="").title
    hidden = ("description",) if named else _TOLD
    rest = [f"{key} {told(value)}" for key, value in chosen.items() if key not in hidden]
    return ", ".join([line, *rest])


def _linked(planned: Sequence[PlannedRow]) -> list[PlannedRow]:
    """Return rows whose ``start`` is the link to the run that it means, where it named a row.

    A row can only start from an earlier one.

    Raises:
        UsageError: The earlier row stands for several, or is not measured on the same split.
    """
    linked: list[PlannedRow] = []
    known: dict[str, list[PlannedRow]] = {}
    for row in planned:
        start = str(row.configs[0].method.start)
        if start in known:
            earlier, *others = known[start]
            if others:
                raise UsageError(
                    f"{row.description}: {start!r} to start from stands for several rows",
                    why=", ".join(one.description for one in (earlier, *others)),
                    hint="write them as rows of their own, each with its id",
                )
            configs = [
                replace(one, method=replace(one.method, start=Path(_start(one, earlier).link)))
                for one in row.configs
            ]
            row = replace(row, configs=tuple(configs))  # noqa: PLW2901 - the same row, linked
        linked.append(row)
        known.setdefault(row.id, []).append(row)
    return linked


def _start(config: RunConfig, earlier: PlannedRow) -> RunConfig:
    """Return the repeat of an earlier row to start from: on the same split, if can be, same seed.

    On another split of the same images it would have learned from what is now the test part.
    """
    data = config.data
    same = [one for one in earlier.configs if one.data.split_key == data.split_key]
    if not same and any(one.data.source == data.source for one in earlier.configs):
        raise UsageError(
            f"{config.description}: nothing to start from on this split",
            why=f"{earlier.description} is not measured on it, so its test images are others",
            hint="give both rows the same data",
        )
    candidates = same or earlier.configs
    seed = config.method.seed
    return next((one for one in candidates if one.method.seed == seed), candidates[0])


def _is_varied(key: str, value: Any) -> bool:
    if key != "phases":
        return isinstance(value, list)
    return isinstance(value, list) and bool(value) and isinstance(value[0], list)


def _refuse_twins(planned: Sequence[PlannedRow]) -> None:
    seen: dict[str, str] = {}
    lines: set[str] = set()
    for row in planned:
        for config in row.configs:
            if config.key in seen:
                raise UsageError(
                    "two rows are the same run",
                    why=f"{seen[config.key]!r} and {row.description!r}",
                    hint="change what tells them apart, or delete one",
                )
            seen[config.key] = row.description
        if row.description in lines:
            raise UsageError(
                "two rows have the same description",
                why=row.description,
                hint="give one of them a description of its own, so that a table tells them apart",
            )
        lines.add(row.description)
