"""A plan: a table of runs in TOML, where a list means one run for each of its values."""

from __future__ import annotations

import itertools
import json
import os
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regraft.errors import RegraftError, UsageError
from regraft.experiment.config import RunConfig
from regraft.experiment.keys import refuse_unknown, refuse_wrong_kinds
from regraft.experiment.preparation import DataPlan
from regraft.experiment.recipe import (
    DATA_KEYS,
    ROW_KEYS,
    TOLD,
    Recipe,
    absolute_paths,
    described,
    refuse_wrong_values,
    short,
)
from regraft.experiment.small_size import SmallSize
from regraft.experiment.strategies import refuse_idle_options
from regraft.settings import changed_fields, from_json

_REPEATS = ("seed", "fold")  # runs that differ in nothing else belong to one row of the table
# What only lets pass what would be refused: it cuts nothing in another way.
_ALLOW = ("skip_bad", "max_bad", "allow_empty_class", "follow_links")
_LISTS = ("phases",)  # keys whose value is a list by itself


class _Top:
    """The keys of a plan, with what kind of value they have."""

    title: str
    note: str
    data: Mapping[str, Any]
    defaults: Mapping[str, Any]
    small: Mapping[str, Any]
    rows: Sequence[Any]


_TOP = tuple(_Top.__annotations__)


class _OfARow:
    """What a row may say besides the keys of a recipe, with what kind of value."""

    data: Mapping[str, Any]
    small: Mapping[str, Any]


_OF_A_ROW = tuple(_OfARow.__annotations__)


@dataclass(frozen=True)
class PlannedRow:
    """One row of the table that a plan makes.

    Args:
        description: The line that tells it from the others.
        recipes: Its runs: one, or one for each seed or fold.
        published: What its source printed.
    """

    description: str
    recipes: tuple[Recipe, ...]
    published: Mapping[str, Any]


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

    def recipes(self) -> tuple[Recipe, ...]:
        """Return the runs of all rows, in their order."""
        return tuple(recipe for row in self.rows for recipe in row.recipes)

    def only(self, names: Sequence[str]) -> Plan:
        """Return the rows with these ids or descriptions, and those that they start from.

        Raises:
            UsageError: There is no such row.
        """
        ids: dict[str, list[PlannedRow]] = {}
        for row in self.rows:
            ids.setdefault(str(row.recipes[0].row.get("id", row.description)), []).append(row)
        refuse_unknown_rows(names, ids)
        links = {recipe.link: row for row in self.rows for recipe in row.recipes}
        kept: set[str] = set()
        waiting = [row for name in names for row in ids[name]]
        while waiting:
            row = waiting.pop()
            kept.add(row.description)
            starts = {str(recipe.row.get("start", "")) for recipe in row.recipes}
            waiting += [links[start] for start in starts if start in links]
        return replace(self, rows=tuple(row for row in self.rows if row.description in kept))


def read_plan(path: str | os.PathLike[str], *, small: bool = False, data: str = "") -> Plan:
    """Read a plan: a TOML file, or the ``run.json`` of a finished run.

    Args:
        path: The file. Paths in it are relative to its folder.
        small: Whether to take the small size that the plan describes under ``[small]``.
        data: The folder of the pictures, where it is not the one that the plan names. A small
            size takes it for every row; a whole plan must be about one set of pictures then.

    Raises:
        UsageError: The file is missing or no plan, a key is unknown, or a value is impossible.
    """
    file = Path(path)
    if not file.is_file():
        raise UsageError("no such plan", path=file, hint="name a TOML file, or a run's run.json")
    try:
        text = file.read_text(encoding="utf-8")
        values = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise UsageError("the plan cannot be read", path=file, why=str(error)) from error
    if file.suffix == ".json":
        config = values.get("config") if isinstance(values, dict) else None
        if not config:
            raise UsageError("this is no plan", path=file, why="it holds no settings of a run")
        run = from_json(RunConfig, config, path=file)
        fold = {"fold": run.data.fold} if run.data.folds else {}
        values = {
            "data": {**changed_fields(run.data), **fold},
            "rows": [changed_fields(run.method)],
        }
    try:
        return plan_from(values, base=file.parent, small=small, data=data)
    except RegraftError as error:
        raise UsageError(error.what, path=file, why=error.why, hint=error.hint) from error


