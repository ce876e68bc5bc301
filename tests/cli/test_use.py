"""`classify`, `predict`, `evaluate`, `report`, `compare-runs`, `push` and `pull`."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from regraft.errors import DataError, UsageError
from stand_in_hub import TOKEN


def test_classify_says_what_the_default_network_sees(regraft, place):
    shown = regraft("classify", place.image, "--top", "3")
    machine = regraft("classify", place.image, "--top", "3", "--json").stdout
    told = json.loads(machine.splitlines()[0])

    assert "no --backbone named: efficientnet_lite0" in shown.stderr
    assert (told["backbone"], len(told["top"])) == ("efficientnet_lite0", 3)
    assert told["truth"] == "n11939491"  # the name of its folder: daisy
    first = told["top"][0]
    assert set(first) == {"wnid", "label", "probability"}
    told = (place.image, "efficientnet_lite0", first["wnid"], first["label"])
    line = "\t".join(map(str, (*told, f"{first['probability']:.4f}")))
    assert shown.stdout.splitlines()[0] == line
    assert "top-5 error" in shown.stdout


def test_networks_stand_side_by_side_with_their_errors_and_on_a_page(regraft, tmp_path):
    from regraft.experiment.demo import photographs

    china, daisy = photographs()
    for folder, path in (("palace", china), ("n11939491", daisy), ("tench", daisy)):
        (tmp_path / folder).mkdir()
        shutil.copy(path, tmp_path / folder / f"{folder}.jpg")
    (tmp_path / "tench" / "bad.jpg").write_text("<html>")
    networks = ("--backbone", "efficientnet_lite0", "--backbone", "efficientnet_lite1")
    command = ("classify", tmp_path, *networks, "--top", "2")

    shown = regraft(*command, "--out", tmp_path / "seen.html")
    lines = [json.loads(line) for line in regraft(*command, "--json").stdout.splitlines()]

    assert shown.return_value == 3
    assert [row["backbone"] for row in lines[:2]] == ["efficientnet_lite0", "efficientnet_lite1"]
    assert all(len(row["top"]) == 2 for row in lines if "top" in row)
    assert [name for name, *_ in lines[-1]["errors"]] == [row["backbone"] for row in lines[:2]]
    assert lines[-1]["errors"][0][1]["value"] == pytest.approx(1 / 3)  # the daisy called a tench
    assert "efficientnet_lite0  33.3 % [" in shown.stdout
    page = (tmp_path / "seen.html").read_text()
    assert page.count('<img src="data:image/jpeg;base64,') == 3
    assert page.count("<caption>efficientnet_lite1</caption>") == 3
    assert "http:" not in page


def test_the_true_class_is_read_from_the_file_name_or_refused(regraft, place, tmp_path):
    shutil.copy(place.image, tmp_path / "985_flower.jpg")
    command = ("classify", tmp_path / "985_flower.jpg", "--label-from-name")

    told = regraft(*command, "^(?P<label>[0-9]+)_", "--json").stdout.splitlines()

    assert json.loads(told[0])["truth"] == "n11939491"
    with pytest.raises(UsageError, match="tells no class of ImageNet"):
        regraft(*command, "_(?P<label>[a-z]+)")


def test_predict_answers_every_file_in_order_and_says_which_it_refused(
    regraft, place, fitted, tmp_path
):
    bad = tmp_path / "bad.jpg"
    bad.write_text("<html>404</html>")
    files = (place.image, bad, place.flowers / "poppy")

    shown = regraft("predict", fitted, *files)
    result = regraft("predict", fitted, *files, "--json", "--top", "2")

    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.return_value == shown.return_value == 3
    assert [row["file"] for row in rows[:2]] == [str(place.image), str(bad)]
    assert len(rows) == 14
    assert rows[1]["error"] == "IMG-NOT-AN-IMAGE"
    assert [set(entry) for entry in rows[0]["top"]] == [{"label", "probability"}] * 2
    assert rows[0]["top"][0]["probability"] >= rows[0]["top"][1]["probability"]
    assert f"{bad}\trefused\tIMG-NOT-AN-IMAGE" in shown.stdout
    assert "refused: " in shown.stderr


def test_predictions_are_a_table_that_spreadsheets_can_open(regraft, place, fitted, tmp_path):
    odd = tmp_path / "=cmd(), a.jpg"
    shutil.copy(place.image, odd)
    (tmp_path / "bad.jpg").write_text("<html>")

    result = regraft("predict", fitted, odd, tmp_path / "bad.jpg", "--csv", "--top", 2)

    header, good, bad = csv.reader(result.stdout.splitlines())
    assert result.return_value == 3
    assert header[:2] == ["file", "error"]
    assert header[4:] == ["label_1", "probability_1", "label_2", "probability_2"]
    assert (good[0], good[1]) == (str(odd), "")
    assert float(good[5]) + float(good[7]) == pytest.approx(1, abs=1e-5)
    assert bad == [str(tmp_path / "bad.jpg"), "IMG-NOT-AN-IMAGE", *[""] * 6]
    with pytest.raises(UsageError, match="contradict"):
        regraft("predict", fitted, odd, "--csv", "--json")


def test_a_file_named_twice_is_answered_twice_and_a_pattern_without_a_match_is_refused(
    regraft, place, fitted, tmp_path
):
    pattern = tmp_path / "*.jpg"  # as a shell hands it on where nothing matches

    result = regraft("predict", fitted, place.image, pattern, place.image, "--json")

    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.return_value == 3
    assert [row["file"] for row in rows] == [str(place.image), str(pattern), str(place.image)]
    assert rows[0] == rows[2]
    assert rows[1]["error"] == "IMG-UNREADABLE"


def test_without_an_image_it_is_wrong_usage(regraft, fitted, tmp_path):
    (tmp_path / ".hidden.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match="no image"):
        regraft("predict", fitted, tmp_path)
    with pytest.raises(UsageError, match="no image"):
        regraft("predict", fitted, "-")


def test_evaluate_tells_what_was_learned_from_what_is_new(regraft, place, fitted, tmp_path):
    looks = json.loads((fitted / "split.json").read_text())["test_looks"]
    new = tmp_path / "new"
    for name in ("daisy", "poppy"):
        shutil.copytree(place.flowers / name, new / name)
    image = next((new / "daisy").iterdir())
    image.write_bytes(image.read_bytes() + b"another file")

    shown = regraft("evaluate", fitted, place.flowers)
    told = json.loads(regraft("evaluate", fitted, new, "--json").stdout)

    assert "all are of the run's own split" in shown.stderr
    assert shown.stdout.startswith("part ")
    assert sum(told[part]["n"] for part in ("train", "validation", "test")) == 24
    assert told["new"] == 1
    assert told["test_looks"] == looks + 2


def test_evaluate_refuses_classes_that_the_model_does_not_know(regraft, place, fitted):
    with pytest.raises(DataError, match="daisy"):
        regraft("evaluate", fitted, place.animals)


@pytest.fixture(scope="module")
def runs(regraft, small, place, tmp_path_factory):
    """Return a folder with two runs on one split."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("logistic", "50 % & knn_1"):
        classifier = "knn" if "knn" in name else "logistic"
        more = ("--classifier", classifier, "--description", name, "--out", folder / classifier)
        regraft("fit", place.flowers, *small, *more)
    return folder


