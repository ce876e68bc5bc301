"""From a name to a network and its weights: they fit exactly, under a name that is free."""

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import safetensors.torch
import torch

from regraft import BackboneSpec, Preprocessing, list_backbones
from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.network import state_sha256
from regraft.backbones.published import hub_cache
from regraft.backbones.sources import (
    build_network,
    fetch_weights,
    find,
    import_weights,
    load_state,
    locate,
)
from regraft.backbones.weights import find_weights, list_weights, store, verify_weights
from regraft.settings import to_json
from samples import refused


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)

    first, second, third = (
        build_network(find("simple_cnn"), {}, seed=seed).module for seed in (1, 1, 2)
    )

    assert state_sha256(first) == state_sha256(second) != state_sha256(third)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["simple_cnn", "squeezenet", "timm:test_resnet", "timm:test_vit"])
def test_an_empty_network_computes_the_same_once_its_weights_are_in(name, tmp_path):
    entry = find(name)
    drawn = build_network(entry, {}).module
    empty = build_network(entry, {}, empty=True)
    batch = torch.rand(1, 3, empty.size, empty.size)

    load_state(empty, drawn.state_dict(), path=tmp_path, entry=entry)

    with torch.inference_mode():
        assert torch.equal(empty.module(batch), drawn(batch))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *(("timm:test_resnet", name) for name in ("pretrained", "checkpoint_path", "no_such")),
        *(("torchvision:alexnet", name) for name in ("weights", "aux_logits", "no_such")),
        ("simple_cnn", "width"),
        *(("mobilenet_v1", {"channel_multiplier": wide}) for wide in (0, -1, 9, "half")),
    ],
)
def test_arguments_that_are_unknown_impossible_or_would_load_something_are_refused(name, arguments):
    arguments = {arguments: "x"} if isinstance(arguments, str) else arguments

    error = refused(build_network, find(name), arguments)

    assert error.code == "BACKBONE-ARGUMENT"
    assert next(iter(arguments)) in str(error)


SMALL = "simple_cnn"
GREY = Preprocessing.tf(64, mode="squash", resize=64, mean=(0.4, 0.4, 0.4))


@pytest.fixture
def module():
    return build(BackboneSpec(SMALL, weights=None, seed=5)).module


@pytest.fixture
def file(module, tmp_path):
    write_state(tmp_path / "mine.safetensors", module.state_dict())
    return tmp_path / "mine.safetensors"


def take(file, **changes):
    return import_weights(file, **{"name": "mine", "backbone": SMALL, **changes})


def test_an_imported_file_is_a_backbone_like_any_other(file, module):
    stored = take(file, preprocessing=GREY, licence="mit")

    backbone = build(BackboneSpec("mine"))

    assert find_weights("mine") == stored
    assert (stored.preprocessing_from, stored.source) == ("given", "mine.safetensors")
    assert backbone.preprocessing == GREY
    assert backbone.weights.licence == "mit"
    assert "mine" in [entry.name for entry in list_backbones()]
    for name, tensor in module.state_dict().items():
        assert torch.equal(backbone.module.state_dict()[name], tensor), name


def test_tensors_that_do_not_fit_are_named_and_not_stored(module, tmp_path):
    state = dict(module.state_dict())
    first, second, *_ = state
    del state[first]
    state |= {"extra.weight": torch.ones(3), second: torch.ones(3)}
    write_state(tmp_path / "net.safetensors", state)

    error = refused(take, tmp_path / "net.safetensors")

    assert error.code == "WEIGHTS-MISFIT"
    for said in (f"1 missing ({first})", "1 unexpected (extra.weight)", f"shape ({second} is 3"):
        assert said in str(error)
    assert list_weights() == ()


def test_wrappers_auxiliary_heads_and_missing_counters_of_old_files_do_not_matter(tmp_path):
    module = build(BackboneSpec("test_resnet", weights=None, seed=5)).module
    wrapped = {f"module.{k}": t for k, t in module.state_dict().items() if "num_batches" not in k}
    wrapped["module.aux1.fc.bias"] = torch.zeros(1)
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "net.pth")

    stored = take(tmp_path / "net.pth", backbone="test_resnet")

    assert stored.path.suffix == ".safetensors"
    assert state_sha256(build("mine").module) == state_sha256(module)


@pytest.mark.parametrize(
    "name",
    ["", "../mine", "a/b", "a\\b", ".hidden", "C:", "a" * 101, "naïve", "a\n", "a."],
)
def test_names_with_parts_of_paths_are_refused(name, file):
    assert refused(take, file, name=name).code == "WEIGHTS-NAME"
    assert find_weights(name) is None


def test_a_taken_name_is_refused_unless_it_shall_be_overwritten(file):
    take(file, licence="mit")

    assert refused(take, file, licence="bsd").code == "WEIGHTS-EXISTS"
    assert find_weights("mine").licence == "mit"

    take(file, licence="bsd", overwrite=True)
    assert find_weights("mine").licence == "bsd"
    assert sorted(path.name for path in store().iterdir()) == [".mine.lock", "mine"]


@pytest.mark.parametrize("changes", [{"name": "vgg16"}, {"name": SMALL, "preprocessing": GREY}])
def test_the_name_of_a_network_cannot_come_to_mean_something_else(changes, file):
    error = refused(take, file, **changes)

    assert error.code == "WEIGHTS-NAME"
    assert "name of a network" in str(error)


def test_a_network_may_be_given_its_own_weights_under_its_own_name(file):
    stored = take(file, name=SMALL)

    assert find_weights(SMALL) == stored
    assert stored.preprocessing == find(SMALL).preprocessing
    assert stored.preprocessing_from == "assumed"
    assert any("assumed" in note for note in stored.notes)


