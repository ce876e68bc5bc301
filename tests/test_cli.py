"""The command line as people and programs meet it: data, talk and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from regraft.data.synthetic import make_flowers

NETWORK = ["--backbone", "simple_cnn", "--weights"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with drawn flowers in ``flowers`` and weights in ``net.safetensors``."""
    from regraft.backbones.backbone import build
    from regraft.backbones.checkpoint_files import write_state
    from regraft.backbones.spec import BackboneSpec

    folder = tmp_path_factory.mktemp("cli")
    make_flowers(folder / "flowers", species=3, per_class=12, size=48)
    network = build(BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),)))
    write_state(folder / "net.safetensors", network.module.state_dict())
    return folder


@pytest.fixture(scope="module")
def run_folder(place):
    """Return a finished run on the flowers."""
    result = regraft(place, *fit_arguments(place), "--out", str(place / "run"), "--json")
    assert result.returncode == 0, result.stderr
    return place / "run"


def fit_arguments(place):
    return [
        "fit",
        str(place / "flowers"),
        *NETWORK,
        str(place / "net.safetensors"),
        "--engine",
        "torch",
    ]


def environment(home):
    return {
        **os.environ,
        "REGRAFT_HOME": str(home / "home"),
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
    }


def regraft(home, *arguments, **options):
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "regraft", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env=environment(home),
        cwd=home,
        **options,
    )


def test_fit_prints_one_json_object_and_nothing_else_on_stdout(place, run_folder):
    again = regraft(place, *fit_arguments(place), "--classifier", "knn", "--out", "knn", "--json")

    result = json.loads(again.stdout)

    for part, n in {"train": 21, "validation": 6, "test": 9}.items():
        low, high = result[part]["interval"]
        assert result[part]["n"] == n
        assert low <= result[part]["accuracy"] <= high
    assert {"run", "seconds", "images"} <= set(result)


def test_a_second_classifier_on_the_same_images_embeds_none_of_them(place, run_folder):
    result = regraft(
        place, *fit_arguments(place), "--classifier", "linear_svm", "--seed", "1", "--out", "svm"
    )

    assert result.returncode == 0, result.stderr
    assert "0 of 36 images embedded" in result.stderr


def test_a_run_holds_its_record_predictions_split_model_and_page(run_folder):
    names = {path.name for path in run_folder.iterdir()}

    assert {
        "run.json",
        "predictions.csv",
        "split.csv",
        "split.json",
        "check.json",
        "model",
        "report.html",
    } <= names
    record = json.loads((run_folder / "run.json").read_text())
    assert record["command"].startswith("regraft fit")
    assert record["images_embedded"] == 36


def test_evaluate_tells_what_was_learned_from_what_is_new(place, run_folder):
    looks = json.loads((run_folder / "split.json").read_text())["test_looks"]

    result = json.loads(regraft(place, "evaluate", str(run_folder), "flowers", "--json").stdout)

    assert [result[part]["n"] for part in ("train", "validation", "test")] == [21, 6, 9]
    assert result["new"] == 0
    assert result["test_looks"] == looks + 1


def test_evaluate_counts_unknown_pictures_as_test(place, run_folder):
    make_flowers(place / "later", species=3, per_class=2, size=48, seed=9)

    result = json.loads(regraft(place, "evaluate", str(run_folder), "later", "--json").stdout)

    assert result["train"] is None
    assert result["test"]["n"] == result["new"] == 6


def test_evaluate_refuses_classes_that_the_model_does_not_know(place, run_folder):
    make_flowers(place / "strangers", family="garden", species=2, per_class=2, size=48)

    result = regraft(place, "evaluate", str(run_folder), "strangers")

    assert result.returncode == 1
    assert "daisy" in result.stderr
    assert "Traceback" not in result.stderr


def test_predict_answers_every_file_in_order_and_says_which_it_refused(place, run_folder):
    good = sorted((place / "flowers" / "daisy").iterdir())[:2]
    bad = place / "bad.jpg"
    bad.write_text("<html>404</html>")

    result = regraft(
        place, "predict", str(run_folder), str(good[0]), str(bad), str(good[1]), "--json"
    )

    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 3
    assert [row["file"] for row in rows] == [str(good[0]), str(bad), str(good[1])]
    assert rows[1]["error"] == "IMG-NOT-AN-IMAGE"
    assert set(rows[0]["top"][0]) == {"label", "probability"}


def test_predict_reads_paths_from_standard_input(place, run_folder):
    picture = next((place / "flowers" / "daisy").iterdir())

    result = regraft(
        place, "predict", str(run_folder), "-", "--json", input=f"{picture}\n\n{picture}\n"
    )

    assert len(result.stdout.splitlines()) == 2


