"""`regraft backbones rank`: tables on standard output, one object with --json."""

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from regraft.backbones.backbone import build
from regraft.backbones.sources import save_module
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.cli.app import app
from regraft.data.synthetic import make_flowers
from regraft.errors import UsageError


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return make_flowers(tmp_path_factory.mktemp("flowers"), species=2, per_class=12, size=48)


@pytest.fixture(autouse=True)
def two_networks(private_home):
    for seed, name in enumerate(("first_net", "second_net")):
        spec = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),), seed=seed)
        save_module(
            build(spec).module,
            name=name,
            backbone="simple_cnn",
            preprocessing=Preprocessing.tf(32, mode="squash", resize=48),
            source="a test",
        )


def rank(flowers, *arguments):
    command = ("backbones", "rank", flowers.root, "--engine", "torch", "--folds", 2, *arguments)
    named = ("--backbone", "first_net", "--backbone", "second_net")
    result = CliRunner().invoke(app, [str(a) for a in (*command, *named)], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_the_table_names_networks_and_what_they_cost(flowers):
    shown = rank(flowers)

    head, first, second = shown.splitlines()[:3]
    assert "linear probe (n = 18)" in head
    assert {first.split()[0], second.split()[0]} == {"first_net", "second_net"}
    assert "the test part was not looked at" in shown
    assert "pixels" not in head


def test_the_ablation_follows_as_a_table_of_its_own(flowers):
    ranking, ablation = rank(flowers, "--ablate-preprocessing").split("\n\nbackbone ")

    assert "0 to 255, not scaled" not in ranking
    assert ablation.count("0 to 255, not scaled") == 2


def test_json_is_one_object_and_a_second_call_embeds_nothing(flowers):
    first = json.loads(rank(flowers, "--json", "--ablate-preprocessing"))
    second = json.loads(rank(flowers, "--json", "--ablate-preprocessing"))

    assert {"rows", "ablation", "left_out", "seconds"} <= set(first)
    assert [row["images_embedded"] for row in first["rows"]] == [18, 18]
    assert [row["images_embedded"] for row in second["rows"]] == [0, 0]
    assert {row["images_embedded"] for row in second["ablation"]} == {0}


def test_other_formats_hold_the_same_rows(flowers):
    rows = list(csv.DictReader(io.StringIO(rank(flowers, "--format", "csv"))))

    assert {row["backbone"] for row in rows} == {"first_net", "second_net"}
    assert {row["linear probe n"] for row in rows} == {"18"}
    assert rank(flowers, "--format", "markdown").startswith("| backbone | linear probe")


def test_a_budget_is_read_as_a_time_and_what_it_forbids_is_said(flowers):
    shown = json.loads(rank(flowers, "--budget", "0.001s", "--json"))

    assert len(shown["rows"]) == 1
    assert "budget" in shown["left_out"][0]["why"]
    with pytest.raises(UsageError, match="write --budget 10m"):
        rank(flowers, "--budget", "soon")


def test_parts_that_share_a_group_are_refused_or_kept_as_in_every_command(flowers, tmp_path):
    for path, name in zip(flowers.paths, flowers.labels, strict=True):
        number = int(path.stem[-2:]) % 12
        place = tmp_path / "parts" / ("test" if number % 4 == 0 else "train") / name
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}_person{number // 2}_{number}.jpg").write_bytes(path.read_bytes())
    arguments = ("backbones", "rank", tmp_path / "parts", "--group-by", "person[0-9]+")
    more = ("--engine", "torch", "--folds", 2, "--backbone", "first_net")

    def ranked(*last):
        command = [str(a) for a in (*arguments, *more, *last)]
        return CliRunner().invoke(app, command, standalone_mode=False)

    refused, kept = ranked(), ranked("--keep-parts")

    assert refused.exception.code == "SPLIT-GROUPS"
    assert "linear probe" in kept.stdout


def test_what_skip_bad_leaves_out_is_named_and_ends_with_3(tmp_path):
    make_flowers(tmp_path, species=2, per_class=12, size=48)
    (tmp_path / "daisy" / "empty.jpg").write_bytes(b"")
    skip = ("--skip-bad", "--max-bad", "0.1", "--backbone", "first_net")
    command = ("backbones", "rank", tmp_path, "--engine", "torch", "--folds", 2, *skip)

    text, machine = (
        CliRunner().invoke(app, [str(a) for a in (*command, *more)], standalone_mode=False)
        for more in ((), ("--json",))
    )

    assert text.return_value == machine.return_value == 3
    assert "refused: file is empty" in text.stderr
    assert "daisy/empty.jpg" in text.stderr
    (bad,) = json.loads(machine.stdout)["bad_files"]
    assert bad["error"] == "IMG-EMPTY"
    assert bad["file"].endswith("daisy/empty.jpg")
