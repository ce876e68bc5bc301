"""Trainings that are killed, stopped, starved of disk and memory, or given bad input."""

import errno
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.data.synthetic import make_flowers
from samples import SMALL, coloured_files, timeless

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
TWO_STAGE = [
    {"epochs": 2, "lr": 0.01},
    {"epochs": 2, "lr": 0.003, "unfreeze": 1.0, "weight_decay": 0.01},
]
HEAD = {"widths": [8], "pooling": "avg", "dropout": 0.5}
# The first phase runs from kept views, the second one live from the same views.
ALWAYS = {"phases": TWO_STAGE, "head": HEAD, "augment": "standard", "views": 2}
ALWAYS |= {"checkpoint_every": 0}


class Zygote:
    """A process that forks trainings."""

    def __init__(self, home):
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("killable.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "REGRAFT_HOME": str(home), "OMP_NUM_THREADS": "1"},
        )
        assert self._answer() == "ready"

    def start(self, **job):
        """Begin a job and return its process id."""
        return self._ask({"start": job})

    def wait(self, pid):
        """Return the exit code of a job; of a killed one the negative number of the signal."""
        return self._ask({"wait": pid})

    def end(self):
        """Let it go."""
        self._process.stdin.close()
        self._process.wait(120)
        self._process.stdout.close()

    def _ask(self, request):
        self._process.stdin.write(json.dumps(request, default=str) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    running = Zygote(tmp_path_factory.mktemp("home"))
    yield running
    running.end()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return a file that names 20 training and 9 validation images in three colours."""
    folder = tmp_path_factory.mktemp("images")
    drawn = {
        part: coloured_files(folder, part, n, seed=n) for part, n in (("train", 20), ("val", 9))
    }
    parts = {k: {"paths": [*map(str, v.paths)], "labels": v.labels} for k, v in drawn.items()}
    file = folder / "images.json"
    file.write_text(json.dumps(parts))
    return file


class Place:
    """A folder in which a test begins jobs, each with a name and a folder of its own."""

    def __init__(self, zygote, folder):
        self.zygote, self.folder = zygote, folder

    def start(self, name, **job):
        """Begin a job, or go on with it, and return its process id."""
        for needed in (self.folder / name, self.folder / f"{name} temporary"):
            needed.mkdir(exist_ok=True)
        environment = {"TMPDIR": str(self.folder / f"{name} temporary")}
        return self.zygote.start(place=self.folder / name, environment=environment, **job)

    def error(self, name):
        """Return what it has said."""
        file = self.folder / name / "stderr.txt"
        return file.read_text() if file.exists() else ""

    def leftovers(self, name):
        """Return what stands in the folder for temporary files, and what is half written."""
        half = [path.name for path in (self.folder / name).rglob(".*")]
        return [*half, *(path.name for path in (self.folder / f"{name} temporary").iterdir())]


class Training(Place):
    """A training of the learner in Python."""

    def __init__(self, zygote, folder, images):
        super().__init__(zygote, folder)
        self.images = images

    def run(self, name, learner, **job):
        """Let it run and return its exit code."""
        return self.zygote.wait(self.start(name, images=self.images, learner=learner, **job))

    def outcome(self, name):
        """Return what must not depend on interruptions."""
        place = self.folder / name
        result = json.loads((place / "result.json").read_text())
        lines = (place / "history.jsonl").read_text().splitlines()
        return timeless({**result, "lines": [json.loads(line) for line in lines]})


@pytest.fixture
def training(zygote, images, tmp_path):
    return Training(zygote, tmp_path, images)


@pytest.fixture(scope="module")
def expected(zygote, images, tmp_path_factory):
    """Return a function: how a training ends that nobody has interrupted."""

    @functools.cache
    def find(**changes):
        whole = Training(zygote, tmp_path_factory.mktemp("whole"), images)
        assert whole.run("whole", {**ALWAYS, **changes}) == 0, whole.error("whole")
        return whole.outcome("whole")

    return find


WRITES = ["os.fsync", "os.replace", "os.rename"]

# Where a training dies; each of these is a moment of its own, the first two write nothing.
MOMENTS = {
    "in the middle of a batch": {"calls": ["torch.optim.AdamW.step"], "at": 2},
    "in the middle of validation": {"calls": ["regraft.training.loop.answers"], "at": 3},
    "behind a step": {"calls": ["regraft.training.loop.take_step"], "at": 2, "after": True},
    "behind the tensors": {
        "calls": ["regraft.training.checkpoint.write_state"],
        "at": 2,
        "after": True,
    },
    "between a temporary folder and its name": {"calls": ["os.rename"], "at": 2},
    "behind that name": {"calls": ["os.rename"], "at": 2, "after": True},
    "between a line of history and its checkpoint": {
        "calls": ["regraft.training.callbacks.History.on_epoch"],
        "after": True,
    },
    "while an older checkpoint is deleted": {"calls": ["shutil.rmtree"], "at": 4, "after": True},
}


def test_killed_at_any_moment_a_training_goes_on_and_ends_with_the_same_bits(training, expected):
    for moment, fault in MOMENTS.items():
        assert training.run("killed", ALWAYS, faults=[fault]) == -signal.SIGKILL, moment
        assert training.leftovers("killed") != []

    assert training.run("killed", ALWAYS) == 0, training.error("killed")
    assert training.outcome("killed") == expected()
    assert training.leftovers("killed") == []


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_no_window_between_two_writes_to_the_disk_is_dangerous(training, expected, after):
    for at in range(15, 35):  # 3 writes begin each of two files, 9 make a checkpoint
        fault = {"calls": WRITES, "at": at, "after": after}
        if training.run("killed", ALWAYS, faults=[fault]) == 0:
            break

    assert training.run("killed", ALWAYS) == 0, training.error("killed")
    assert training.outcome("killed") == expected()


def test_a_disk_too_small_for_checkpoints_keeps_the_last_good_one_and_lets_the_training_end(
    training, expected
):
    assert training.run("small", ALWAYS, file_limit=200_000) == 0, training.error("small")

    found = training.outcome("small")
    assert {**found, "warnings": []} == expected()
    [warning] = found["warnings"]
    assert "cannot write a checkpoint" in warning
    assert "bytes are free" in warning
    assert training.leftovers("small") == []
    assert len(list((training.folder / "small" / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize(
    "call",
    [
        "os.replace",
        pytest.param("os.fsync", marks=pytest.mark.slow),
        pytest.param("os.rename", marks=pytest.mark.slow),
    ],
)
def test_a_disk_that_is_full_for_a_while_changes_no_bit_of_the_result(training, expected, call):
    full = {"calls": [call], "at": 1, "until": 10, "error": errno.ENOSPC}
    live = {"boundary": "off"}  # checkpoints alone are written

    assert training.run("full", ALWAYS | live, faults=[full]) == 0, training.error("full")

    found, undisturbed = training.outcome("full"), expected(**live)
    assert found["sha256"] == undisturbed["sha256"]
    assert found["lines"] == undisturbed["lines"]
    assert "No space left on device; " in found["warnings"][0]
    assert training.leftovers("full") == []


class CommandLine(Place):
    """`regraft fit` on drawn flowers."""

    def begin(self, name, *more, **job):
        """Begin it, or go on with it, and return its process id."""
        folder = self.folder
        if not (folder / "flowers").exists():
            make_flowers(folder / "flowers", species=2, per_class=12, size=48)
            write_state(folder / "net.safetensors", build(SMALL).module.state_dict())
        options = (
            "--backbone simple_cnn --arg size=48 --strategy two_stage --engine torch "
            "--batch-size 8 --head mlp_256 --head-epochs 2 --epochs 6 --augment standard --views 2"
        )
        files = ["--weights", folder / "net.safetensors", "--out", folder / name / "run"]
        command = ["fit", folder / "flowers", *options.split(), *files, *more]
        return self.start(name, command=command, **job)

    def wait_for_history(self, name):
        """Return when the first epoch is over."""
        told, deadline = self.folder / name / "run" / "history.jsonl", time.monotonic() + 60
        while not (told.exists() and told.read_text()):
            assert time.monotonic() < deadline, "it takes too long"
            assert "error" not in self.error(name), self.error(name)
            time.sleep(0.02)

    def weights(self, name):
        """Return the hash of each file of weights of the run."""
        files = (self.folder / name / "run" / "model").rglob("*.safetensors")
        return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture
def command_line(zygote, tmp_path):
    return CommandLine(zygote, tmp_path)


SLOWLY = {"calls": ["regraft.training.loop.take_step"], "until": 10**6, "sleep": 0.05}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_a_signal_stops_ends_soon_with_a_checkpoint_and_later_with_the_same_bits(
    command_line, number, code
):
    pid = command_line.begin("stopped", faults=[SLOWLY])
    command_line.wait_for_history("stopped")
    os.kill(pid, number)
    asked = time.monotonic()

    assert command_line.zygote.wait(pid) == code, command_line.error("stopped")
    assert time.monotonic() - asked < 10
    assert "Traceback" not in command_line.error("stopped")
    assert command_line.leftovers("stopped") == [".regraft.lock"]
    with pytest.raises(ProcessLookupError):  # nothing of it and its children is left
        os.killpg(pid, 0)
    for name, more in (("stopped", ["--resume"]), ("whole", [])):
        assert command_line.zygote.wait(command_line.begin(name, *more)) == 0
    assert command_line.weights("stopped") == command_line.weights("whole")
    assert set(command_line.weights("whole")) == {"arrays.safetensors", "backbone.safetensors"}


def test_of_two_trainings_into_one_folder_the_second_is_refused(command_line):
    first = command_line.begin("run", faults=[{**SLOWLY, "sleep": 0.2}])
    command_line.wait_for_history("run")

    assert command_line.zygote.wait(command_line.begin("run")) == 1
    assert f"another process is writing here - {command_line.folder}" in command_line.error("run")
    os.kill(first, signal.SIGKILL)
    assert command_line.zygote.wait(first) == -signal.SIGKILL
    assert command_line.zygote.wait(command_line.begin("run")) == 0, command_line.error("run")
