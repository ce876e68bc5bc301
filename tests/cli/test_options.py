"""Options that are made from the fields of settings classes."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Literal

import pytest
import typer
from pydantic import BeforeValidator, Field
from typer.testing import CliRunner

from regraft.cli import options
from regraft.cli.options import Fields, add_commands, read_pairs
from regraft.errors import UsageError
from regraft.results.comparison import Comparison
from regraft.settings import AnyPath, settings_class, to_json


@settings_class()
class Soil:
    """What it grows in.

    Args:
        source: Where it is dug.
        depth: How deep.
        kind: Which kind.
        wet: Whether it is watered.
        seed: Seed of the weather.
        arguments: What else is told.
        note: Nobody can give it.
    """

    source: AnyPath
    depth: Annotated[float, Field(ge=0, le=1)] = 0.5
    kind: Literal["clay", "sand"] | None = None
    wet: bool = True
    seed: Annotated[int, Field(ge=0)] = 0
    arguments: dict[str, int | str] | None = None
    note: str = "unseen"


@settings_class(kw_only=True)
class Plant:
    """What grows.

    Args:
        backbone: The stem.
        start_day: When it begins.
        minutes: How long; 2m.
        strategy: How.
        seed: Its own seed.
    """

    backbone: str = "oak"
    start_day: Path | None = None
    minutes: Annotated[float, BeforeValidator(lambda t: float(str(t).rstrip("m")))] | None = None
    strategy: str = "wait"
    seed: int = 0


PANELS = {
    "Ground": ("depth", "kind", "wet", "seed", "arguments"),
    "Growth": ("backbone", "start_day", "minutes", "strategy"),
}


def grow(soil: Soil, plant: Plant, *, loud: bool = False):
    """Let it grow.

    For long.
    """
    print(json.dumps([to_json(soil), to_json(plant), loud]))


def dig(
    tools: Annotated[list[str], typer.Argument(help="What with.")],
    soil: Annotated[Soil, Fields("source depth seed")],
    plant: Annotated[Plant, Fields(without="backbone minutes", own="strategy")],
    *,
    strategy: Literal["wait", "pull"] = "pull",
):
    """Dig it up."""
    print(json.dumps([tools, to_json(soil), to_json(plant), strategy]))


def sow(
    soil: Annotated[Soil, Fields("source")],
    seeds: Annotated[str, typer.Argument(help="What is sown.")],
    plant: Annotated[Plant, Fields("strategy")],
):
    """Sow it."""
    print(json.dumps([to_json(soil)["source"], seeds, plant.strategy]))


@pytest.fixture
def call(monkeypatch):
    """Return a function that calls a command of these settings."""
    monkeypatch.setattr(options, "SETTINGS", "garden")
    monkeypatch.setitem(
        sys.modules, "garden", SimpleNamespace(PANELS=PANELS, DEFAULT_BACKBONE="oak")
    )
    garden = typer.Typer(rich_markup_mode=None)
    add_commands(garden, {"grow": grow, "dig": dig, "sow": sow})

    def called(*arguments):
        result = CliRunner().invoke(garden, list(arguments), standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return result

    return called


def test_a_command_gets_one_value_of_each_class(call):
    soil, plant, loud = json.loads(call("grow", "here", "--seed", "7").stdout)

    assert (soil["source"], soil["depth"], soil["kind"]) == ("here", 0.5, None)
    assert (plant["backbone"], plant["minutes"], loud) == ("oak", None, False)
    assert soil["seed"] == plant["seed"] == 7  # one option for both


def test_arguments_stand_in_the_order_in_which_the_command_has_them(call):
    told = json.loads(call("sow", "there", "peas", "--strategy", "pull").stdout)

    assert told == ["there", "peas", "pull"]


def test_options_have_the_names_and_types_of_the_fields(call):
    more = ["--depth", "0.25", "--kind", "sand", "--no-wet", "--loud"]
    more += ["--arg", "a=1", "--arg", "b=x=y", "--start-day", "d", "--minutes", "2m"]

    soil, plant, loud = json.loads(call("grow", "here", *more).stdout)

    assert (soil["depth"], soil["kind"], soil["wet"]) == (0.25, "sand", False)
    assert soil["arguments"] == {"a": 1, "b": "x=y"}
    assert (plant["start_day"], plant["minutes"], loud) == ("d", 2.0, True)


def test_a_command_takes_some_fields_and_has_options_of_its_own_for_others(call):
    tools, soil, plant, strategy = json.loads(call("dig", "spade", "here", "--depth", "1").stdout)

    assert (tools, soil["source"], soil["depth"]) == (["spade"], "here", 1.0)
    assert plant["strategy"] == strategy == "pull"
    for option in ("--kind", "--backbone", "--minutes"):
        with pytest.raises(typer.TyperException, match="No such option"):
            call("dig", "spade", "here", option, "sand")


def test_which_network_is_used_is_said_only_where_none_was_named(call):
    assert "no --backbone named: oak is used" in call("grow", "here").stderr
    assert not call("grow", "here", "--backbone", "oak").stderr
    assert not call("dig", "spade", "here").stderr


def test_the_help_has_a_list_for_each_heading_with_ranges_and_defaults(call):
    told = call("grow", "--help").stdout
    places = [told.index(f"{head}:\n") for head in ("Arguments", "Ground", "Growth", "Options")]
    words = " ".join(told.split())

    assert places == sorted(places)
    assert "How deep. [default: 0.5; 0<=x<=1]" in words
    assert "The stem. [default: (oak)]" in words
    assert "--wet / --no-wet Whether it is watered." in words
    assert "--arg KEY=VALUE What else is told." in words
    assert "unseen" not in told
    assert told.index("--depth") < told.index("--kind") < told.index("--seed")
    assert told.index("--loud") > places[3]


def test_the_list_of_commands_needs_no_settings(call, monkeypatch):
    monkeypatch.setattr(options, "SETTINGS", "no.such.module")

    told = call("--help").stdout

    assert "Let it grow." in told
    assert "For long" not in told


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--depth", "2"), "less than or equal to 1"),
        (("--kind", "mud"), "clay"),
        (("--minutes", "soon"), "soon"),
        (("--arg", "nothing"), "KEY=VALUE"),
        (("--arg", "=1"), "KEY=VALUE"),
    ],
)
def test_a_wrong_value_is_refused(call, more, said):
    with pytest.raises((UsageError, typer.TyperException, ValueError), match=said):
        call("grow", "here", *more)


def test_pairs_are_read_as_numbers_truth_values_and_lists():
    read = read_pairs(["a=1", "b=0.5", "c=true", "d=same", "e=", "f=0.5,1,x"])

    assert read == {"a": 1, "b": 0.5, "c": True, "d": "same", "e": "", "f": [0.5, 1, "x"]}


@pytest.mark.parametrize(("failures", "code"), [((), 0), (("a: full disk",), 1)])
def test_a_comparison_in_which_something_failed_ends_with_an_error(failures, code, capsys):
    comparison = Comparison("nothing", (), failures=failures)

    assert options.echo_comparison(comparison, None, form="text", as_json=True) == code
    assert json.loads(capsys.readouterr().out)["failures"] == [*failures]


def test_every_command_is_explained_without_torch():
    code = (
        "import sys; from regraft.cli.app import app\n"
        "for command in (['fit'], ['compare'], ['find-lr'], ['data', 'split'], ['weights']):\n"
        "    try: app([*command, '--help'], standalone_mode=False)\n"
        "    except SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch'"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "rising learning rate" in shown.stdout
