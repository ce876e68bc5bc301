"""A plan: a table of runs in TOML, where a list means one run for each of its values."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from regraft.errors import RegraftError, UsageError
from regraft.experiment import config as settings
from regraft.experiment.config import AMOUNTS, Count, DataConfig, MethodConfig, RunConfig
from regraft.files import read_json
from regraft.settings import PathText, did_you_mean, from_json, read_toml, settings_class, to_json
from regraft.training.phases import Phase

Table = dict[str, Any]  # as TOML has it; lists may still stand for many runs
_AMOUNT = {*AMOUNTS, "at_most"}  # what says how many images a row learns from
# What the title of a method tells already.
_IN_TITLE = {
    *("backbone", "strategy", "classifier", "head", "unfreeze", "regularize", "augment"),
    *_AMOUNT,
}


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
    arguments: dict[str, settings.Plain] = field(default_factory=dict)
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
        """What the reader of the table should know."""
        parts = [
            f", {new.backbone} at {new.size or 'its own'} pixels for {old}"
            for old, new in self.backbones.items()
        ]
        parts += [f", at most {self.epochs} epochs"] if self.epochs else []
        return (
            f"this is the small size{''.join(parts)}: its figures stand beside published ones to "
            "show the table, not to be compared"
        )

    def shrink(self, method: MethodConfig) -> MethodConfig:
        """Return a method with its stand-in, no more epochs than allowed, and no description."""
        new, changes = self.backbones.get(method.backbone), Table(description="")
        if new is not None:
            random = method.weights == "random"
            changes |= {"backbone": new.backbone, "weights": "random" if random else new.weights}
            changes["arguments"] = new.arguments
            if new.size is not None and method.preprocessing is not None:
                changes["preprocessing"] = method.preprocessing.at_size(new.size)
            elif new.size is not None:
                changes["arguments"] = {**new.arguments, "size": new.size}
        if method.phases is not None:
            stages = {} if new is None else new.stages
            changes["phases"] = tuple(self._shorter(one, stages) for one in method.phases)
        elif self.epochs is not None and method.strategy != "features":
            two = method.strategy == "two_stage"
            for name in ("epochs", "head_epochs") if two else ("epochs",):
                asked = getattr(method, name)
                changes[name] = self.epochs if asked is None else min(asked, self.epochs)
        return replace(method, **changes)

    def _shorter(self, phase: Phase, stages: dict[str, str]) -> Phase:
        first = phase.unfreeze_from
        return replace(
            phase,
            epochs=min(phase.epochs, self.epochs or phase.epochs),
            steps=min(filter(None, (phase.steps, self.steps)), default=None),
            unfreeze_from=None if first is None else stages.get(first, first),
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
    def published(self) -> dict[str, Any]:
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
        known = dict.fromkeys(row.id for row in self.rows)
        for name in names:
            if name not in known:
                why = f"there are {', '.join(known)}"
                raise UsageError(f"the plan has no row {name!r}", why=why)
        kept, starts = [], set[str]()
        for row in reversed(self.rows):  # a row starts from an earlier one
            if row.id in names or starts & {config.link for config in row.configs}:
                kept.append(row)
                starts |= {str(config.method.start) for config in row.configs}
        return replace(self, rows=tuple(reversed(kept)))


def read_plan(
    path: str | os.PathLike[str], *, small: bool = False, data: Sequence[str] = ()
) -> Plan:
    """Read a plan: a TOML file, or the ``run.json`` of a finished run.

    Args:
        path: The file. Paths in it are relative to its folder.
        small: Whether to take the small size that the plan describes under ``[small]``.
        data: The folder of the images, where it is not the one that the plan names; or
            ``NAME=FOLDER`` for each folder ``NAME`` that it names. A small size takes one folder
            for every row.

    Raises:
        UsageError: The file is missing or no plan, a key is unknown, or a value is impossible.
    """
    file = Path(path)
    if not file.is_file():
        raise UsageError("no such plan", path=file, hint="name a TOML file, or a run's run.json")
    try:
        values = _values_of_run(file) if file.suffix == ".json" else read_toml(file)
        return plan_from(values, base=file.parent, small=small, data=data)
    except RegraftError as error:
        raise UsageError(error.what, path=file, why=error.why, hint=error.hint) from error


def _values_of_run(file: Path) -> Table:
    values = read_json(file)
    if not isinstance(values, dict) or "config" not in values:
        raise UsageError("this is no plan", why="it holds no settings of a run")
    config = to_json(from_json(RunConfig, values["config"]))
    return {"data": config["data"], "rows": [config["method"]]}


def plan_from(
    values: Table, *, base: Path = Path(), small: bool = False, data: Sequence[str] = ()
) -> Plan:
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
    if small and "small" not in values:
        raise UsageError("the plan has no small size", hint="describe it under [small]")
    planned: list[PlannedRow] = []
    folders = dict(text.split("=", 1) for text in data if "=" in text)
    folder, names = next((text for text in data if "=" not in text), ""), set[str]()
    for number, row in enumerate(file.rows, start=1):
        try:
            part, own = _tables(file, row, small=small)
            name = Path(str(part.get("source", ""))).name
            names.add(name)
            moved = folders.get(name, folder)
            if moved:
                part["source"] = str(Path(moved).expanduser().absolute())
            planned += _expanded(part, own, file.small if small else None, base)
        except RegraftError as error:
            what = row.get("id") or row.get("description") or f"number {number}"
            raise UsageError(f"row {what}: {error.what}", why=error.why, hint=error.hint) from error
    if unknown := sorted(folders.keys() - names):
        why = f"its images are {', '.join(sorted(names))}"
        raise UsageError(f"the plan has no folder {unknown[0]!r}", why=why)
    if folder and not small and len(names - folders.keys()) > 1:
        why = f"the rows are about {', '.join(sorted(names))}"
        hint = "give --data NAME=FOLDER for each"
        raise UsageError("one folder (--data) cannot stand for several", why=why, hint=hint)
    linked = _linked(planned)
    _refuse_twins(linked)
    if not small:
        return Plan(file.title, linked, file.note)
    title = f"{file.title}, small size" if file.title else ""
    return Plan(title, linked, "; ".join(filter(None, (file.note, file.small.note))))


def _tables(file: _PlanFile, row: Table, *, small: bool) -> tuple[Table, Table]:
    """Return what a row says of data and method; its own tables replace those of the plan."""
    method = {**file.defaults, **row}
    data, own = method.pop("data", {}), method.pop("small", {})
    for name, table in (("data", data), ("small", own)):
        if not isinstance(table, dict):
            raise UsageError(f"{name} cannot be {table!r:.100}", why="it is a table")
    data, own = {**file.data, **data}, {**file.small.row, **own}
    known = [each.name for each in fields(MethodConfig)]
    for key in own:  # a wrong key is one, small or not
        if key not in known:
            raise UsageError(f"unknown key {key!r}", hint=did_you_mean(key, known))
    if not small:
        return data, method
    if set(AMOUNTS) & set(own):  # a row learns from one amount
        method = {key: value for key, value in method.items() if key not in _AMOUNT}
    return {**data, **file.small.data}, {**method, **own}


def _expanded(data: Table, row: Table, small: SmallSize | None, base: Path) -> Iterator[PlannedRow]:
    """Yield the rows of the table that one row of the plan stands for."""
    varied = {key: value for key, value in row.items() if _is_varied(key, value)}
    splits = data["seed"] if isinstance(data.get("seed"), list) else [data.get("seed", 0)]
    if not splits or not all(varied.values()):
        raise UsageError("an empty list stands for no run at all")
    seeds = varied.pop("seed", [row.get("seed", 0)])
    for choice in itertools.product(*varied.values()):
        chosen = dict(zip(varied, choice, strict=True))
        configs = []
        for split, seed in itertools.product(splits, seeds):
            part = from_json(DataConfig, {**data, "seed": split}).absolute(base)
            method = from_json(MethodConfig, {**row, **chosen, "seed": seed})
            method = method if small is None else small.shrink(method)
            method = replace(method, description=_described(method, chosen, small)).absolute(base)
            # The one that is named, or all of them.
            folds = range(part.folds) if part.folds and "fold" not in data else [part.fold]
            configs += [RunConfig(replace(part, fold=fold), method) for fold in folds]
        yield PlannedRow(configs[0].description, tuple(configs))


def _described(method: MethodConfig, varied: Iterable[str], small: SmallSize | None) -> str:
    """Return the row's description with what its lists vary; at the small size, what is run."""
    hidden = {"description"} if method.description else _IN_TITLE
    line = f"{method.id}: {method.title}" if small and method.id else method.title
    shown = [(name, getattr(method, name)) for name in varied if name not in hidden]
    return ", ".join([line, *(f"{name} {settings.told(value)}" for name, value in shown)])