def test_predict_without_a_picture_is_wrong_usage(place, run_folder):
    (place / "nothing").mkdir(exist_ok=True)

    assert regraft(place, "predict", str(run_folder), "nothing").returncode == 2


def test_extract_writes_hdf5_and_refuses_to_overwrite(place):
    import h5py

    arguments = [
        "extract",
        "flowers",
        "-o",
        "features.h5",
        *NETWORK,
        "net.safetensors",
        "--engine",
        "torch",
    ]
    first = regraft(place, *arguments, "--json")
    second = regraft(place, *arguments)

    assert json.loads(first.stdout)["images"] == 36
    with h5py.File(place / "features.h5") as file:
        assert {"features", "labels", "label_names"} <= set(file)
    assert second.returncode == 1
    assert "features.h5" in second.stderr


def test_report_and_compare_runs_work_from_folders_alone(place, run_folder):
    result = regraft(place, "compare-runs", str(run_folder), "--json", "--out", "comparison.html")
    (run_folder / "report.html").unlink()
    page = regraft(place, "report", str(run_folder))

    assert json.loads(result.stdout)["rows"][0]["description"] == "simple_cnn + logistic"
    assert (place / "comparison.html").is_file()
    assert page.stdout.strip().endswith("report.html")
    assert (run_folder / "report.html").is_file()


def test_a_run_is_never_overwritten(place, run_folder):
    result = regraft(place, *fit_arguments(place), "--out", str(run_folder))

    assert result.returncode == 1
    assert "RUN-EXISTS" in result.stderr


def test_data_check_lists_all_bad_files_at_once_and_fails(place, tmp_path):
    make_flowers(tmp_path / "set", species=2, per_class=4, size=48)
    (tmp_path / "set" / "daisy" / "empty.jpg").write_bytes(b"")
    (tmp_path / "set" / "poppy" / "page.jpg").write_text("<html>")

    result = regraft(
        place, "data", "check", str(tmp_path / "set"), "--out", str(tmp_path / "found"), "--json"
    )

    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["bad"] == {"IMG-EMPTY": 1, "IMG-NOT-AN-IMAGE": 1}
    assert {row["path"] for row in report["bad_files"]} == {"daisy/empty.jpg", "poppy/page.jpg"}
    assert all(row["class"] and row["reason"] and row["advice"] for row in report["bad_files"])
    table = (tmp_path / "found" / "bad_files.csv").read_text()
    assert "empty.jpg" in table
    assert "page.jpg" in table


def test_fit_stops_at_bad_pictures_unless_told_to_skip_them(place, tmp_path):
    make_flowers(tmp_path / "set", species=2, per_class=10, size=48)
    (tmp_path / "set" / "daisy" / "empty.jpg").write_bytes(b"")
    arguments = ["fit", str(tmp_path / "set"), *NETWORK, "net.safetensors", "--engine", "torch"]

    stopped = regraft(place, *arguments, "--out", str(tmp_path / "a"))
    skipped = regraft(
        place, *arguments, "--out", str(tmp_path / "b"), "--skip-bad", "--max-bad", "0.1", "--json"
    )

    assert stopped.returncode == 1
    assert "empty.jpg" in stopped.stderr
    assert not (tmp_path / "a" / "run.json").exists()
    assert json.loads(skipped.stdout)["images"] == 20


def test_data_split_writes_a_manifest(place, tmp_path):
    result = regraft(place, "data", "split", "flowers", "--out", str(tmp_path), "--json")

    assert json.loads(result.stdout)["images"] == {"train": 21, "val": 6, "test": 9}
    assert (tmp_path / "split.csv").is_file()


