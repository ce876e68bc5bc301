"""Where arithmetic runs, and what is said where it cannot run there."""

import pickle
import sys
from types import ModuleType

import pytest
import torch

from regraft import system
from regraft.errors import BadImagesError, ImageError, UsageError
from regraft.system import choose_device, exact_float32, has_bf16, progress_bar, shows_bars


@pytest.fixture
def two_graphics_processors(monkeypatch):
    """Let torch say that it has two of NVIDIA's and none of Apple's."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("two_graphics_processors")
def test_a_device_that_is_here_is_taken_and_the_fastest_unless_one_is_named():
    assert choose_device() == "cuda"
    assert [choose_device(d) for d in ("cuda", "cuda:1", "cpu")] == ["cuda", "cuda:1", "cpu"]


@pytest.mark.usefixtures("two_graphics_processors")
@pytest.mark.parametrize("device", ["cuda:2", "mps", "gpu", "GPU", "", "cuda:x", "cuda:-1", "0"])
def test_a_device_that_is_not_among_those_here_is_refused_with_what_may_be_asked_for(device):
    with pytest.raises(UsageError, match="unknown device") as refused:
        choose_device(device)

    assert refused.value.code == "USAGE-DEVICE"
    assert repr(device) in refused.value.why
    assert "auto, cpu" in refused.value.hint


@pytest.mark.parametrize("before", [True, False])
def test_cuda_computes_in_whole_float32_while_asked_to_and_as_before_afterwards(
    before, monkeypatch
):
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "allow_tf32", before)

    def compute(device):
        with exact_float32(device):
            assert cudnn.allow_tf32 is (before and device == "cpu")
            raise MemoryError

    for device in ("cpu", "cuda:1"):
        with pytest.raises(MemoryError):
            compute(device)

    assert cudnn.allow_tf32 is before


def test_where_no_terminal_is_a_line_says_the_speed_and_what_is_left(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    with progress_bar("Embedding", 90) as advance:
        for now[0] in (110.0, 120.0):
            advance(15)

    assert capsys.readouterr().err == "Embedding: 30 of 90 images, 1.5 images/s, 40 s left\n"


def test_a_torch_without_mkldnn_has_no_bf16_arithmetic(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", None)  # whoever asks it all the same, fails

    assert has_bf16("cpu") is False


@pytest.mark.parametrize(
    "error",
    [
        UsageError("no such name", path="a.csv", why="b", hint="c", code="USAGE-X"),
        BadImagesError([ImageError("file is empty", path="a.jpg", code="IMG-EMPTY")], hint="look"),
    ],
    ids=lambda error: error.code,
)
def test_an_error_comes_whole_out_of_another_process(error):
    back = pickle.loads(pickle.dumps(error))

    assert (type(back), str(back), back.code) == (type(error), str(error), error.code)


def test_a_bar_is_shown_on_a_terminal_and_in_a_notebook_with_widgets(monkeypatch):
    installed = {"ipywidgets"}
    monkeypatch.setattr(system, "_is_installed", lambda package: package in installed)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    program = shows_bars()
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    notebook = shows_bars()
    installed.clear()
    without_widgets = shows_bars()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    terminal = shows_bars()

    assert (program, notebook, without_widgets, terminal) == (False, True, False, True)