def plan_from(
    values: Mapping[str, Any], *, base: Path | None = None, small: bool = False, data: str = ""
) -> Plan:
    """Return the plan that plain values describe; see :func:`read_plan`.

    Args:
        values: ``title``, ``note``, ``data`` (fields of ``DataPlan``), ``defaults`` (of every row),
            ``rows``, and ``small`` (see ``SmallSize``). A row may have fields of ``data`` of its
            own, and keys for the small size.
        base: The folder that relative paths begin in; None for the current one.
        small: Whether to take the small size.
        data: See :func:`read_plan`.

    Raises:
        UsageError: A key is unknown, or a value is impossible.
    """
    refuse_unknown(values, _TOP)
    refuse_wrong_kinds(values, _Top)
    described_small = SmallSize.of(values.get("small", {}))
    changes = described_small if small else None
    folder = base or Path()
    planned: list[PlannedRow] = []
    sources: set[str] = set()
    for number, given in enumerate(_rows_of(values), start=1):
        try:
            row = _with_defaults(given, values.get("defaults", {}))
            part, own = (row.pop(key) for key in _OF_A_ROW)
            refuse_unknown(own, ROW_KEYS)
            part = {**values.get("data", {}), **part}
            if changes is not None:
                part, row = {**part, **changes.data}, changes.changed(row, own)
            part = absolute_paths(part, folder)
            sources.add(str(part.get("source", "")))
            if data:
                part["source"] = str(Path(data).absolute())
            planned += _expanded(part, row, changes, folder)
        except RegraftError as error:
            name = given.get("id") or given.get("description") or f"number {number}"
            raise UsageError(f"row {name}: {error.what}", why=error.why, hint=error.hint) from error
    if data and not small:
        _refuse_one_folder_for_several(sources)
    planned = _linked(planned)
    _refuse_twins(planned)
    notes = [str(values.get("note", "")), changes.note if changes else ""]
    return Plan(str(values.get("title", "")), tuple(planned), "; ".join(filter(None, notes)))


def refuse_unknown_rows(names: Sequence[str], known: Mapping[str, Any]) -> None:
    """Refuse names of rows that a plan has not.

    Raises:
        UsageError: Naming the rows that there are.
    """
    for name in names:
        if name not in known:
            raise UsageError(f"the plan has no row {name!r}", why=f"there are {', '.join(known)}")


def _refuse_one_folder_for_several(sources: Collection[str]) -> None:
    if len(sources) > 1:
        raise UsageError(
            "one folder (--data) cannot stand for several",
            why=f"the rows are about {', '.join(sorted(sources))}",
            hint="write the folders that you have into a copy of the plan",
        )


