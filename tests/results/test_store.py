import pytest

from regraft.errors import RunError
from regraft.results.intervals import wilson
from regraft.results.run import Run, reserve
from regraft.results.store import RunStore, open_runs


@pytest.fixture
def store(tmp_path, record, split, predict):
    """Return a store with two finished runs, an unfinished one and a foreign folder."""
    store = RunStore(tmp_path / "runs")
    for name, wrong in (("first", 0), ("second", 7)):
        Run.create(store.folder / name, record, predict(split, wrong=wrong), split=split)
    (store.folder / "photos").mkdir()
    with reserve(store.folder / "third") as place:  # never becomes a run: nobody writes run.json
        (place / "predictions.csv").touch()
    return store


def test_only_finished_runs_are_listed(store):
    assert store.list() == ("first", "second")
    assert store.unfinished() == ("third",)


def test_a_run_is_opened_by_name(store):
    assert store.open("second").metrics["test"]["accuracy"] == wilson(11, 18)

    with pytest.raises(RunError, match="there are first, second"):
        store.open("fourth")


def test_a_name_cannot_lead_out_of_the_store(store):
    with pytest.raises(RunError, match="no run"):
        store.open("../runs/first")


def test_runs_are_opened_one_by_one_or_by_their_folder(store):
    both = open_runs([store.folder])

    assert [run.name for run in both] == ["first", "second"]
    assert [run.name for run in open_runs([store.folder / "second"])] == ["second"]
    with pytest.raises(RunError):
        open_runs([store.folder / "photos"])


def test_a_free_folder_is_named_after_the_description_and_never_taken(store):
    assert store.free_folder("../VGG16: <b> & SVM").name == "vgg16-b-svm"
    assert store.free_folder("first").name == "first-2"
    assert store.free_folder("日本").name == "run"


def test_a_store_that_is_not_there_is_empty(tmp_path):
    assert RunStore(tmp_path / "absent").runs() == ()
