"""`backbones list | show | rank` and `weights`: tables for people, one object for machines."""

import json
import re

import pytest
from typer.testing import CliRunner

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.sources import import_weights
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.cli.app import app
from regraft.errors import RegraftError, UsageError, WeightsError


@pytest.fixture
def two_networks(private_home):
    for seed, name in enumerate(("first_net", "second_net")):
        spec = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),), seed=seed)
        write_state(private_home / "net.safetensors", build(spec).module.state_dict())
        import_weights(
            private_home / "net.safetensors",
            name=name,
            backbone="simple_cnn",
            arguments={"size": 48},
            preprocessing=Preprocessing.tf(48, mode="squash", resize=48),
        )


@pytest.fixture
def rank(regraft, place, two_networks):
    """Return a function that ranks two networks on the flowers, and returns what it prints."""

    def call(*arguments):
        named = ("--backbone", "first_net", "--backbone", "second_net")
        command = ("backbones", "rank", place.flowers, "--engine", "torch", "--folds", 2, *named)
        return regraft(*command, *arguments).stdout

    return call


def test_the_table_names_networks_and_what_they_cost(rank):
    shown = rank()

    head, first, second = shown.splitlines()[:3]
    assert "linear probe (n = 18)" in head
    assert {first.split()[0], second.split()[0]} == {"first_net", "second_net"}
    assert "the test part was not looked at" in shown


def test_json_is_one_object_and_a_second_call_embeds_nothing(rank):
    first, second = (json.loads(rank("--json"))["rows"] for _ in range(2))

    assert [row["linear probe"]["n"] for row in first] == [18, 18]
    assert all(row["ms"] > 0 for row in first)
    assert [row["ms"] for row in second] == [None, None]


def test_a_budget_is_read_as_a_time_and_what_it_forbids_is_said(rank):
    with pytest.raises(UsageError, match="the least that can be done"):
        rank("--budget", "0.001s")
    with pytest.raises(UsageError, match="write --budget 10m"):
        rank("--budget", "soon")


def test_what_skip_bad_leaves_out_of_a_ranking_is_named_and_ends_with_3(
    regraft, place, two_networks
):
    skip = ("--skip-bad", "--max-bad", "0.1", "--backbone", "first_net")
    command = ("backbones", "rank", place.bad, "--engine", "torch", "--folds", 2, *skip)

    text, machine = (regraft(*command, *more) for more in ((), ("--json",)))

    assert text.return_value == machine.return_value == 3
    assert "refused: file is empty" in text.stderr
    assert "daisy/empty.jpg" in text.stderr
    (bad,) = json.loads(machine.stdout)["bad_files"]
    assert bad["error"] == "IMG-EMPTY"
    assert bad["file"].endswith("daisy/empty.jpg")


@pytest.mark.parametrize(
    ("more", "layers", "parameters", "trainable"),
    [
        ("", 12, 231_168, 231_168),
        ("--top", 13, 231_813, 231_813),
        ("--classes 5", 14, 231_813, 645),
        ("--classes 5 --unfreeze 0.25", 14, 231_813, 147_584 + 645),
    ],
)
def test_show_totals_what_it_lists(regraft, more, layers, parameters, trainable):
    command = ("backbones", "show", "simple_cnn", "--arg", "size=48", *more.split())

    text = regraft(*command).stdout
    told = json.loads(regraft(*command, "--json").stdout)

    total = {"layers": layers, "parameters": parameters, "trainable": trainable}
    assert {name: told["total"][name] for name in total} == total
    assert len(told["layers"]) == layers
    assert sum(layer["parameters"] for layer in told["layers"]) == parameters
    assert sum(layer["trainable"] for layer in told["layers"]) == trainable
    assert f"{parameters:,} parameters, {trainable:,} trainable" in text
    assert "46 × 46 × 16" in text  # height, width and depth, as papers have it
    assert told["preprocessing"]["size"] == 48


def test_show_lists_a_module_of_many_layers_as_one(regraft):
    command = ("backbones", "show", "googlenet", "--json")

    told = json.loads(regraft(*command).stdout)

    shapes = {layer["name"]: layer["output_shape"] for layer in told["layers"]}
    assert shapes["inception3a"] == [256, 28, 28]
    assert len(shapes) == 16
    assert (
        told["total"]["layers"]
        == 127
        == len(json.loads(regraft(*command, "--layers").stdout)["layers"])
    )
    assert sum(layer["parameters"] for layer in told["layers"]) == told["total"]["parameters"]


def test_show_asks_how_large_the_new_head_is(regraft):
    with pytest.raises(UsageError, match="--classes NUMBER"):
        regraft("backbones", "show", "simple_cnn", "--head", "mlp_256")


