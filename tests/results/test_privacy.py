import numpy as np
import pytest

from regraft.results.run import without_secrets


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "x" * 34,
        "ghp_" + "x" * 36,
        "github_pat_" + "x" * 40,
        "sk-" + "x" * 40,
        "--token=swordfish",
        "https://ada:swordfish@example.org",
    ],
)
def test_tokens_are_removed_wherever_they_stand(secret):
    cleaned = without_secrets({"a": [f"before {secret} after"]})["a"][0]

    assert "[removed]" in cleaned
    assert "swordfish" not in cleaned
    assert "xxxx" not in cleaned
    assert cleaned.startswith("before ")
    assert cleaned.endswith(" after")


def test_only_the_home_folder_itself_is_shortened(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")

    cleaned = without_secrets(["/home/ada/x", "/home/adam/x", "/home/ada"])

    assert cleaned == ["~/x", "/home/adam/x", "~"]


@pytest.mark.parametrize("path", ["/gpfs/home/ada/x", "/mnt/../home/ada", "~/home/ada"])
def test_a_path_that_only_contains_the_home_folder_stays(monkeypatch, path):
    monkeypatch.setenv("HOME", "/home/ada")

    assert without_secrets(path) == path
    assert without_secrets(f"--data=/home/ada/x file:///home/ada {path}").endswith(path)


@pytest.mark.parametrize("before", ["--data=", "'", "file://", "[", ",", " "])
def test_the_home_folder_is_shortened_wherever_a_path_begins(monkeypatch, before):
    monkeypatch.setenv("HOME", "/home/ada")

    assert without_secrets(f"x{before}/home/ada/y") == f"x{before}~/y"


def test_a_home_at_the_root_eats_no_path(monkeypatch):
    monkeypatch.setenv("HOME", "/")

    assert without_secrets("/data/flowers") == "/data/flowers"


def test_a_short_host_name_is_an_ordinary_word(monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "vit")

    assert without_secrets("vit_tiny vit") == "vit_tiny vit"


def test_values_become_json():
    values = {"array": np.array([[1.0, np.inf]]), "flag": True, "none": None, 2: {1}}

    assert without_secrets(values) == {
        "array": [[1.0, None]],
        "flag": True,
        "none": None,
        "2": "{1}",
    }
