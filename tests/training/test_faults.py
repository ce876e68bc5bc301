"""Trainings that are killed, stopped, starved of disk and memory, or given bad input."""

import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.spec import BackboneSpec
from regraft.data.synthetic import make_flowers

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
CLASSES = ("blue", "green", "red")
TWO_STAGE = [
    {"epochs": 2, "lr": 0.01},
    {"epochs": 2, "lr": 0.003, "unfreeze": 1.0, "weight_decay": 0.01},
]
HEAD = {"widths": [8], "pooling": "avg", "dropout": 0.5}
# The first phase runs from kept views, the second one live from the same views.
VIEWS = {"phases": TWO_STAGE, "head": HEAD, "augment": "standard", "views": 2}


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

    def run(self, **job):
        """Do a job and return its exit code."""
        return self.wait(self.start(**job))

    def end(self):
        """Let it go."""
        self._process.stdin.close()
        self._process.wait(10)
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
    parts = {}
    for part, count in (("train", 20), ("val", 9)):
        labels = [CLASSES[i % 3] for i in range(count)]
        paths = [str(folder / f"{part}{i:02}.png") for i in range(count)]
        for i, (path, name) in enumerate(zip(paths, labels, strict=True)):
            noise = np.random.default_rng(i + 100 * count).integers(0, 150, size=(32, 32, 3))
            noise[..., CLASSES.index(name)] += 60
            Image.fromarray(noise.astype(np.uint8)).save(path)
        parts[part] = {"paths": paths, "labels": labels}
    file = folder / "images.json"
    file.write_text(json.dumps(parts))
    return file


@pytest.fixture
def training(zygote, images, tmp_path):
    return Training(zygote, images, tmp_path)


class Training:
    """A training in a folder of its own, begun as often as a test wants."""

    def __init__(self, zygote, images, folder):
        self.zygote, self.images, self.folder = zygote, images, folder

    def start(self, name, learner, **job):
        """Begin it, or go on with it, and return its process id."""
        place = self.folder / name
        temporary = self.folder / f"{name} temporary"
        for needed in (place, temporary):
            needed.mkdir(exist_ok=True)
        environment = {"TMPDIR": str(temporary), **job.pop("environment", {})}
        return self.zygote.start(
            place=place, images=self.images, learner=learner, environment=environment, **job
        )

    def run(self, name, learner, **job):
        """Let it run and return its exit code."""
        return self.zygote.wait(self.start(name, learner, **job))

    def outcome(self, name):
        """Return what must not depend on interruptions."""
        place = self.folder / name
        result = json.loads((place / "result.json").read_text())
        lines = (place / "history.jsonl").read_text().splitlines()
        return timeless({**result, "lines": [json.loads(line) for line in lines]})

    def error(self, name):
        """Return what it has said."""
        return (self.folder / name / "stderr.txt").read_text()


