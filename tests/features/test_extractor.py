"""The extractor is a scikit-learn transformer, and no image passes its network twice."""

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.base import clone

from regraft.backbones.backbone import build
from regraft.backbones.engines import TorchEngine
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.data.images import DECODER_VERSION, Decoding
from regraft.errors import BackboneError, UsageError
from regraft.features import embed as embed_module
from regraft.features import extractor as extractor_module
from regraft.features.extractor import FeatureExtractor
from samples import computing

SPEC = BackboneSpec("simple_cnn", weights=None)
SMALL = dataclasses.replace(SPEC, preprocessing=Preprocessing.torch(64))


@pytest.fixture
def counted(monkeypatch):
    """Return a list that grows by the number of images of each pass through a network."""
    passes = []
    whole = TorchEngine.__call__

    def counting(self, images):
        passes.append(len(images))
        return whole(self, images)

    monkeypatch.setattr(TorchEngine, "__call__", counting)
    return passes


def test_rows_of_a_graphics_processor_are_kept_apart_from_those_of_a_processor(
    counted, monkeypatch, tmp_path
):
    images = [np.full((40, 50, 3), shade, np.uint8) for shade in (10, 90)]
    extractor = make(device="auto", cache=tmp_path)
    passed = []

    for device in ("cpu", "cuda", "cpu", "cuda:1", "mps"):
        monkeypatch.setattr(embed_module, "choose_device", lambda _asked, device=device: device)
        extractor.transform(images)
        passed.append(extractor.stats_.embedded)

    assert passed == [2, 2, 0, 0, 2]


@pytest.fixture
def photographs(tmp_path):
    noise = np.random.default_rng(0)
    paths = []
    for i in range(12):
        pixels = noise.integers(0, 120, (40, 50, 3), dtype=np.uint8)
        pixels[..., i % 2] += 120
        paths.append(str(tmp_path / f"{i}.jpg"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


def make(backbone=SMALL, **chosen):
    return FeatureExtractor(backbone, compute=computing(chosen), **chosen)


def test_rows_equal_what_the_network_gives_by_itself(photographs):
    matrix = make().fit_transform(photographs)

    expected = np.concatenate([make().backbone_.embed([path]) for path in photographs])
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, expected, rtol=1e-4, atol=1e-5)


def test_a_second_call_touches_no_network(photographs, counted):
    first = make()
    second = make()
    matrix = first.transform(photographs)

    again = second.transform(photographs[::-1])

    assert sum(counted) == first.stats_.embedded == 12
    assert (second.stats_.images, second.stats_.embedded) == (12, 0)
    assert np.array_equal(again, matrix[::-1])


def test_without_a_cache_every_call_embeds_and_nothing_is_left(
    photographs, counted, private_home, tmp_path, monkeypatch
):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    extractor = make(cache=None)

    first = extractor.transform(photographs)
    second = extractor.transform(photographs)

    assert sum(counted) == 24
    assert np.array_equal(first, second)
    assert not list(private_home.glob("features"))
    assert not list((tmp_path / "temporary").iterdir())


def prepared(**changes):
    own = dataclasses.replace(Preprocessing.torch(64), **changes)
    return dataclasses.replace(SMALL, preprocessing=own)


CHANGES = {
    "weights": {"backbone": dataclasses.replace(SMALL, seed=1)},
    "size": {"backbone": prepared(size=72)},
    "mean": {"backbone": prepared(mean=(0.5, 0.5, 0.5))},
    "channels": {"backbone": prepared(channels="BGR")},
    "geometry": {"backbone": prepared(mode="squash")},
    "network": {"backbone": dataclasses.replace(SMALL, name="selu_cnn")},
    "pooling": {"pooling": "flatten"},
    "precision": {"precision": "bf16"},
    "engine": {"engine": "openvino"},
    "background": {"decoding": Decoding(background=(0, 0, 0))},
}


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.sampled_from([None, *CHANGES]), second=st.sampled_from([None, *CHANGES]))
def test_any_two_settings_share_rows_only_if_they_are_the_same(first, second, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    image = [np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3)]
    one, other = (make(cache=cache, **CHANGES.get(name, {})) for name in (first, second))
    one.transform(image)

    other.transform(image)

    assert other.stats_.embedded == int(first != second)


def test_another_decoder_misses(photographs, monkeypatch):
    make().transform(photographs)
    monkeypatch.setattr(embed_module, "DECODER_VERSION", DECODER_VERSION + 1)

    extractor = make()
    extractor.transform(photographs)

    assert extractor.stats_.embedded == 12


def test_rows_are_kept_under_the_engine_that_was_built_not_the_one_expected(
    photographs, monkeypatch
):
    embedder = make().backbone_.embedder
    expected = make(engine="auto")
    with monkeypatch.context() as patch:
        patch.setattr("regraft.features.embed.expected_engine", lambda _name: "another")
        patch.setattr(extractor_module, "_engine", lambda *_identity: TorchEngine(embedder))
        matrix = expected.transform(photographs)

    named = make(engine="torch")

    assert expected.stats_.embedded == 12
    assert np.array_equal(named.transform(photographs), matrix)
    assert named.stats_.embedded == 0


def test_weights_that_change_under_their_path_are_noticed(photographs, tmp_path):
    from safetensors.torch import save_file

    file = tmp_path / "weights.safetensors"
    spec = dataclasses.replace(SMALL, weights=str(file))
    for seed in (1, 2):
        save_file(build(dataclasses.replace(SMALL, seed=seed)).module.state_dict(), file)
        extractor = make(backbone=spec)
        extractor.transform(photographs)

        assert extractor.stats_.embedded == 12


def test_stored_weights_that_give_way_to_others_are_noticed(photographs, store_mine):
    rows = []
    for seed in (1, 2):
        store_mine(seed)
        rows.append(make("mine", cache=None).transform(photographs))

    assert not np.allclose(*rows)


def test_it_only_stores_its_parameters_and_clones_and_pickles_without_the_network():
    impossible = FeatureExtractor("no such network", pooling="no such pooling", batch_size=-1)
    fitted = make(batch_size=1).fit([])

    assert clone(impossible).get_params() == impossible.get_params()
    assert clone(fitted).get_params() == fitted.get_params()
    assert len(pickle.dumps(fitted)) < 10_000


@pytest.mark.parametrize("one", ["a.jpg", np.zeros((4, 4, 3), np.uint8), Image.new("RGB", (4, 4))])
def test_one_image_is_refused_and_an_array_of_paths_or_images_is_a_list(one, photographs):
    with pytest.raises(UsageError, match="not a list of images"):
        make().transform(one)
    for several in (np.array(photographs), np.zeros((2, 40, 50, 3), np.uint8)):
        assert len(make().transform(several)) == len(several)


def test_a_pooling_stands_in_the_spec_or_beside_it_and_the_impossible_is_found_when_fitting():
    spec = dataclasses.replace(SMALL, pooling="flatten")

    assert make(spec).backbone_.fingerprint == make(pooling="flatten").backbone_.fingerprint
    with pytest.raises(UsageError, match="two poolings"):
        make(backbone=spec, pooling="stage:stem.0").fit([])
    with pytest.raises(UsageError, match="batch_size"):
        make(batch_size=0).fit([])
    with pytest.raises(BackboneError, match="no_such_network"):
        FeatureExtractor("no_such_network").fit([])