@pytest.mark.parametrize(
    ("form", "beginning", "said"),
    [
        ("text", "description", "50 % & knn_1"),
        ("markdown", "| description |", "50 % & knn\\_1"),
        ("latex", "% needs \\usepackage{booktabs}", "\\% \\& knn\\_1"),
        ("csv", "description,data,epochs", "50 % & knn_1"),
    ],
)
def test_runs_are_compared_in_every_form(regraft, runs, form, beginning, said):
    text = regraft("compare-runs", runs, "--format", form).stdout

    assert text.startswith(beginning)
    assert said in text


def test_a_machine_gets_rows_verdicts_and_the_page(regraft, runs, tmp_path):
    page = tmp_path / "comparison.html"
    result = json.loads(regraft("compare-runs", runs, "--json", "--out", page).stdout)

    assert {row["description"] for row in result["rows"]} == {"logistic", "50 % & knn_1"}
    assert len(result["verdicts"]) == 1
    assert result["page"] == str(page)
    assert page.is_file()


def test_runs_are_compared_class_by_class_and_folder_by_folder(regraft, runs, tmp_path):
    reports = json.loads(regraft("compare-runs", runs, "--classes", "--json").stdout)
    text = regraft("compare-runs", runs, "--classes").stdout
    page = tmp_path / "all.html"
    apart = regraft("compare-runs", runs, runs / "knn", "--apart", "--out", page).stdout
    values = json.loads(regraft("compare-runs", runs, "--apart", "--json").stdout)

    assert set(reports) == {"logistic", "50 % & knn_1"}
    precision, _, _, images = reports["logistic"]["daisy"]
    assert precision["n"] > 0
    assert images == 3
    assert text.split()[:6] == ["class", "method", "precision", "recall", "F1", "images"]
    assert f"{runs.name}\n\ndescription" in apart
    assert apart.index("\nknn\n") > apart.index("logistic")
    assert [len(value["rows"]) for value in values] == [2]
    assert page.read_text(encoding="utf-8").count("<section") == 3


