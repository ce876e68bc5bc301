"""The whole ladder on one folder of pictures, as far up as a time budget allows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from regraft.errors import RunError
from regraft.experiment.campaign import Campaign, Outcome, Say
from regraft.experiment.cautions import cautions_of_comparison
from regraft.experiment.costs import Costs, measure_costs
from regraft.experiment.ladder import (
    BASELINE,
    Choice,
    Rung,
    choose,
    ordered,
    rungs,
    with_second_chances,
)
from regraft.experiment.plan import Plan, plan_from
from regraft.files import make_folder, read_json, write_json
from regraft.report.tables import Duration
from regraft.results.comparison import Comparison, Row

STATE = "compare.json"
FORMAT, VERSION = "regraft-compare", 1
_CHEAP = 0.05  # of the budget: what a way may take to come before the baseline from scratch


@dataclass(frozen=True)
class Asked:
    """What shall be compared.

    Args:
        data: Fields of ``DataPlan``: the pictures and their split.
        backbones: The keys of a plan's row that name each network.
        seeds: How many seeds each way is run with, on the same split.
        splits: How many different splits each way is run on.
        folds: How many folds the pictures are cut into, each the test part once; None for one cut.
        per_class: Numbers of pictures per class to learn from, besides all of them.
        budget: Seconds for everything; None for as many as it takes.
        options: Keys of a plan's row that every way has, such as ``device``.

    Example:
        >>> Asked({"source": "flowers"}, [{"backbone": "vgg16"}], seeds=3).title
        'Ways to learn flowers'
    """

    data: Mapping[str, Any]
    backbones: Sequence[Mapping[str, Any]]
    seeds: int = 1
    splits: int = 1
    folds: int | None = None
    per_class: Sequence[int] = ()
    budget: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What the table is called."""
        return f"Ways to learn {Path(self.data['source']).name}"

    @property
    def whole_data(self) -> dict[str, Any]:
        """The data part of the plan, with every split or fold."""
        first = int(self.data.get("seed", 0))
        several = {"seed": [first + i for i in range(self.splits)]} if self.splits > 1 else {}
        folds = {"folds": self.folds} if self.folds else {}
        return {**self.data, **several, **folds}

    @property
    def repeats(self) -> int:
        """On how many splits each seed is run."""
        return self.splits * (self.folds or 1)

    def plan(self, rows: Sequence[Mapping[str, Any]]) -> Plan:
        """Return rows as a plan."""
        return plan_from({"title": self.title, "data": self.whole_data, "rows": list(rows)})


@dataclass
class _State:
    """What was decided so far; on disk after each decision."""

    file: Path
    asked: Asked
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # why, by the description of the way
    complete: bool = False
    begun: float = field(default_factory=time.perf_counter)

    @property
    def spent(self) -> float:
        """Seconds of the budget that are gone, those before a kill among them."""
        return time.perf_counter() - self.begun

    @classmethod
    def read(cls, folder: Path, asked: Asked) -> _State:
        file = folder / STATE
        state = cls(file, asked)
        if not file.is_file():
            return state
        told = read_json(file)
        if told.get("format") != FORMAT or told.get("version") != VERSION:
            raise RunError("this is no comparison", path=file, hint="choose another --out")
        before, now = told["asked"], _plain(asked)
        if {**before, "budget": None} != {**now, "budget": None}:
            differing = [key for key in now if now[key] != before.get(key) and key != "budget"]
            raise RunError(
                "another comparison stands here",
                path=folder,
                why=f"it was asked for with another {', '.join(differing)}",
                hint="choose another folder with out (--out)",
                code="RUN-EXISTS",
            )
        state.rows, state.notes = list(told["plan"]["rows"]), dict(told["notes"])
        # After a kill, and with another budget, what was left out gets another chance.
        if before == now and told["complete"]:
            state.left_out, state.complete = {why: why for why in told["left_out"]}, True
        elif before == now:
            state.begun -= float(told["spent"])
        if _seconds(asked.budget) > _seconds(before["budget"]):  # what was shortened, too
            state.rows = [row for row in state.rows if Rung(row).description not in state.notes]
            state.notes = {}
        return state

    def write(self) -> None:
        plan = {"title": self.asked.title, "data": self.asked.whole_data, "rows": self.rows}
        head = {"format": FORMAT, "version": VERSION, "asked": _plain(self.asked), "plan": plan}
        rest = {
            "notes": self.notes,
            "left_out": [*self.left_out.values()],
            "complete": self.complete,
        }
        write_json(self.file, head | rest | {"spent": round(self.spent, 1)})


def compare(
    asked: Asked,
    folder: Path,
    *,
    command: str = "",
    verbose: bool = False,
    say: Say = lambda _line: None,
) -> Comparison:
    """Run the ladder as far as the budget allows, and return what came out.

    The same call again does nothing but read; after a kill it goes on; with a larger budget it
    climbs on from where it was, and what was shortened for the smaller one is run anew.

    Args:
        asked: What shall be compared.
        folder: Where runs and decisions stand.
        command: How to repeat it.
        verbose: Whether the runs show their progress on standard error.
        say: Gets a line before each run, and the estimate before all of them.

    Raises:
        DataError: The pictures cannot be used.
        RunError: Another comparison stands in the folder (``RUN-EXISTS``), or the pictures are not
            those of its runs any more (``RUN-DATA-CHANGED``).
        RegraftError: A network cannot be had.
    """
    state = _State.read(folder, asked)
    campaign = Campaign(folder, command=command, verbose=verbose)
    if state.complete:
        say("everything was run before")
        outcome = campaign.run(asked.plan(state.rows))
    else:
        make_folder(folder)
        outcome = _Climb(asked, state, campaign, say).climb()
    places = {rung.description: i for i, rung in enumerate(_ladder(asked))}
    rows = sorted(outcome.rows, key=lambda row: places.get(row.description, len(places)))
    shortened = [
        f"{name}: {note} - the budget allows no more" for name, note in state.notes.items()
    ]
    return Comparison.of(
        rows,
        title=asked.title,
        left_out=(*shortened, *state.left_out.values()),
        failures=outcome.failures,
        warnings=tuple(cautions_of_comparison([(row.description, row.runs) for row in rows])),
        command=command,
    )


