"""Pictures that cannot be used: every command that goes on without them names them."""

import json

import pytest

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.spec import BackboneSpec
from regraft.data.synthetic import make_flowers

SKIP = ("--skip-bad", "--max-bad", "0.1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refusing")
    make_flowers(folder / "flowers", species=2, per_class=12, size=48)
    (folder / "flowers" / "daisy" / "empty.jpg").write_bytes(b"")
    network = build(BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),)))
    write_state(folder / "net.safetensors", network.module.state_dict())
    return folder


@pytest.fixture(scope="module")
def commands(place):
    """Return each command that can go on without bad pictures, `fit` first."""
    flowers = place / "flowers"
    arguments = ("--backbone", "simple_cnn", "--arg", "size=48")
    network = (*arguments, "--weights", place / "net.safetensors", "--engine", "torch")
    tiny = place / "plan.toml"
    tiny.write_text(
        '[data]\nsource = "flowers"\nskip_bad = true\nmax_bad = 0.1\n'
        '[[rows]]\nid = "knn"\nclassifier = "knn"\nbackbone = "simple_cnn"\nweights = "random"\n'
        'arguments = {size = 32}\nengine = "torch"\n'
    )
    return {
        "fit": ("fit", flowers, *network, "--out", place / "run", *SKIP),
        "evaluate": ("evaluate", place / "run", flowers, *SKIP),
        "compare": (
            *("compare", flowers, *network, "--budget", "1s"),
            *("--out", place / "compared", *SKIP),
        ),
        "run": ("run", tiny, "--out", place / "planned"),
    }


@pytest.fixture(scope="module")
def told(regraft, commands):
    """Return what each command said, the second time where a second time is allowed."""
    return {name: regraft(*command) for name, command in commands.items()}


@pytest.mark.parametrize("name", ["fit", "evaluate", "compare", "run"])
def test_what_skip_bad_leaves_out_is_named_and_ends_with_3(told, name):
    said = told[name].stdout + told[name].stderr

    assert told[name].return_value == 3
    assert "daisy/empty.jpg" in said
    assert "skip_bad leaves them out" not in said


@pytest.mark.parametrize("name", ["evaluate", "compare", "run"])
def test_machines_are_told_what_was_left_out(regraft, told, commands, name):
    result = regraft(*commands[name], "--json")

    assert result.return_value == 3
    assert "daisy/empty.jpg" in json.dumps(json.loads(result.stdout))