def test_what_a_plan_has_written_is_a_folder_of_runs(regraft, runs, tmp_path):
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "runs").symlink_to(runs)

    rows = json.loads(regraft("compare-runs", tmp_path / "plan", "--json").stdout)["rows"]

    assert len(rows) == 2


def test_the_page_of_a_run_is_written_again_from_its_folder_alone(regraft, runs, place):
    for page in runs.rglob("report.html"):
        page.unlink()

    shown = regraft("report", runs).stdout.splitlines()
    again = regraft("report", runs, "--data", place.flowers).stdout.splitlines()

    assert shown == again
    assert sorted(shown) == sorted(str(page) for page in runs.rglob("report.html"))
    with pytest.raises(UsageError, match="--data"):
        regraft("report", runs, "--data", runs / "nowhere")


def test_an_exported_model_says_unknown_where_an_error_was_promised(regraft, small, tmp_path):
    draw = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (tmp_path / "shades" / name).mkdir(parents=True)
        for number in range(60):
            shade = (level + draw.integers(-50, 50, (48, 48, 3))).astype(np.uint8)
            Image.fromarray(shade).save(tmp_path / "shades" / name / f"{number}.png")
    run, between = tmp_path / "run", tmp_path / "between.png"
    Image.fromarray(np.full((48, 48, 3), 125, np.uint8)).save(between)
    options = (*small, "--classifier", "knn", "--val", 0.4, "--export", "--out", run)
    regraft("fit", tmp_path / "shades", *options)
    sure = tmp_path / "shades" / "dark" / "0.png"

    result = regraft("predict", run, sure, "--abstain-error", 0.1, "--coverage", 0.9)
    rows = regraft("predict", run, sure, between, "--unlike", 0.1, "--json").stdout.splitlines()

    label, confidence, labels = result.stdout.split("\t")[1:]
    assert (label, labels) == ("dark", "{dark}\n")
    assert float(confidence) > 0.9
    assert "at most 10.0 % are wrong, by 48 validation images" in result.stderr
    assert [json.loads(row)["unknown"] for row in rows] == [False, True]
    with pytest.raises(UsageError, match=r"an error of 1\.0 % cannot be promised"):
        regraft("predict", run, sure, "--abstain-error", 0.01)


def test_a_model_goes_to_a_hub_and_predicts_the_same_when_it_is_back(
    regraft, place, fitted, hub, tmp_path
):
    sent = regraft("push", fitted / "model", "ada/flowers", "--private", "--message", "first try")
    commit = sent.stdout.strip().rpartition("/")[2]
    regraft("push", fitted, "ada/flowers")

    back = regraft("pull", "ada/flowers", tmp_path / "back", "--revision", commit)

    before, after = (
        regraft("predict", run, place.image).stdout for run in (fitted, tmp_path / "back")
    )
    assert before == after
    assert back.stdout == f"{tmp_path / 'back'}\n"
    assert f"regraft predict {tmp_path / 'back'} IMAGES" in back.stderr
    assert f"to {hub.url}/ada/flowers (private):" in sent.stderr
    assert "  model/arrays.safetensors  " in sent.stderr
    assert hub.repositories["ada/flowers"]["private"]
    assert TOKEN not in sent.stdout + sent.stderr + back.stdout + back.stderr


def test_without_a_token_or_a_hub_push_and_pull_end_before_anything_heavy_is_imported(
    fitted, hub, tmp_path
):
    code = "import sys; from regraft.cli import main\n"
    code += "try: main()\nfinally: assert 'torch' not in sys.modules"
    for words, variables, said in (
        (("push", fitted, "ada/flowers"), {"HF_TOKEN": ""}, "HUB-TOKEN"),
        (("push", fitted, "ada/flowers"), {"HF_ENDPOINT": "http://127.0.0.1:1"}, "HUB-OFFLINE"),
        (("pull", "ada/flowers", tmp_path / "x"), {"HF_HUB_OFFLINE": "1"}, "HUB-OFFLINE"),
    ):
        command = [sys.executable, "-c", code, *map(str, words)]
        environment = {**os.environ, **variables}
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=60
        )
        assert ended.returncode == 1
        assert said in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
