"""A page follows a training of another process: its curves, what it confuses, and its death."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from regraft.data.synthetic import make_flowers
from regraft.errors import UsageError
from regraft.report.watch import find_runs, make_server, page, seconds_left

EPOCH = {"phase": 1, "seconds": 2.0, "train_loss": 0.5, "train_accuracy": 0.8, "lr": 0.1}
VALIDATED = {**EPOCH, "val_loss": 0.7, "val_accuracy": 0.75}


@contextlib.contextmanager
def regraft(*arguments, stderr=subprocess.DEVNULL):
    command = [sys.executable, "-m", "regraft", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """Return a training without end, and a server that follows it, as processes."""
    folder = tmp_path_factory.mktemp("watch")
    make_flowers(folder / "images", species=3, per_class=6, size=48)
    network = ("--backbone", "simple_cnn", "--arg", "size=48", "--strategy", "from_scratch")
    run = ("--epochs", 100_000, "--out", folder / "runs" / "long")
    with (
        regraft("fit", folder / "images", *network, *run) as fit,
        regraft("watch", folder / "runs", "--port", 0) as server,
    ):
        address = server.stdout.readline().strip()
        port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", address)[1])
        yield SimpleNamespace(fit=fit, server=server, port=port)


def ask(port, path="/", *, method="GET", host=None):
    """Return status, headers and text of an answer; the path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    with contextlib.closing(connection):
        return answer.status, answer.headers, answer.read().decode()


def wait_for(port, *words):
    """Return the page as soon as it has all these words."""
    for _ in range(400):
        text = ask(port)[2]
        if all(word in text for word in words):
            return text
        time.sleep(0.2)
    raise AssertionError(words)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
def test_a_training_of_another_terminal_is_followed_and_what_it_had_survives_its_death(training):
    shown = ("Confusion", "data:image/jpeg", "of 100000", "<svg")
    text = wait_for(training.port, *shown)

    assert "<td>running</td>" in text
    assert re.search(r"about [\d. hmins]+ left", text)
    assert "n = 3" in text  # validation images
    training.fit.send_signal(signal.SIGKILL)
    training.fit.wait()
    text = wait_for(training.port, "<td>stopped</td>", *shown)
    assert "stopped before it was finished" in text
    last = int(re.findall(r'id="epoch-(\d+)"', text)[-1])
    key = re.search(r'href="\?run=(\w+)"', text)[1]
    earlier = ask(training.port, f"/?run={key}&epoch={last - 1}")[2]
    assert f'epoch={last - 1}#images" aria-current="true"' in earlier


def test_only_this_machine_is_answered_and_with_nothing_but_the_page(training):
    for host in ("evil.example", f"evil.example:{training.port}", "127.0.0.1:1", "127.0.0.1"):
        assert ask(training.port, host=host)[0] == 403
    for path in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/runs/long"):
        status, _, text = ask(training.port, path)
        assert (status, text) == (404, "there is nothing but /")
    assert ask(training.port, method="POST")[0] == 501

    status, headers, text = ask(training.port, "/?run=../../etc", host=f"localhost:{training.port}")

    assert status == 200
    nonce = re.search(r"script-src 'nonce-(.+?)'", headers["Content-Security-Policy"])[1]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert re.findall(r"<script.*?>", text) == [f'<script nonce="{nonce}">']
    assert nonce not in ask(training.port)[2]


@pytest.mark.skipif(os.name != "posix", reason="Windows has other signals")
def test_ctrl_c_ends_the_server_as_it_ends_other_commands(tmp_path):
    with regraft("watch", tmp_path, "--port", 0, stderr=subprocess.PIPE) as server:
        assert "No run here yet" in wait_for(int(server.stdout.readline().split(":")[2][:-2]), "")

        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=60)

    assert server.returncode == 130
    assert said.splitlines()[-1] == "regraft: interrupted"


