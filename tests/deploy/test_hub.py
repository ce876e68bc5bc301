"""What the hub refuses is said in words that tell what to do, and never with the token."""

import time

import pytest

from regraft.deploy.hub import Hub
from samples import refused
from stand_in_hub import TOKEN

FILES = {"README.md": b"# A model\n", "model/a.safetensors": bytes(1000)}


def push(**options):
    """Upload two files."""
    return Hub("ada/flowers").upload(FILES, message="first", **options)


def test_what_was_uploaded_comes_back_by_the_commit_that_it_was_made_in(hub, tmp_path):
    commit = push().rpartition("/")[2]
    Hub("ada/flowers").upload({"README.md": b"# Another\n"}, message="second")

    there = Hub("ada/flowers")
    found, files = there.look(commit)
    there.download(files, found, tmp_path)

    assert {name: listed.size for name, listed in files.items()} == {
        name: len(data) for name, data in FILES.items()
    }
    assert (tmp_path / "README.md").read_bytes() == b"# A model\n"
    assert (tmp_path / "model" / "a.safetensors").read_bytes() == bytes(1000)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["README.md", "model"]
    stored = [known for method, _, known in hub.log if method == "PUT"]
    assert stored == [False]  # where large files lie is a place of its own: it gets no token


def test_files_that_others_replace_are_deleted_and_files_of_somebody_else_stay(hub):
    hub.add("ada/flowers", {"model/old.onnx": b"old", "notes.txt": b"mine"})

    push(replaces=("model/old.onnx", "model/a.safetensors", "model/never.onnx"))

    assert set(hub.files("ada/flowers")[1]) == {*FILES, "notes.txt"}


def test_a_repository_is_made_private_where_that_is_asked_for(hub):
    push(private=True)

    assert hub.repositories["ada/flowers"]["private"]


def test_what_was_to_be_private_is_not_uploaded_to_a_public_repository(hub):
    hub.add("ada/flowers", {})

    error = refused(push, private=True)

    assert error.code == "HUB-PUBLIC"
    assert hub.files("ada/flowers")[1] == {}
    assert hub.objects == {}


@pytest.mark.parametrize("name", ["flowers", "a/b/c", "../x", "a/..", "a b/c", "", "a/b?x=1"])
def test_what_is_no_name_of_a_repository_is_refused_without_asking(hub, name):
    assert "OWNER/NAME" in str(refused(Hub, name))
    assert hub.log == []


def test_without_a_token_nothing_is_uploaded(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")

    error = refused(Hub("ada/flowers").require_token)

    assert error.code == "HUB-TOKEN"
    assert "hf auth login" in str(error)
    assert hub.log == []


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "HUB-TOKEN", "does not know the token"),
        (403, "HUB-REFUSED", "write access"),
        (500, "HUB", "it answered 500"),
    ],
)
def test_a_refusal_to_write_says_why_and_never_shows_the_token(hub, status, code, said):
    hub.refuses = status

    error = refused(push)

    assert error.code == code
    assert said in str(error)
    assert hub.url in str(error)
    assert TOKEN not in str(error)


def test_a_repository_that_is_not_there_or_private_is_said_to_be_that(hub, monkeypatch):
    hub.add("ada/private", {}, private=True)
    for known in (True, False):
        for name in ("ada/nothing",) if known else ("ada/nothing", "ada/private"):
            error = refused(Hub(name).look)

            assert error.code == "HUB-MISSING"
            assert "or it is private" in str(error)
            assert "hf auth login" in str(error)
        monkeypatch.delenv("HF_TOKEN", raising=False)


def test_a_gated_repository_is_said_to_be_that(hub):
    hub.add("ada/gated", {})
    hub.repositories["ada/gated"]["gated"] = True

    error = refused(Hub("ada/gated").look)

    assert error.code == "HUB-REFUSED"
    assert "ask for access" in str(error)


def test_a_revision_that_is_not_there_is_said_to_be_that(hub):
    hub.add("ada/flowers", {})

    error = refused(Hub("ada/flowers").look, "v2")

    assert error.code == "HUB-MISSING"
    assert "--revision" in str(error)


def test_a_file_that_has_gone_is_no_silent_gap(hub, tmp_path):
    commit = hub.add("ada/flowers", {"a.json": b"{}"})
    _, files = Hub("ada/flowers").look()
    gone = {"b.json": files["a.json"]}

    assert refused(Hub("ada/flowers").download, gone, commit, tmp_path).code == "HUB-MISSING"


@pytest.mark.parametrize("name", FILES)
def test_a_byte_changed_on_the_way_is_told_of_small_and_of_large_files(hub, tmp_path, name):
    push()
    commit, files = Hub("ada/flowers").look()
    hub.sent[name] = b"!" + FILES[name][1:]

    error = refused(Hub("ada/flowers").download, files, commit, tmp_path)

    assert error.code == "HUB-CHECKSUM"
    assert name in str(error)


def test_a_card_that_the_hub_does_not_take_is_told_before_anything_is_uploaded(hub):
    files = {**FILES, "README.md": b"---\nlicense: nonsense\n---\n"}

    error = refused(Hub("ada/flowers").upload, files, message="x")

    assert "license must be one of those known" in str(error)
    assert hub.files("ada/flowers")[1] == hub.objects == {}


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:1"}, "HUB-OFFLINE", "127.0.0.1 does not answer"),
        ({"HF_ENDPOINT": "https://hub.invalid"}, "HUB-OFFLINE", "hub.invalid does not answer"),
        ({"HF_HUB_OFFLINE": "1"}, "HUB-OFFLINE", "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "http://hub.example.org"}, "HUB-ADDRESS", "not encrypted"),
    ],
)
def test_without_a_hub_it_ends_within_two_seconds(hub, monkeypatch, variables, code, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    begun = time.monotonic()

    error = refused(Hub, "ada/flowers")

    assert time.monotonic() - begun < 2
    assert error.code == code
    assert said in str(error)
    assert hub.log == []
