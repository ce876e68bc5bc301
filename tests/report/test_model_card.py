"""The card of a run: metadata that the hub reads, the run's own numbers, and nobody's paths."""

import dataclasses
import json

import pytest
from huggingface_hub import ModelCard

from regraft.report.model_card import model_card, shareable, write_card
from regraft.results.intervals import percent
from regraft.results.run import Run, RunRecord
from regraft.settings import from_json


@pytest.fixture
def made_again(make_run):
    """Return a function that makes a run and changes its record as it stands on the disk."""

    def make(changes, **facts):
        run = make_run(**facts)
        values = json.loads((run.folder / "run.json").read_text())
        for name, value in changes.items():
            values[name] = {**values[name], **value} if isinstance(value, dict) else value
        (run.folder / "run.json").write_text(json.dumps(values))
        return Run.open(run.folder)

    return make


def test_the_hub_reads_licence_task_and_the_test_accuracy_of_the_run(make_run):
    run = make_run(wrong=3)
    tested = run.metrics["test"]["accuracy"]

    data = ModelCard(model_card(run)).data

    assert data.license == "cc0-1.0"
    assert data.library_name == "regraft"
    assert data.pipeline_tag == "image-classification"
    (found,) = data.eval_results
    assert found.metric_type == "accuracy"
    assert found.metric_value == tested.value < 1
    assert percent(tested) in found.metric_name
    assert found.dataset_split == "test"


@pytest.mark.parametrize(
    ("licence", "said", "named"),
    [
        ("apache-2.0", "apache-2.0", None),
        ("dinov3-license", "other", "dinov3-license"),
        ("unknown", "unknown", None),
        ("none", None, None),  # random weights: the model is whose who trained it
    ],
)
def test_a_licence_is_called_as_the_hub_calls_it(made_again, licence, said, named):
    run = made_again({"backbone": {"licence": licence}})

    data = ModelCard(model_card(run)).data

    assert (data.license, data.license_name) == (said, named)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_the_numbers_of_every_part_stand_in_the_card_as_on_the_page(make_run, read_page, part):
    from regraft.report.run_page import write_page

    run = make_run(wrong=2)
    shown = percent(run.metrics[part]["accuracy"])

    assert shown.replace("[", r"\[").replace("]", r"\]") in model_card(run)
    assert shown in read_page(write_page(run)).text


def test_the_card_says_what_the_model_is_and_how_the_images_were_split(make_run):
    run = make_run(classes=("a*b", "c"), val=0.25)

    card = model_card(run)

    assert "# the run run" in card
    assert r"2 classes: a\*b, c" in card
    assert run.split_hash in card
    assert "seed 0 · val 0.25 · test 0.5" in card
    assert "regraft fit images --backbone small" in card
    assert r"fewer than 20 images: a\*b (" in card
    assert "--unlike" in card


def test_the_card_of_a_trained_network_tells_its_phases(make_run, trained):
    assert "A new head was trained on the frozen small" in model_card(make_run(history=trained))


def test_leaks_are_left_out_of_the_accuracy_that_the_hub_shows(make_run):
    first = make_run()
    test = first.predictions.part("test")
    leaked = make_run("leaky", wrong=2, leaked=(test.paths[0],))

    (found,) = ModelCard(model_card(leaked)).data.eval_results

    assert found.metric_value == leaked.metrics["test without leaks"]["accuracy"].value
    assert found.metric_value != leaked.metrics["test"]["accuracy"].value
    assert found.dataset_split == "test without leaks"


def test_without_a_test_part_the_hub_gets_no_accuracy(make_run):
    card = ModelCard(model_card(make_run(test=0, val=0.5)))

    assert card.data.eval_results is None
    assert "validation" in card.text


def test_promises_stand_in_the_card_with_what_they_brought(make_run):
    run = make_run(per_class=60, val=0.4, test=0.4)

    card = model_card(run)

    assert "sure on average" in card
    assert "`--abstain-error`" in card
    assert "95 % of all images" in card
    assert "What cannot be promised" in card
    assert "<svg" not in card


PRIVATE = ("someone", "secret", "person7", "0/1.jpg", "hf_")


@pytest.fixture
def private(made_again, monkeypatch):
    """Return a run whose record and check name paths, images and groups that are nobody's."""
    finding = {
        "code": "DATA-GROUP-LEAK",
        "severity": "error",
        "message": "1 group stands in several parts (1 in train and test): person7",
        "advice": "cut the set anew",
    }
    second = {
        "code": "DATA-CONFLICT",
        "severity": "warning",
        "message": "the same content in several classes: 1 group of 2 images: 0/1.jpg = 1/2.jpg",
        "advice": "look at them",
    }
    told = [f"{each['message']}; {each['advice']}" for each in (finding, second)]
    secret = "hf_" + "a" * 30
    run = made_again(
        {
            "config": {"data": {"source": "/srv/someone/photos", "root": r"C:\someone\photos"}},
            "command": f"regraft fit /srv/someone/photos --out=../secret/run --token {secret}",
            "warnings": [*told, "few images"],
            "leaked": ["0/1.jpg"],
            "data": {
                "origin": {"title": "Photographs", "broken": ["0/1.jpg"], "archive": "secret"}
            },
        }
    )
    (run.folder / "check.json").write_text(json.dumps({"findings": [finding, second]}))
    return run


def test_neither_paths_nor_names_of_images_and_groups_stand_in_the_card(private):
    card = model_card(private)

    assert [word for word in PRIVATE if word in card] == []
    assert "1 group stands in several parts (1 in train and test); cut the set anew" in card
    assert "1 group of 2 images; look at them" in card
    assert "regraft fit photos --out=run" in card


def test_what_is_shared_of_a_record_is_a_record_without_them(private):
    values = shareable(private)

    assert [word for word in PRIVATE if word in json.dumps(values)] == []
    assert values["config"]["data"] == {"source": "photos", "root": "photos"}
    record = from_json(RunRecord, values)
    assert record.data.origin == {"title": "Photographs"}
    other = {"config": {}, "command": "", "warnings": (), "leaked": (), "data": record.data}
    assert dataclasses.replace(record, **other) == dataclasses.replace(private.record, **other)


def test_a_card_is_written_beside_the_page_and_any_name_can_stand_in_it(make_run):
    run = make_run(classes=("x|y", 'q"\u0001\u2028#'), description="a: [b]\n---\n\x7f")

    path = write_card(run)

    card = ModelCard.load(path)
    assert path == run.folder / "README.md"
    assert card.data.model_name == r"a: [b]\n---\n\x7f"
    assert r"x\|y" in card.text
