import os
import signal
import subprocess
import sys

import pytest

from regraft.errors import RunError
from regraft.results.run import no_run, reserve, unfinished

HOLD = """
import sys, time
from regraft.results.run import reserve
with reserve(sys.argv[1]) as place:
    (place / "predictions.csv").write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Return a process that has reserved ``tmp_path / "run"``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_writer_is_refused_and_told_who_is_first(tmp_path, holder):
    with pytest.raises(RunError) as caught, reserve(tmp_path / "run"):
        pass

    assert caught.value.code == "RUN-LOCKED"
    assert f"process {holder.pid}" in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
def test_the_folder_of_a_killed_writer_is_free_again(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()

    assert unfinished(tmp_path / "run")
    with reserve(tmp_path / "run") as place:
        assert (place / "predictions.csv").read_text() == "half"


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.txt").touch()

    with pytest.raises(RunError, match=r"thesis\.txt") as caught, reserve(tmp_path):
        pass

    assert caught.value.code == "RUN-EXISTS"


def test_the_folder_of_a_killed_training_may_be_used_again(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in (".lock", "history.jsonl"):
        (tmp_path / name).touch()

    with reserve(tmp_path) as place:
        assert (place / "checkpoints").is_dir()


def test_files_named_like_ours_are_somebody_else_s_without_our_mark(tmp_path):
    (tmp_path / "predictions.csv").touch()

    with pytest.raises(RunError, match="not empty"), reserve(tmp_path):
        pass


def test_an_unfinished_run_with_foreign_files_is_refused(tmp_path):
    for name in (".lock", "predictions.csv", "notes.txt"):
        (tmp_path / name).touch()

    with pytest.raises(RunError, match=r"notes\.txt"), reserve(tmp_path):
        pass


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").touch()

    with pytest.raises(RunError, match="file, not a folder"), reserve(tmp_path / "run"):
        pass


def test_a_work_that_left_nothing_leaves_no_folder(tmp_path):
    with pytest.raises(KeyboardInterrupt), reserve(tmp_path / "run"):
        raise KeyboardInterrupt

    assert not (tmp_path / "run").exists()


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "run").mkdir()

    with reserve(tmp_path / "run") as place:
        (place / "run.json").touch()

    assert [entry.name for entry in place.iterdir()] == ["run.json"]


def test_where_there_is_no_run_the_error_says_what_to_name(tmp_path):
    (tmp_path / "compared" / "runs" / "one").mkdir(parents=True)
    (tmp_path / "compared" / "runs" / "one" / "run.json").write_text("{}")
    (tmp_path / "image.jpg").write_text("")

    said = {name: str(no_run(tmp_path / name)) for name in ("compared", "image.jpg", "absent")}

    assert f"name {tmp_path / 'compared' / 'runs'}" in said["compared"]
    assert "this is a file - name the folder that holds run.json" in said["image.jpg"]
    assert "there is no such folder" in said["absent"]
    assert "name the folder that holds run.json" in str(no_run(tmp_path))