NARROW_VGG = {"mlp_ratio": 0.01, "size": 64}
TRUNKS = {
    "vgg16": (NARROW_VGG, ("pre_logits.", "head.")),
    "torchvision:squeezenet1_1": ({}, ("classifier.",)),
    "mobilenetv3_small_050": ({}, ("conv_head.", "classifier.")),
    "test_vit": ({}, ("head.",)),
}


@pytest.mark.parametrize("network", TRUNKS)
def test_weights_without_a_classifier_give_the_features_of_those_with_it(network, tmp_path):
    arguments, head = TRUNKS[network]
    whole = build(BackboneSpec(network, weights=None, arguments=arguments))
    state = whole.module.state_dict()
    trunk = {name: tensor for name, tensor in state.items() if not name.startswith(head)}
    write_state(tmp_path / "notop.safetensors", trunk)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

    stored = take(tmp_path / "notop.safetensors", backbone=network, arguments=arguments)
    backbone = build(BackboneSpec("mine"))

    assert len(trunk) < len(state)
    assert any("no classifier" in note for note in stored.notes)
    assert any("no classifier" in note for note in backbone.notes)
    np.testing.assert_array_equal(backbone.embed([image]), whole.embed([image]))
    error = refused(backbone.top_k, [image])
    assert error.code == "BACKBONE-HEAD"
    assert "regraft fit" in error.hint


@pytest.mark.parametrize("lost", [("fc.weight",), ("fc.weight", "fc.bias", "conv1.0.weight")])
def test_part_of_a_classifier_or_more_than_it_may_not_be_missing(lost, tmp_path):
    state = build(BackboneSpec("test_resnet", weights=None)).module.state_dict()
    write_state(tmp_path / "net.safetensors", {k: v for k, v in state.items() if k not in lost})

    error = refused(take, tmp_path / "net.safetensors", backbone="test_resnet")

    assert error.code == "WEIGHTS-MISFIT"
    assert f"{len(lost)} missing" in str(error)


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


def test_fetched_weights_are_stored_with_licence_hash_and_preprocessing(web, published):
    web.repository(REPOSITORY, {"model.safetensors": published})

    fetched = fetch_weights(NETWORK, verbose=False)
    stored = find_weights(NETWORK)
    web.log.clear()

    assert locate(NETWORK) == fetched == stored.file
    assert web.log == []  # what is stored is not asked for again
    assert stored.name == NETWORK
    assert stored.licence == find(f"timm:{NETWORK}").licence != "unknown"
    assert (
        stored.preprocessing == build(BackboneSpec(f"timm:{NETWORK}", weights=None)).preprocessing
    )
    assert stored.preprocessing_from == "published"
    assert stored.source.startswith(f"{REPOSITORY}/model.safetensors@")
    assert stored.sha256 == hashlib.sha256(stored.path.read_bytes()).hexdigest()
    assert list_weights() == (stored,)


def test_the_second_use_of_published_weights_is_as_free_as_the_first(web, published):
    web.repository(REPOSITORY, {"model.safetensors": published})
    for _ in range(2):
        other = build(BackboneSpec(NETWORK, preprocessing=Preprocessing.torch(160)))
        thinner = build(BackboneSpec(NETWORK, arguments={"drop_rate": 0.1}))

        assert other.preprocessing == Preprocessing.torch(160)
        assert other.fingerprint != thinner.fingerprint
    assert list_weights()[0].name == NETWORK


@pytest.mark.parametrize(
    ("way", "said"), [("closed port", "does not answer"), ("not allowed", "not allowed")]
)
def test_missing_weights_are_told_quickly_with_every_place_and_remedy(way, said, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    start = time.monotonic()

    error = refused(locate, "resnet50", download=way != "not allowed")

    assert time.monotonic() - start < 2
    assert error.code == "WEIGHTS-MISSING"
    text = str(error)
    places = (str(store() / "resnet50"), str(hub_cache()))
    for part in ("resnet50", "--weights", "weights import", "HF_HUB_OFFLINE", said, *places):
        assert part in text
    assert list_weights() == ()


def test_a_flipped_bit_is_found_by_verify_and_at_load_and_fetch_mends_it(web, published):
    web.repository(REPOSITORY, {"model.safetensors": published})
    fetch_weights(NETWORK, verbose=False)
    stored = find_weights(NETWORK)
    assert verify_weights() == {NETWORK: ""}
    flip_last_bit(stored.path)

    assert "MODEL-CHECKSUM" in verify_weights([NETWORK])[NETWORK]
    assert refused(build, NETWORK).code == "MODEL-CHECKSUM"
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
    assert "'absent'" in str(refused(verify_weights, ["absent"]))


def test_eight_at_once_leave_one_good_copy(web, published):
    web.repository(REPOSITORY, {"model.safetensors": published})
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: fetch_weights(NETWORK, verbose=False), range(8)))

    assert len(set(found)) == 1
    assert verify_weights() == {NETWORK: ""}
    assert [path.name for path in store().iterdir() if path.suffix != ".lock"] == [NETWORK]
    assert sum(method == "GET" for method, _ in web.log) == 1


def test_damaged_weights_of_ones_own_are_not_replaced_by_published_ones(web, published):
    web.repository(REPOSITORY, {"model.safetensors": published})
    fetch_weights(NETWORK, verbose=False)
    stored = find_weights(NETWORK)
    record = {**to_json(stored), "preprocessing_from": "given"}
    (store() / NETWORK / "weights.json").write_text(json.dumps(record))
    flip_last_bit(stored.path)

    error = refused(fetch_weights, NETWORK, verbose=False)

    assert "not published" in str(error)
    assert find_weights(NETWORK).preprocessing_from == "given"
