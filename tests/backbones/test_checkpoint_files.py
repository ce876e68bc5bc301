"""Files of weights: data is read exactly; what is damaged or could run code is refused by name."""

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regraft.backbones.checkpoint_files import may_hold_code, read_state, write_state
from regraft.errors import ModelError
from regraft.files import sha256_file
from samples import refused

WEIGHT = {"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
OVERLAP = {**WEIGHT, "bias": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}


def framed(header, data=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def typed(kind, data):
    return framed({"weight": {"dtype": kind, "shape": [2], "data_offsets": [0, len(data)]}}, data)


DAMAGED = {
    "empty": b"",
    "cut in the header": framed(WEIGHT)[:20],
    "cut in the data": framed(WEIGHT)[:-3],
    "header of 2^40 bytes": struct.pack("<Q", 1 << 40) + b"{}",
    "extra bytes": framed(WEIGHT, b"\0" * 9),
    "bad JSON": framed(b"{nope"),
    "deep nesting": framed(b"[" * 100_000),
    "overlap": framed(OVERLAP, b"\0" * 12),
    "unknown element type": typed("Q9", b"\0" * 8),
    "unusual element type": typed("F8_E4M3", b"\1\1"),
    "complex numbers": typed("C64", b"\0" * 16),
    "shape beyond integers": framed(
        {"weight": {"dtype": "F32", "shape": [1 << 63, 0], "data_offsets": [0, 0]}}, b""
    ),
    "no tensors": framed({}, b""),
    "a pickle": pickle.dumps({"weight": [1.0]}),
}


@pytest.fixture
def sentinel(tmp_path):
    """Return a path that exists only if a refused file ran its code."""
    return tmp_path / "sentinel"


class Attack:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch '{self.sentinel}'",)


def torch_bytes(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_safetensors_are_refused_with_the_name_of_the_file(damage, tmp_path):
    file = write(tmp_path / "net.safetensors", DAMAGED[damage])

    error = refused(read_state, file)

    assert (error.code, error.path) == ("MODEL-CORRUPT", str(file))


SOUND = safetensors.torch.save({"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)})


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, len(SOUND)),
    at=st.integers(0, len(SOUND) - 1),
    byte=st.integers(0, 255),
    suffix=st.sampled_from([".safetensors", ".pth"]),
)
def test_a_mutated_file_loads_or_is_refused_and_nothing_else(cut, at, byte, suffix, tmp_path):
    sound = SOUND if suffix == ".safetensors" else torch_bytes({"weight": torch.ones(2)})
    mutated = bytearray(sound)
    mutated[at % len(mutated)] = byte
    file = write(tmp_path / f"net{suffix}", bytes(mutated[: cut if cut % 2 else len(mutated)]))

    refused = None
    try:
        read_state(file, importing=True)
    except ModelError as error:
        refused = error

    if refused is not None:
        assert refused.code in {"MODEL-CORRUPT", "MODEL-NAN", "MODEL-UNSAFE"}
        assert refused.path == str(file)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_without_changing_a_value(kind, tmp_path):
    half = torch.tensor([0.1, -3.0, 65504.0]).to(kind)
    write_state(tmp_path / "net.safetensors", {"weight": half, "steps": torch.tensor(7)})

    read = read_state(tmp_path / "net.safetensors")

    assert read["weight"].dtype == torch.float32
    assert torch.equal(read["weight"], half.float())
    assert read["steps"].dtype == torch.int64


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_at_save_and_at_load(value, tmp_path):
    bad = {"weight": torch.tensor([1.0, value])}
    file = tmp_path / "net.safetensors"

    at_save = refused(write_state, file, bad)
    assert not file.exists()
    safetensors.torch.save_file(bad, file)
    at_load = refused(read_state, file)

    assert at_save.code == at_load.code == "MODEL-NAN"
    assert "infinity in weight" in str(at_load)


def test_tensors_that_share_memory_or_are_views_are_written_as_what_they_show(tmp_path):
    base = torch.arange(6.0)
    write_state(tmp_path / "n.safetensors", {"a": base, "b": base[::2], "c": base.view(2, 3).T})

    read = read_state(tmp_path / "n.safetensors")

    assert read["b"].tolist() == [0, 2, 4]
    assert read["c"].shape == (3, 2)


def test_one_flipped_bit_is_noticed_when_the_hash_is_known(tmp_path):
    file = tmp_path / "net.safetensors"
    write_state(file, {"weight": torch.ones(4)})
    known = sha256_file(file)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))

    assert refused(read_state, file, sha256=known).code == "MODEL-CHECKSUM"


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize("legacy", [False, True])
def test_pytorch_files_are_read_on_import_only(suffix, legacy, tmp_path):
    data = torch_bytes({"weight": torch.ones(2)}, _use_new_zipfile_serialization=not legacy)
    file = write(tmp_path / f"net{suffix}", data)

    error = refused(read_state, file)

    assert error.code == "WEIGHTS-FORMAT"
    assert "weights import" in str(error)
    assert read_state(file, importing=True)["weight"].tolist() == [1, 1]


@pytest.mark.parametrize("suffix", [".pth", ".bin"])
@pytest.mark.parametrize("kind", [0, 4, "beside tensors"])
def test_code_in_a_pytorch_file_is_refused_and_does_not_run(suffix, kind, tmp_path, sentinel):
    attack = Attack(sentinel)
    data = torch_bytes({"state_dict": {"weight": torch.ones(2)}, "options": attack})
    if kind != "beside tensors":
        data = pickle.dumps(attack, protocol=kind)
    file = write(tmp_path / f"net{suffix}", data)

    assert refused(read_state, file, importing=True).code == "MODEL-UNSAFE"
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "suffix", [".joblib", ".pkl", ".npy", ".npz", ".zip", ".keras", ".skops", ".ckpt"]
)
def test_other_formats_are_refused_by_name_unopened(suffix, tmp_path, sentinel):
    file = write(tmp_path / f"net{suffix}", pickle.dumps(Attack(sentinel)))

    error = refused(read_state, file, importing=True)

    assert error.code == "MODEL-UNSAFE"
    assert "save_file" in str(error)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "content",
    [
        *({"weight": torch.ones(1).expand(1 << 40)}, {"weight": torch.ones(3, device="meta")}),
        *({"weight": torch.eye(3).to_sparse()}, {"weight": torch.ones(2, dtype=torch.complex64)}),
        *({"weight": 3.0}, {3: torch.ones(2)}, [torch.ones(2)], {}),
    ],
    ids=["stretched", "meta", "sparse", "complex", "number", "unnamed", "list", "empty"],
)
def test_what_is_no_ordinary_tensor_by_name_is_refused(content, tmp_path):
    file = write(tmp_path / "net.pth", torch_bytes(content))

    assert refused(read_state, file, importing=True).code == "MODEL-CORRUPT"


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    file = tmp_path / "net.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"\0" * 10_000_000)

    assert "compressed" in str(refused(read_state, file, importing=True))


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "dangling.safetensors").symlink_to(tmp_path / "nowhere")

    def code(name):
        return refused(read_state, Path(f"{tmp_path}/{name}.safetensors")).code

    assert {code(name) for name in ("pipe", "folder")} == {"WEIGHTS-FORMAT"}
    assert {code(name) for name in ("dangling", "absent", "n\0l")} == {"WEIGHTS-MISSING"}


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_arguments, **_options):
        raise safetensors.SafetensorError("No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)

    error = refused(write_state, tmp_path / "net.safetensors", {"weight": torch.ones(2)})

    assert error.code == "FILE-WRITE"
    assert "No space left" in str(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.pkl", b"", ".pkl"),
        ("a.PTH", b"", ".pth"),
        ("a.h5", b"", ".h5"),
        ("a.json", pickle.dumps([1]), "begins like"),
        ("a.safetensors", b"PK\x03\x04 more", "begins like"),
        ("a.safetensors", framed(WEIGHT), ""),
        ("a.json", b"{}", ""),
        ("nowhere/a.json", None, ""),
    ],
)
def test_what_may_hold_code_is_known_by_its_name_and_by_its_first_bytes(
    name, data, found, tmp_path
):
    if data is not None:
        write(tmp_path / name, data)

    why = may_hold_code(tmp_path / name)

    assert bool(why) == bool(found)
    assert found in why