def left_behind(folder, *lines, **live):
    """Write what a stopped training has left."""
    folder.mkdir(parents=True)
    (folder / ".regraft.lock").touch()
    (folder / "history.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"phase": 1, "ep')
    facts = {"planned": [4], "time_budget": None, "epochs": [], "images": [], "counts": []}
    (folder / "live.json").write_text(json.dumps(facts | live))
    return folder


def test_half_a_line_is_no_epoch_and_names_are_escaped(tmp_path):
    name = "<script>alert(1)</script>"
    answers = {"number": 1, "answers": [[0, 0.5]]}
    samples = {"images": [["/nowhere/<b>.jpg", name]], "epochs": [answers], "classes": [name, "b"]}
    left_behind(tmp_path / "<b>run", VALIDATED | {"epoch": 1}, counts=[[0, 0, 3]], **samples)

    text = page([tmp_path], {})

    assert "1 of 4" in text
    assert re.search(r"66\.7.*n = 3", text)
    assert "image not here" in text
    assert "<script>alert" not in text
    assert "<b>run" not in text


def test_of_many_classes_the_most_confused_pairs_are_shown(tmp_path):
    names = [f"kind {n}" for n in range(40)]
    counts = [[0, 0, 5], [1, 2, 3], [3, 4, 1]]
    left_behind(tmp_path / "run", VALIDATED | {"epoch": 1}, classes=names, counts=counts)

    text = page([tmp_path], {})

    assert "Most confused pairs" in text
    assert text.index("kind 1<") < text.index("kind 3<")
    assert "kind 5" not in text


@pytest.mark.parametrize("damage", ["[]", "{", '{"planned": "x", "counts": 3, "epochs": {}}'])
def test_a_damaged_run_does_not_hide_the_others(tmp_path, damage, make_run):
    (left_behind(tmp_path / "runs" / "bad", EPOCH | {"epoch": 1}) / "live.json").write_text(damage)
    (left_behind(tmp_path / "runs" / "worse", 3) / "run.json").write_text("[]")
    make_run("good")

    text = page([tmp_path / "runs"], {})

    assert all(f">{name}</a>" in text for name in ("bad", "worse", "good"))


def test_a_finished_run_shows_what_came_out(make_run, trained, tmp_path):
    run = make_run(wrong=2, history=trained, epochs=5)

    [found] = find_runs([tmp_path])  # below `runs`, as of a plan
    text = page([run.folder], {})

    assert (found.folder, found.state, len(found.epochs)) == (run.folder, "finished", 5)
    assert "the run run" in text
    assert "The finished model on the test images, 18 images" in text
    assert str(run.folder / "report.html") in text
    assert "Some validation images" not in text


def test_a_run_at_work_comes_first_then_the_last_one_written(tmp_path):
    for at, name in enumerate(("old", "new")):
        left_behind(tmp_path / name, EPOCH | {"epoch": 1})
        for file in (tmp_path / name).iterdir():
            os.utime(file, (at, at))
        os.utime(tmp_path / name, (at, at))

    assert [run.folder.name for run in find_runs([tmp_path, tmp_path / "none"])] == ["new", "old"]


def test_the_time_left_is_that_of_the_last_epochs_and_no_more_than_the_budget():
    epochs = [{"phase": 1, "epoch": n, "seconds": s} for n, s in enumerate((90, 4, 2, 3), 1)]

    assert seconds_left(epochs, [10, 2]) == 8 * 3.0
    assert seconds_left(epochs, [10], budget=100 / 60) == pytest.approx(1.0)
    assert seconds_left([*epochs, {"phase": 2, "epoch": 1, "seconds": 7}], [10, 2]) == 7.0
    assert seconds_left(epochs, [4], since=5.0) == 0.0


def test_a_taken_port_is_said(tmp_path):
    with make_server([tmp_path], 0) as server:
        for port in (server.server_port, 70_000):
            with pytest.raises(UsageError, match=f"port {port}"):
                make_server([tmp_path], port)