@dataclass
class _Climb:
    """One climb up the ladder."""

    asked: Asked
    state: _State
    campaign: Campaign
    say: Say

    @property
    def _cheap(self) -> float:
        """Seconds up to which one run is cheap: a twentieth of the budget for all its repeats."""
        budget = _seconds(self.asked.budget)
        return _CHEAP * budget / (self.asked.seeds * self.asked.repeats)

    def climb(self) -> Outcome:
        costs = self._costs()
        ladder = ordered(_ladder(self.asked), costs, cheap=self._cheap)
        self._forecast(ladder, costs)
        rows: list[Row] = []
        failures: list[str] = []
        fitted, has_baseline = 0, False
        known = {Rung(row).description: row for row in self.state.rows}
        for rung in with_second_chances(ladder, self.state.left_out):
            row = known.get(rung.description) or self._decided(rung, costs, has_baseline)
            has_baseline |= rung.is_baseline
            if row is None:
                continue
            place = f"way {ladder.index(rung) + 1} of {len(ladder)}"
            self.say(f"{place}: {rung.description}{self._left()}")
            outcome = self.campaign.run(self.asked.plan([row]))
            rows += outcome.rows
            failures += outcome.failures
            fitted += outcome.fitted
            for failure in outcome.failures:
                self.say(f"failed: {failure}")
            for found in outcome.rows[: outcome.fitted]:
                costs.learn(row, found.seconds)
        self.state.complete = not failures
        self.state.write()
        return Outcome(tuple(rows), tuple(failures), fitted)

    def _choice(self, rung: Rung, costs: Costs, spent: float, has_baseline: bool) -> Choice:
        """Return what the budget allows of a rung; a share of it is kept for the baseline."""
        budget = self.asked.budget
        left = _seconds(budget) - spent
        if budget is not None and not has_baseline and not rung.essential:
            left -= BASELINE * budget
        return choose(
            rung,
            costs,
            seeds=range(self.asked.seeds),
            repeats=self.asked.repeats,
            left=left,
            budget=_seconds(budget),
        )

    def _decided(self, rung: Rung, costs: Costs, has_baseline: bool) -> Mapping[str, Any] | None:
        choice = self._choice(rung, costs, self.state.spent, has_baseline)
        if choice.row is None:
            shortened = " even with a quarter of its epochs" if "epochs" in rung.row else ""
            why = f"{rung.description}: about {Duration(choice.estimate)}{shortened}"
            self.state.left_out[rung.description] = why
            self.state.write()
            return None
        self.state.left_out.pop(rung.description, None)
        self.state.rows.append(dict(choice.row))
        if choice.note:
            self.state.notes[rung.description] = choice.note
        self.state.write()
        return choice.row

    def _left(self) -> str:
        if self.asked.budget is None:
            return ""
        left = self.asked.budget - self.state.spent
        return f"; {Duration(max(0.0, left))} of the budget left"

    def _costs(self) -> Costs:
        recipe = self.asked.plan([{**self.asked.backbones[0]}]).recipes()[0]
        split = self.campaign.prepared(recipe).split
        self.say("a few pictures through each network, to see how long they take")
        return measure_costs(
            self.asked.backbones,
            paths=split.train.paths,
            pictures=sum(len(part) for part in split.parts().values()),
            learned=len(split.train),
            classes=len(split.classes),
        )

    def _forecast(self, ladder: Sequence[Rung], costs: Costs) -> None:
        """Say what is likely to be run, before anything is."""
        estimates = replace(costs, _embedded=set())
        spent, has_baseline = self.state.spent, False
        out: dict[str, None] = {}
        for rung in with_second_chances(ladder, out):
            choice = self._choice(rung, estimates, spent, has_baseline)
            has_baseline |= rung.is_baseline
            if choice.row is None:
                out[rung.description] = None
                continue
            out.pop(rung.description, None)
            spent += choice.estimate
            estimates._embedded.add(str(rung.row.get("backbone")))  # noqa: SLF001 - a copy of ours
        limit = "" if self.asked.budget is None else f" of {Duration(self.asked.budget)}"
        ways = f"{len(ladder) - len(out)} ways, {self.asked.seeds * self.asked.repeats} runs each"
        self.say(f"estimate: {ways}, about {Duration(spent)}{limit}")
        if out:
            self.say(f"probably left out: {'; '.join(out)}")


def _ladder(asked: Asked) -> list[Rung]:
    ladder = rungs(asked.backbones, per_class=asked.per_class)
    return [replace(rung, row={**rung.row, **_fitting(asked.options, rung)}) for rung in ladder]


def _fitting(options: Mapping[str, Any], rung: Rung) -> dict[str, Any]:
    """Return the options that a way has: classifiers on features have no device."""
    shallow = rung.row.get("strategy", "features") == "features"
    return {key: value for key, value in options.items() if not (shallow and key == "device")}


def _seconds(budget: float | None) -> float:
    return float("inf") if budget is None else budget


def _plain(asked: Asked) -> dict[str, Any]:
    told = asdict(asked)
    return {**told, "per_class": list(asked.per_class), "backbones": list(told["backbones"])}
