"""The command line as people and programs meet it: errors, exit codes, signals and streams."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from regraft.cli import main


def environment(home):
    return {
        **os.environ,
        "REGRAFT_HOME": str(home / "home"),
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
    }


def start(home, *arguments, **streams):
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "regraft", *map(str, arguments)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
        env=environment(home),
        cwd=home,
    )


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.fixture
def typed(monkeypatch, capfd):
    """Return a function that types a command, and returns exit code, data and talk."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["regraft", *map(str, arguments)])
        monkeypatch.setattr(sys, "stderr", sys.stderr)  # is put back after the command
        handler = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as left:
            main()
        signal.signal(signal.SIGTERM, handler)
        return (left.value.code, *capfd.readouterr())

    return call


def test_data_goes_to_standard_output_and_talk_to_standard_error(typed, fitted, place):
    code, data, talk = typed("predict", fitted, place.image, "--json")

    assert (code, talk) == (0, "")
    assert json.loads(data)["file"] == str(place.image)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("fit no/such/folder --backbone simple_cnn", 1, "no/such/folder"),
        ("fit {flowers} --backbone resnet5O", 1, "resnet50"),
        ("fit {flowers} --backbone simple_cnn --classifier svn", 2, "linear_svm"),
        ("fit {flowers} --backbone simple_cnn --weights nowhere.pth", 1, "nowhere.pth"),
        ("fit {flowers} --backbone simple_cnn --precision fp12", 2, "bf16"),
        ("fit {flowers} --epochs 3", 2, "epochs does nothing with the strategy features"),
        ("predict no-run x.jpg", 1, "no-run"),
        ("compare-runs no-run", 1, "no-run"),
        ("weights import net.safetensors", 2, "--name"),
        ("data fetch animls", 2, "animals"),
        ("no-such-command", 2, "no-such-command"),
        ("comparee", 2, "Did you mean 'compare'"),
    ],
)
def test_an_error_is_one_plain_line_with_its_exit_code(typed, place, arguments, code, said):
    left, data, talk = typed(*arguments.format(**vars(place)).split())

    assert (left, data) == (code, "")
    assert said in talk
    assert "Traceback" not in talk
    assert len([line for line in talk.splitlines() if "no --backbone named" not in line]) == 1


def test_debug_shows_the_traceback_of_an_error(typed, monkeypatch):
    from regraft.cli import app

    monkeypatch.setattr(app, "_DEBUG", {"on": False})

    assert "Traceback" in typed("--debug", "compare-runs", "no-run")[2]


def test_an_unexpected_error_asks_for_a_report(typed, monkeypatch):
    from regraft.results import comparison

    def broken(*_arguments):
        raise ZeroDivisionError("what?")

    monkeypatch.setattr(comparison, "open_runs", broken)
    code, _, talk = typed("compare-runs", "no-run")

    assert code == 1
    assert "unexpected error: ZeroDivisionError: what?" in talk
    assert "please report it" in talk


def test_the_version_is_shown(typed):
    import regraft

    assert typed("--version") == (0, f"regraft {regraft.__version__}\n", "")


def test_ctrl_c_says_that_a_download_resumes(typed, monkeypatch):
    from regraft.data import named

    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(named, "fetch_data", interrupted)
    code, _, talk = typed("data", "fetch", "animals")

    assert code == 130
    assert "the same command resumes it" in talk


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_fit_leaves_and_its_folder_can_be_used_again(
    place, small, tmp_path, number, code
):
    many = tmp_path / "many"
    for index in range(600):
        label = many / ("a", "b")[index % 2]
        label.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (300, 300), (index % 256, 40, 90)).save(label / f"{index}.png")
    process = start(tmp_path, "fit", many, *small, "--out", tmp_path / "run")
    wait_for((tmp_path / "run" / ".regraft.lock").exists)

    process.send_signal(number)
    _, talk = process.communicate(timeout=60)

    assert process.returncode == code, talk
    assert b"Traceback" not in talk
    assert not (tmp_path / "run" / "run.json").exists()
    assert list((tmp_path / "run").rglob("*.part")) == []


@pytest.mark.slow
def test_a_stopped_training_says_how_to_resume_and_does(place, tmp_path):
    run = tmp_path / "run"
    network = ("--backbone", "simple_cnn", "--arg", "size=48", "--strategy", "from_scratch")
    arguments = ("fit", place.flowers, *network, "--epochs", "100000", "--out", run)
    process = start(tmp_path, *arguments)
    told = run / "history.jsonl"
    wait_for(lambda: told.exists() and told.read_text())

    process.send_signal(signal.SIGTERM)
    _, talk = process.communicate(timeout=60)
    epochs = len(told.read_text().splitlines())
    resumed = start(tmp_path, *arguments, "--resume", "--time-budget", "1s", "--json")
    data, said = resumed.communicate(timeout=180)

    assert process.returncode == 143, talk
    assert f"--out {run} --resume" in talk.decode()
    assert resumed.returncode == 0, said
    result = json.loads(data)
    assert len(result["history"]) > epochs
    assert result["phases"][0]["stopped"] == "time budget"
    assert not (run / "checkpoints").exists()


def test_predict_takes_names_of_any_bytes_and_windows_line_ends(place, fitted, tmp_path):
    odd = [b"caf\xe9.png", b"named\r", b"plain.png"]
    for name in odd:
        Path(tmp_path, os.fsdecode(name)).write_bytes(place.image.read_bytes())

    process = subprocess.run(
        [sys.executable, "-m", "regraft", "predict", str(fitted), "-", "--json"],
        input=b"caf\xe9.png\r\n\nnamed\r\nplain.png\r\n",
        capture_output=True,
        timeout=180,
        check=False,
        env={**environment(tmp_path), "PYTHONIOENCODING": "utf-8:strict"},
        cwd=tmp_path,
    )

    assert process.returncode == 0, process.stderr
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    assert [os.fsencode(row["file"]) for row in rows] == odd


@pytest.mark.skipif(os.name == "nt", reason="Windows has no broken pipes of this kind")
@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_reader_that_leaves_early_is_no_error(tmp_path, closed):
    reading, writing = os.pipe()
    os.close(reading)
    more = ["--json"] if closed == "stdout" else []

    process = start(tmp_path, "data", "fetch", *more, **{closed: writing})
    os.close(writing)
    data, talk = process.communicate(timeout=180)

    if closed == "stdout":
        assert (process.returncode, talk) == (141, b"")
    else:
        assert process.returncode == 0
        assert data.startswith(b"name ")
