"""Options as help and errors speak of them: what is promised or recommended is there."""

import json
import re

import pytest
from typer.testing import CliRunner

from regraft.cli.app import app
from regraft.data.synthetic import make_flowers
from regraft.errors import ImageError

NETWORK = ("--backbone", "efficientnet_lite0")
COMMANDS = {
    "data check": (),
    "data split": ("--out", "{out}/split"),
    "data preview": ("--out", "{out}/sheet.png"),
    "backbones rank": (*NETWORK, "--folds", "2"),
    "extract": (*NETWORK, "--out", "{out}/features.h5"),
    "find-lr": NETWORK,
    "fit": (*NETWORK, "--out", "{out}/run"),
    "compare": (*NETWORK, "--out", "{out}/compared"),
}


def regraft(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return folders that something is wrong with, and the options that bring it to light."""
    place = tmp_path_factory.mktemp("folders")
    for name in ("bad", "empty", "link"):
        make_flowers(place / name, species=2, per_class=8, size=16)
    (place / "bad" / "daisy" / "empty.jpg").write_bytes(b"")
    (place / "empty" / "rose").mkdir()
    picture = next((place / "bad" / "daisy").iterdir())
    (place / "link" / "daisy" / "link.png").symlink_to(picture)
    for number, path in enumerate(sorted((place / "bad").glob("*/*.*"))):
        part = place / "parts" / ("test" if number % 3 == 0 else "train") / path.parent.name
        part.mkdir(parents=True, exist_ok=True)
        if path.stat().st_size:
            (part / f"person{number // 2}_{path.name}").write_bytes(path.read_bytes())
    groups = ("--group-by", "person[0-9]+")
    return {
        "a bad picture": (place / "bad", (), "--skip-bad"),
        "an empty class": (place / "empty", (), "--allow-empty-class"),
        "a link that leads out": (place / "link", (), "--follow-links"),
        "parts that share a group": (place / "parts", groups, "--keep-parts"),
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_that_an_error_recommends_exists_in_that_command(command, folders, tmp_path):
    shown = regraft(*command.split(), "--help").stdout
    for case, (folder, options, remedy) in folders.items():
        if options and options[0] not in shown:
            continue
        more = [text.format(out=tmp_path) for text in COMMANDS[command]]

        result = regraft(*command.split(), folder, *options, *more)

        recommended = re.findall(r"\((--[a-z-]+)", str(result.exception))
        assert all(option in shown for option in recommended), (case, recommended)
        if result.exception is None or isinstance(result.exception, ImageError):
            continue  # what stops no command needs no remedy, and a picture's error has its own
        assert remedy in recommended, (case, str(result.exception))


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("weights", "list"), "weights"),
        (("weights", "verify"), "verified"),
        (("data", "fetch"), "data_sets"),
        (("backbones", "list"), "rows"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_json_is_one_object_wherever_the_help_says_so(command, key):
    result = regraft(*command, "--json")

    assert "Print one JSON object" in regraft(*command, "--help").stdout
    assert key in json.loads(result.stdout)


def test_fetched_weights_are_one_object_too(monkeypatch):
    class Stored:
        def to_json(self):
            return {"name": "a_net"}

    fetched = "regraft.backbones.sources.fetch_weights"
    monkeypatch.setattr(fetched, lambda *_arguments, **_options: Stored())

    result = regraft("weights", "fetch", "a_net", "--json")

    assert json.loads(result.stdout) == {"weights": [{"name": "a_net"}]}