@pytest.fixture
def weights(tmp_path):
    from safetensors.torch import save_file

    network = build(BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),)))
    save_file(network.module.state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_weights_are_imported_under_a_name_and_used_by_it(regraft, weights):
    name = ("--name", "my_net", "--backbone", "simple_cnn", "--arg", "size=48")
    command = ("weights", "import", weights, *name, "--preprocessing", "mean=0.4,0.5,0.6")
    imported = json.loads(regraft(*command, "--json").stdout)
    shown = json.loads(regraft("backbones", "show", "my_net", "--json").stdout)
    verified = regraft("weights", "verify", "my_net")
    listed = regraft("weights", "list").stdout

    assert imported["preprocessing"]["mean"] == [0.4, 0.5, 0.6]
    assert shown["preprocessing"]["mean"] == [0.4, 0.5, 0.6]
    assert (verified.return_value, verified.stdout) == (0, "my_net\tok\n")
    assert "my_net" in listed
    with pytest.raises(WeightsError):
        regraft(*command)
    assert "use it with --backbone my_net" in regraft(*command, "--overwrite").stderr


@pytest.mark.parametrize("setting", ["mean=a", "mean=0.1,0.2", "maen=0.5,0.5,0.5", "mean"])
def test_what_is_no_preprocessing_is_refused(regraft, weights, setting):
    name = ("--name", "my_net", "--backbone", "simple_cnn")
    with pytest.raises(RegraftError, match=r"mean|KEY=VALUE"):
        regraft("weights", "import", weights, *name, "--preprocessing", setting)


def test_damaged_weights_end_with_1(regraft, weights, private_home):
    name = ("--name", "my_net", "--backbone", "simple_cnn", "--arg", "size=48")
    regraft("weights", "import", weights, *name)
    folder = regraft("weights", "path").stdout.strip()
    (stored,) = [path for path in private_home.rglob("*.safetensors") if "my_net" in str(path)]
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")

    result = regraft("weights", "verify")

    assert str(stored).startswith(folder)
    assert result.return_value == 1
    assert result.stdout.startswith("my_net\t")
    assert not result.stdout.endswith("ok\n")


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("weights list", "weights"),
        ("data fetch", "data_sets"),
        ("backbones list", "networks"),
    ],
)
def test_json_is_one_object_wherever_the_help_says_so(regraft, command, key):
    result = regraft(*command.split(), "--json")

    assert "Print one JSON object" in " ".join(regraft(*command.split(), "--help").stdout.split())
    assert key in json.loads(result.stdout)


def test_networks_and_their_ranking_are_drawn_on_pages(regraft, rank, tmp_path):
    regraft("backbones", "list", "--out", tmp_path / "list.html")
    rank("--out", tmp_path / "rank.html")

    listed, ranked = ((tmp_path / f"{name}.html").read_text() for name in ("list", "rank"))
    assert "efficientnet_lite0: 74.8 %" in listed  # in the words of the figure
    assert ">ImageNet top-1</th>" in listed
    assert '<a href="#section-2">Ranking</a>' in ranked
    assert "first_net: " in ranked
    assert "accuracy of the linear probe" in ranked


REMEDIES = {
    "bad": "--skip-bad",
    "empty": "--allow-empty-class",
    "link": "--follow-links",
    "parts": "--keep-parts",
}
COMMANDS = {
    "data check": (),
    "data split": ("--out", "{out}/split"),
    "data preview": ("--out", "{out}/sheet.png"),
    "backbones rank": ("--backbone", "first_net", "--folds", "2"),
    "extract": ("--out", "{out}/features.h5", "--backbone", "first_net"),
    "find-lr": ("--backbone", "first_net"),
    "fit": ("--backbone", "first_net", "--out", "{out}/run"),
    "compare": ("--backbone", "first_net", "--out", "{out}/compared", "--methods", "features"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", REMEDIES)
def test_every_option_that_an_error_recommends_exists_in_that_command(
    regraft, command, case, place, two_networks, tmp_path
):
    shown = regraft(*command.split(), "--help").stdout
    folder = tmp_path / "data"
    if case in {"bad", "parts"}:
        folder = getattr(place, case)
    else:
        for path in place.flowers.glob("*/*"):
            (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
            (folder / path.parent.name / path.name).write_bytes(path.read_bytes())
        (folder / "rose").mkdir()
        if case == "link":
            (folder / "rose" / "link.png").symlink_to(place.image)
    options = ("--group-by", "person[0-9]+") if case == "parts" and "--group-by" in shown else ()
    more = [text.format(out=tmp_path) for text in COMMANDS[command]]

    result = CliRunner().invoke(app, [str(a) for a in (*command.split(), folder, *options, *more)])

    error = result.exception
    if isinstance(error, RegraftError):
        recommended = re.findall(r"\((--[a-z-]+)", str(error))
        assert all(option in shown for option in recommended)
        assert error.code.startswith("IMG") or REMEDIES[case] in recommended, str(error)
    else:
        assert isinstance(error, SystemExit | None)