def _rows_of(values: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the rows of a plan; one that has none stands for a single run."""
    rows: Sequence[Any] = values.get("rows", [{}])
    if not rows:
        raise UsageError("the plan has no rows")
    for row in rows:
        if not isinstance(row, Mapping):
            raise UsageError(f"a row cannot be {row!r:.100}", why="it is a table, [[rows]] in TOML")
    return rows


def _with_defaults(row: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the defaults; its own tables replace theirs key by key."""
    for each in (defaults, row):
        refuse_wrong_kinds(each, _OfARow)
    tables = {key: {**defaults.get(key, {}), **row.get(key, {})} for key in _OF_A_ROW}
    return {**defaults, **row, **tables}


def _expanded(
    data: Mapping[str, Any], row: Mapping[str, Any], small: SmallSize | None, base: Path
) -> Iterator[PlannedRow]:
    """Yield the rows of the table that one row of the plan stands for."""
    refuse_unknown(data, DATA_KEYS)
    refuse_unknown(row, ROW_KEYS)
    varied = {key: value for key, value in row.items() if _is_list(key, value)}
    if not all(varied.values()):
        raise UsageError("an empty list stands for no run at all")
    ways = {key: values for key, values in varied.items() if key not in _REPEATS}
    for choice in itertools.product(*ways.values()):
        chosen = dict(zip(ways, choice, strict=True))
        own = {**row, **chosen}
        refuse_wrong_values({key: own[key] for key in own if key not in _REPEATS})
        own = own if small is None else small.shrunk(own)
        own["description"] = _described(row, chosen, own)
        own = absolute_paths(own, base)  # now that a list is one of its values
        yield PlannedRow(
            own["description"], tuple(_repeats(data, own)), dict(own.get("published", {}))
        )


def _repeats(data: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[Recipe]:
    """Yield one recipe for each seed, each split and each fold."""
    seeds = row["seed"] if isinstance(row.get("seed"), list) else [row.get("seed", 0)]
    splits = data["seed"] if isinstance(data.get("seed"), list) else [data.get("seed", 0)]
    if not splits:
        raise UsageError("an empty list stands for no run at all")
    refuse_wrong_kinds({key: value for key, value in data.items() if key != "seed"}, DataPlan)
    folds: Sequence[int | None] = [data.get("fold")]  # the one that is named, or all of them
    if data.get("folds") and "fold" not in data:
        folds = range(data["folds"])
    for split, fold, seed in itertools.product(splits, folds, seeds):
        part = {**data, "seed": split} | ({} if fold is None else {"fold": fold})
        recipe = Recipe(part, {**row, "seed": seed})
        refuse_idle_options(recipe.options())
        yield recipe


def _described(row: Mapping[str, Any], chosen: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    told: tuple[str, ...] = TOLD
    if row.get("description"):
        line, told = str(own["description"]), ("description",)
    else:
        line = described({key: value for key, value in own.items() if key != "description"})
    rest = [f"{key} {short(value)}" for key, value in chosen.items() if key not in told]
    return ", ".join([line, *rest])


def _linked(planned: Sequence[PlannedRow]) -> list[PlannedRow]:
    """Return rows whose ``start`` is the link to the run that it means, where it named a row.

    A row can only start from an earlier one.

    Raises:
        UsageError: The earlier row stands for several, or is not measured on the same split.
    """
    linked: list[PlannedRow] = []
    by_id: dict[str, list[PlannedRow]] = {}
    for row in planned:
        start = str(row.recipes[0].row.get("start", ""))
        if start in by_id:
            earlier, *others = by_id[start]
            if others:
                raise UsageError(
                    f"{row.description}: {start!r} to start from stands for several rows",
                    why=", ".join(one.description for one in (earlier, *others)),
                    hint="write them as rows of their own, each with its id",
                )
            recipes = [
                replace(one, row={**one.row, "start": _start(one, earlier).link})
                for one in row.recipes
            ]
            row = replace(row, recipes=tuple(recipes))  # noqa: PLW2901 - the same row, linked
        linked.append(row)
        by_id.setdefault(str(row.recipes[0].row.get("id", row.description)), []).append(row)
    return linked


def _start(recipe: Recipe, earlier: PlannedRow) -> Recipe:
    """Return the repeat of an earlier row to start from: on the same split, if can be, same seed.

    On another split of the same pictures it would have learned from what is now the test part.
    """
    same = [one for one in earlier.recipes if _split(one) == _split(recipe)]
    if not same and any(one.data["source"] == recipe.data["source"] for one in earlier.recipes):
        raise UsageError(
            f"{recipe.description}: nothing to start from on this split",
            why=f"{earlier.description} is not measured on it, so its test pictures are others",
            hint="give both rows the same data",
        )
    candidates = same or earlier.recipes
    return next((one for one in candidates if one.seed == recipe.seed), candidates[0])


def _split(recipe: Recipe) -> DataPlan:
    """Return what says which pictures there are and how they are cut."""
    return DataPlan(**{key: recipe.data[key] for key in recipe.data if key not in _ALLOW})


def _is_list(key: str, value: Any) -> bool:
    if key not in _LISTS:
        return isinstance(value, list)
    return isinstance(value, list) and bool(value) and isinstance(value[0], list)


def _refuse_twins(planned: Sequence[PlannedRow]) -> None:
    seen: dict[str, str] = {}
    lines: set[str] = set()
    for row in planned:
        for recipe in row.recipes:
            if recipe.digest in seen:
                raise UsageError(
                    "two rows are the same run",
                    why=f"{seen[recipe.digest]!r} and {row.description!r}",
                    hint="change what tells them apart, or delete one",
                )
            seen[recipe.digest] = row.description
        if row.description in lines:
            raise UsageError(
                "two rows have the same description",
                why=row.description,
                hint="give one of them a description of its own, so that a table tells them apart",
            )
        lines.add(row.description)