def _is_varied(key: str, value: Any) -> bool:
    if key == "phases" and isinstance(value, list):
        return bool(value) and isinstance(value[0], list)
    return isinstance(value, list)


def _linked(planned: Sequence[PlannedRow]) -> tuple[PlannedRow, ...]:
    """Return rows whose ``start`` is the link to the run that it means, where it named a row.

    A row can only start from an earlier one, which stands for no other and has the same split.
    """
    linked: list[PlannedRow] = []
    for row in planned:
        start = str(row.configs[0].method.start)
        earlier = [one for one in linked if one.id == start]
        if len(earlier) > 1:
            what = f"{row.description}: {start!r} to start from stands for several rows"
            why = ", ".join(one.description for one in earlier)
            raise UsageError(what, why=why, hint="write them as rows, each with its own id")
        configs = [
            replace(one, method=replace(one.method, start=Path(_start(one, earlier[0]).link)))
            if earlier
            else one
            for one in row.configs
        ]
        linked.append(replace(row, configs=tuple(configs)))
    return tuple(linked)


def _start(config: RunConfig, earlier: PlannedRow) -> RunConfig:
    """Return the repeat of an earlier row to start from: on the same split, if can be, same seed.

    On another split of the same images it would have learned from what is now the test part.
    """
    data = config.data
    same = [one for one in earlier.configs if one.data.split_key == data.split_key]
    if not same and any(one.data.source == data.source for one in earlier.configs):
        what = f"{config.description}: nothing to start from on this split"
        why = f"{earlier.description} is not measured on it, so its test images are others"
        raise UsageError(what, why=why, hint="give both rows the same data")
    return min(same or earlier.configs, key=lambda one: one.method.seed != config.method.seed)


def _refuse_twins(planned: Sequence[PlannedRow]) -> None:
    seen: dict[str, str] = {}
    for row in planned:
        for key in (*(config.key for config in row.configs), row.description):
            if key in seen:
                same = "have the same description" if key == row.description else "are the same run"
                why = f"{seen[key]!r} and {row.description!r}"
                raise UsageError(f"two rows {same}", why=why, hint="change or delete one of them")
            seen[key] = row.description
