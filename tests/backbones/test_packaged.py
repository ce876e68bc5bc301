"""The weights that travel inside the package: there without a network, small, and as recorded."""

import json

from regraft.backbones.catalog import find
from regraft.backbones.spec import BackboneSpec
from regraft.backbones.stored import PACKAGED, find_weights
from regraft.files import sha256_file

FOLDER = PACKAGED / "regraft_mini"


def test_the_packaged_backbone_needs_no_network_and_no_store():
    backbone = BackboneSpec("regraft_mini").build()

    assert backbone.feature_dim == 560
    assert backbone.weights.source.startswith("trained with Regraft")


def test_its_record_says_what_the_file_and_the_catalogue_say():
    stored = find_weights("regraft_mini")

    assert stored.preprocessing == find("regraft_mini").preprocessing
    assert stored.sha256 == sha256_file(FOLDER / "weights.safetensors")
    assert (
        json.loads((FOLDER / "weights.json").read_text())["licence"] == find("regraft_mini").licence
    )


def test_it_takes_at_most_six_megabytes():
    assert (FOLDER / "weights.safetensors").stat().st_size <= 6_000_000
