import csv
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.data.dataset import Dataset
from regraft.errors import DataError
from regraft.results.predictions import Predictions, evaluate

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ODD = ["=cmd()", "+1", "-dash", "@here", "'quoted'", 'a,"b"', "two\nlines", "\rreturn", "\ttab"]
ODD += ["crlf\r\nend", "p:", " ", "naïve 😀", "bytes \udcff\udc80", "", "007", "NA"]


def make(classes, *, n=6, seed=0):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(len(classes)), n).astype(np.float32)
    truth = tuple(classes[i % len(classes)] for i in range(n))
    parts = tuple(("train", "val", "test")[i % 3] for i in range(n))
    paths = tuple(f"{name}/{i}.jpg" for i, name in enumerate(truth))
    return Predictions(paths, truth, tuple(classes), probabilities, parts)


def same(one, two):
    columns = ("paths", "truth", "classes", "parts")
    return all(getattr(one, c) == getattr(two, c) for c in columns) and np.array_equal(
        one.probabilities, two.probabilities
    )


@settings(max_examples=60)
@given(classes=st.lists(NAMES, min_size=1, max_size=5, unique=True), seed=st.integers(0, 9))
def test_any_name_and_any_probability_survive_the_table(tmp_path_factory, classes, seed):
    p = make(classes, seed=seed)
    file = tmp_path_factory.mktemp("tables") / "p.csv"

    p.write(file)

    assert same(Predictions.read(file), p)
    make(classes, n=0).write(file)
    assert Predictions.read(file).predicted == ()


def test_odd_names_survive_and_no_cell_runs_as_a_formula_in_a_spreadsheet(tmp_path):
    p = make(ODD, n=40)
    p.write(tmp_path / "p.csv")

    with (tmp_path / "p.csv").open(newline="", errors="surrogateescape") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]

    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert cells[:6] == ["path", "part", "truth", "predicted", "confidence", "p:=cmd()"]
    assert same(Predictions.read(tmp_path / "p.csv"), p)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "line 0: it must read"),
        ("path,part,truth,predicted,confidence,a\n", "line 1: it must read"),
        ("path,part,truth,predicted,confidence,p:a\nx,test,a\n", "line 2: 3 cells"),
        ("path,part,truth,predicted,confidence,p:a\nx,test,a,a,1,one\n", "line 2"),
        ("path,part,truth,predicted,confidence,p:a\nx,test,a,a,1,nan\n", "from 0 to 1"),
        ("path,part,truth,predicted,confidence,p:a\nx,test,b,a,1,1\n", "unknown to the model: b"),
        ("path,part,truth,predicted,confidence,p:a\nx,dev,a,a,1,1\n", "unknown part"),
    ],
)
def test_a_damaged_table_is_refused_and_says_where(tmp_path, content, why):
    (tmp_path / "p.csv").write_text(content)

    with pytest.raises(DataError, match=why):
        Predictions.read(tmp_path / "p.csv")


def test_parts_are_found_by_either_name_joined_and_left_out():
    p = make(("a", "b"), n=9)

    assert len(p.part("validation")) == len(p.part("val")) == 3
    whole = p.part("train").joined(p.part("val"), p.part("test"))
    assert sorted(whole.paths) == sorted(p.paths)
    assert p.without([*p.paths[1:8], "elsewhere.jpg"]).paths == (p.paths[0], p.paths[8])
    with pytest.raises(DataError, match="different classes"):
        p.joined(make(("b", "a")))
    with pytest.raises(DataError, match="unknown part"):
        p.part("dev")


@pytest.mark.parametrize("probabilities", [[[0.5]], [[1.5, 0.5]], [[-0.5, 1]], [[np.nan, 1]]])
def test_what_is_not_a_probability_is_refused(probabilities):
    with pytest.raises(DataError):
        Predictions(("1",), ("a",), ("a", "b"), np.array(probabilities), ("test",))


def learner(classes):
    return SimpleNamespace(
        classes_=np.array(classes), predict_proba=lambda X: np.full((len(X), len(classes)), 0.5)
    )


def test_evaluating_names_the_images_relative_to_their_folder(tmp_path):
    data = Dataset((tmp_path / "a" / "1.jpg",), ("a",), ("a", "b"), root=tmp_path)

    p = evaluate(learner(["a", "b"]), data, "validation")

    assert (p.paths, p.truth, p.parts) == (("a/1.jpg",), ("a",), ("val",))
    assert p.classes == ("a", "b")
    assert "accuracy" in p.classification_report()


def test_labels_that_the_model_does_not_know_are_an_error_with_both_lists():
    data = Dataset(("1.jpg", "2.jpg"), ("Rose", "lily"), ("Rose", "lily"))

    with pytest.raises(DataError) as caught:
        evaluate(learner(["lily", "rose"]), data)

    assert caught.value.code == "DATA-CLASSES"
    assert "Rose" in str(caught.value)
    assert "lily, rose" in str(caught.value)


def test_classes_may_be_missing_in_the_data_but_not_all_images():
    p = evaluate(learner(["a", "b"]), Dataset(("1.jpg",), ("a",), ("a",)))

    assert p.predicted == ("a",)  # of two alike the first one
    assert p.confidence.tolist() == [0.5]
    with pytest.raises(ValueError, match="read-only"):
        p.probabilities[0] = 0
    with pytest.raises(DataError, match="no image"):
        evaluate(learner(["a"]), Dataset((), (), ("a",)))
