"""Where arithmetic runs, and what is said where it cannot run there."""

import torch

from regraft.compute import has_bf16


def test_a_torch_without_mkldnn_has_no_bf16_arithmetic(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", None)  # whoever asks it all the same, fails

    assert has_bf16("cpu") is False