def timeless(value):
    """Return a JSON value without anything called seconds."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k != "seconds"}
    return [timeless(v) for v in value] if isinstance(value, list) else value


ALWAYS = {**VIEWS, "checkpoint_every": 0}
AT_STAGE = {
    "phases": [TWO_STAGE[0], {**TWO_STAGE[1], "unfreeze": 0.5}],
    "head": HEAD,
}
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


@pytest.fixture(scope="module")
def expected(zygote, images, tmp_path_factory):
    """Return how a training ends that nobody has interrupted."""
    known = {}

    def find(learner):
        key = json.dumps(learner, sort_keys=True)
        if key not in known:
            whole = Training(zygote, images, tmp_path_factory.mktemp("whole"))
            started = time.monotonic()
            assert whole.run("whole", learner) == 0, whole.error("whole")
            known[key] = whole.outcome("whole"), time.monotonic() - started
        return known[key]

    return find


def temporary(training, name):
    return sorted(path.name for path in (training.folder / f"{name} temporary").iterdir())


def leftovers(place):
    return [path.name for path in place.rglob("*") if path.name.startswith(".")]


def test_killed_at_any_moment_a_training_goes_on_and_ends_with_the_same_bits(training, expected):
    for moment, fault in MOMENTS.items():
        assert training.run("killed", ALWAYS, faults=[fault]) == -signal.SIGKILL, moment
        assert temporary(training, "killed") != []

    assert training.run("killed", ALWAYS) == 0, training.error("killed")
    assert training.outcome("killed") == expected(ALWAYS)[0]
    assert leftovers(training.folder / "killed") == []
    assert temporary(training, "killed") == []


@pytest.mark.parametrize("learner", [VIEWS, AT_STAGE], ids=["views", "stage"])
def test_killed_at_random_between_checkpoints_it_ends_with_the_same_bits(
    training, expected, learner
):
    killed = kill_at_random(training, learner, kills=2, seconds=expected(learner)[1])

    assert training.outcome("killed") == expected(learner)[0]
    assert killed


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_no_window_between_two_writes_to_the_disk_is_dangerous(training, expected, after):
    for at in range(12, 32):  # 3 writes begin history.jsonl, 9 make a checkpoint
        fault = {"calls": WRITES, "at": at, "after": after}
        if training.run("killed", ALWAYS, faults=[fault]) == 0:
            break

    assert training.run("killed", ALWAYS) == 0, training.error("killed")
    assert training.outcome("killed") == expected(ALWAYS)[0]


def kill_at_random(training, learner, *, kills, seconds):
    """Kill a training again and again, then let it finish; return how often it was killed.

    A child is killed while it trains; one that wins the race begins in a folder of its own again.
    """
    draw, killed, tries = random.Random(0), 0, 0
    while killed < kills and tries < 3 * kills:
        tries += 1
        pid = training.start("killed", learner)
        time.sleep(draw.uniform(0.05, 1.0) * seconds)
        os.kill(pid, signal.SIGKILL)
        if training.zygote.wait(pid) == -signal.SIGKILL:
            killed += 1
        else:  # it was faster: begin anew
            shutil.rmtree(training.folder / "killed")
    assert training.run("killed", learner) == 0, training.error("killed")
    return killed


def test_a_disk_too_small_for_checkpoints_keeps_the_last_good_one_and_lets_the_training_end(
    training, expected
):
    assert training.run("small", ALWAYS, file_limit=200_000) == 0, training.error("small")

    found = training.outcome("small")
    assert {**found, "warnings": []} == expected(ALWAYS)[0]
    [warning] = found["warnings"]
    assert "cannot write a checkpoint" in warning
    assert "bytes are free" in warning
    assert leftovers(training.folder / "small") == []
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
    live = {**ALWAYS, "boundary": "off"}  # checkpoints alone are written

    assert training.run("full", live, faults=[full]) == 0, training.error("full")

    found, undisturbed = training.outcome("full"), expected(live)[0]
    assert found["sha256"] == undisturbed["sha256"]
    assert found["lines"] == undisturbed["lines"]
    assert "No space left on device; " in found["warnings"][0]
    assert leftovers(training.folder / "full") == []


class CommandLine:
    """`regraft fit` on drawn flowers, in a folder of its own."""

    def __init__(self, zygote, folder):
        self.zygote, self.folder = zygote, folder
        make_flowers(folder / "flowers", species=2, per_class=12, size=48)
        network = build(BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),)))
        write_state(folder / "net.safetensors", network.module.state_dict())

    def start(self, name, *more, **job):
        """Begin `regraft fit` and return its process id."""
        for needed in (self.folder / name, self.folder / f"{name} temporary"):
            needed.mkdir(exist_ok=True)
        command = (
            "--backbone simple_cnn --arg size=48 --strategy two_stage --engine torch "
            "--batch-size 8 --head mlp_256 --head-epochs 2 --epochs 6 --augment standard --views 2"
        )
        return self.zygote.start(
            place=self.folder / name,
            environment={"TMPDIR": str(self.folder / f"{name} temporary")},
            command=[
                "fit",
                self.folder / "flowers",
                *command.split(),
                "--weights",
                self.folder / "net.safetensors",
                "--out",
                self.folder / name / "run",
                *more,
            ],
            **job,
        )

    def wait_for_history(self, name):
        """Return when the first epoch is over."""
        told, deadline = self.folder / name / "run" / "history.jsonl", time.monotonic() + 60
        while not (told.exists() and told.read_text()):
            assert time.monotonic() < deadline, "it takes too long"
            assert "error" not in self.error(name), self.error(name)
            time.sleep(0.02)

    def error(self, name):
        """Return what it has said."""
        file = self.folder / name / "stderr.txt"
        return file.read_text() if file.exists() else ""

    def temporary(self, name):
        """Return what stands in the folder for temporary files."""
        return sorted(path.name for path in (self.folder / f"{name} temporary").iterdir())

    def weights(self, name):
        """Return the hash of each file of weights of the run."""
        files = (self.folder / name / "run" / "model").rglob("*.safetensors")
        return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture
def command_line(zygote, tmp_path):
    return CommandLine(zygote, tmp_path)


def is_gone(group):
    """Return whether nothing of a process and its children is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return False
    return True


SLOWLY = {"calls": ["regraft.training.loop.take_step"], "until": 10**6, "sleep": 0.05}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_command_line_soon_with_a_checkpoint_and_nothing_else_left(
    command_line, number, code
):
    pid = command_line.start("stopped", faults=[SLOWLY])
    command_line.wait_for_history("stopped")
    os.kill(pid, number)
    asked = time.monotonic()

    assert command_line.zygote.wait(pid) == code, command_line.error("stopped")
    assert time.monotonic() - asked < 10
    assert "Traceback" not in command_line.error("stopped")
    assert leftovers(command_line.folder / "stopped" / "run") == [".regraft.lock"]
    assert command_line.temporary("stopped") == []
    assert is_gone(pid)


def test_what_a_signal_has_stopped_ends_with_the_same_bits_in_the_command_line(command_line):
    pid = command_line.start("stopped", faults=[SLOWLY])
    command_line.wait_for_history("stopped")
    os.kill(pid, signal.SIGTERM)

    codes = [command_line.zygote.wait(pid)]
    for name, more in (("stopped", ["--resume"]), ("whole", [])):
        codes.append(command_line.zygote.wait(command_line.start(name, *more)))

    assert codes == [143, 0, 0], command_line.error("stopped")
    assert command_line.weights("stopped") == command_line.weights("whole")
    assert set(command_line.weights("whole")) == {"arrays.safetensors", "backbone.safetensors"}


def test_of_two_trainings_into_one_folder_the_second_is_refused(command_line):
    first = command_line.start("run", faults=[{**SLOWLY, "sleep": 0.2}])
    command_line.wait_for_history("run")

    assert command_line.zygote.wait(command_line.start("run")) == 1
    assert f"another process is writing here - {command_line.folder}" in command_line.error("run")
    os.kill(first, signal.SIGKILL)
    assert command_line.zygote.wait(first) == -signal.SIGKILL
    assert command_line.zygote.wait(command_line.start("run")) == 0, command_line.error("run")