def test_weights_are_imported_under_a_name_and_used_by_it(place):
    name = ["--name", "my_net", "--backbone", "simple_cnn"]
    imported = regraft(
        place,
        "weights",
        "import",
        "net.safetensors",
        *name,
        "--mean",
        "0.4",
        "--std",
        "0.3",
        "--json",
    )
    shown = regraft(place, "backbones", "show", "my_net", "--json")
    verified = regraft(place, "weights", "verify", "my_net")

    assert json.loads(imported.stdout)["preprocessing"]["mean"] == [0.4, 0.4, 0.4]
    assert json.loads(shown.stdout)["preprocessing"]["std"] == [0.3, 0.3, 0.3]
    assert verified.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["fit", "no/such/folder", "--backbone", "simple_cnn"], 1, "no/such/folder"),
        (["fit", "flowers", "--backbone", "resnet5O"], 1, "resnet50"),
        (["fit", "flowers", "--backbone", "simple_cnn", "--classifier", "svn"], 2, "linear_svm"),
        (
            ["fit", "flowers", "--backbone", "simple_cnn", "--weights", "nowhere.safetensors"],
            2,
            "nowhere.safetensors",
        ),
        (["fit", "flowers", "--backbone", "simple_cnn", "--precision", "fp12"], 2, "bf16"),
        (["classify", "flowers/daisy/daisy_0000.jpg"], 2, "--backbone"),
        (["predict", "no-run", "x.jpg"], 1, "no-run"),
        (["compare-runs", "no-run"], 1, "no-run"),
        (["weights", "import", "net.safetensors"], 2, "--name"),
        (["no-such-command"], 2, "no-such-command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_an_error_is_one_plain_line_with_its_exit_code(place, arguments, code, said):
    result = regraft(place, *arguments)

    assert result.returncode == code, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_debug_shows_the_traceback_of_an_error(place):
    result = regraft(place, "--debug", "fit", "no/such/folder", "--backbone", "simple_cnn")

    assert "Traceback" in result.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_fit_leaves_quickly_and_its_folder_can_be_used_again(
    place, tmp_path, number, code
):
    flowers = tmp_path / "many"
    make_flowers(flowers, species=2, per_class=8, size=48)
    for index in range(600):
        Image.new("RGB", (300, 300), (index % 256, 40, 90)).save(
            flowers / "daisy" / f"plain{index}.png"
        )
    arguments = [
        "fit",
        str(flowers),
        *NETWORK,
        str(place / "net.safetensors"),
        "--out",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "regraft", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
        cwd=tmp_path,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / ".lock").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    start = time.monotonic()
    _, talk = process.communicate(timeout=60)

    assert process.returncode == code, talk
    assert time.monotonic() - start < 10
    assert "Traceback" not in talk
    assert not (tmp_path / "run" / "run.json").exists()
    assert list(Path(tmp_path / "run").rglob("*.part")) == []


@pytest.mark.slow
def test_a_stopped_training_says_how_to_go_on_and_does(place, tmp_path):
    arguments = [
        "fit",
        str(place / "flowers"),
        *NETWORK[:2],
        "--arg",
        "size=48",
        "--strategy",
        "from_scratch",
        "--epochs",
        "100000",
        "--out",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "regraft", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
        cwd=tmp_path,
    )
    told = tmp_path / "run" / "history.jsonl"
    deadline = time.monotonic() + 120
    while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, talk = process.communicate(timeout=60)
    epochs = len(told.read_text().splitlines())

    resumed = regraft(tmp_path, *arguments, "--resume", "--time-budget", "1s", "--json")

    assert process.returncode == 143, talk
    assert f"--out {tmp_path / 'run'} --resume" in talk
    assert "Traceback" not in talk
    assert resumed.returncode == 0, resumed.stderr
    result = json.loads(resumed.stdout)
    assert len(result["history"]) > epochs
    assert result["phases"][0]["stopped"] == "time budget"
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_predict_takes_names_of_any_bytes_and_windows_line_ends(place, run_folder):
    picture = next((place / "flowers" / "daisy").iterdir())
    odd = [b"caf\xe9.png", b"named\r", b"plain.png"]
    for name in odd:
        (place / os.fsdecode(name)).write_bytes(picture.read_bytes())

    result = subprocess.run(
        [sys.executable, "-m", "regraft", "predict", str(run_folder), "-", "--json"],
        input=b"caf\xe9.png\r\nnamed\r\nplain.png\r\n",
        capture_output=True,
        timeout=180,
        check=False,
        env={**environment(place), "PYTHONIOENCODING": "utf-8:strict"},
        cwd=place,
    )

    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [os.fsencode(row["file"]) for row in rows] == odd


@pytest.mark.skipif(os.name == "nt", reason="Windows has no broken pipes of this kind")
@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_reader_that_leaves_early_is_no_error(tmp_path, closed):
    reading, writing = os.pipe()
    os.close(reading)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, closed: writing}
    command = "data fetch --json" if closed == "stdout" else "data fetch"

    process = subprocess.Popen(
        [sys.executable, "-m", "regraft", *command.split()], env=environment(tmp_path), **streams
    )
    os.close(writing)
    data, talk = process.communicate(timeout=180)

    if closed == "stdout":
        assert (process.returncode, talk) == (141, b"")
    else:
        assert process.returncode == 0
        assert data.startswith(b"name ")
