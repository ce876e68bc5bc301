"""A network in 8 bits is much smaller, says nearly the same, and nothing of it is printed."""

import numpy as np
import onnx
import pytest

from regraft.backbones.spec import BackboneSpec
from regraft.deploy.export import write_deployed
from regraft.deploy.int8 import time_ratio, to_int8
from regraft.deploy.predictor import Predictor, load
from regraft.errors import ModelError

SPEC = BackboneSpec("squeezenet", weights=None, arguments=(("size", 64),))


@pytest.mark.parametrize("kind", ["network", "logistic", "knn", "random_forest"])
def test_a_network_in_8_bits_is_smaller_and_says_nearly_the_same(
    kind, images, learner_of, tmp_path, capfd
):
    learner = learner_of(kind, SPEC).fit(*images)
    write_deployed(learner, tmp_path / "deploy", images[0])
    exact = load(tmp_path / "deploy")
    network = (tmp_path / "deploy" / "network.onnx").read_bytes()
    capfd.readouterr()

    small = to_int8(network, exact.views(images[0]))

    model = Predictor(exact.record, small)
    assert len(small) < 0.5 * len(network)
    apart = np.abs(model.predict_proba(images[0]) - exact.predict_proba(images[0]))
    assert apart.mean() < 0.1
    assert capfd.readouterr() == ("", "")
    assert "QuantizeLinear" in {node.op_type for node in onnx.load_from_string(small).graph.node}
    assert time_ratio(exact, model, exact.views(images[0][:1])) > 0


def test_what_cannot_be_written_in_8_bits_is_refused_with_the_reason():
    with pytest.raises(ModelError, match="cannot be written in 8 bits") as refused:
        to_int8(b"no network", np.zeros((1, 8, 8, 3), np.uint8))

    assert refused.value.code == "MODEL-UNSAVEABLE"
    assert refused.value.why
