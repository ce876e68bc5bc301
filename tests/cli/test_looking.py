import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from regraft.cli.app import app
from regraft.data.dataset import Dataset
from regraft.results.predictions import Predictions
from regraft.results.run import Run, RunRecord


@pytest.fixture
def runs(tmp_path):
    """Return a folder with two runs on one split: one that is right and one that guesses."""
    for label in ("rose_1", "50 % & more"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(20):
            picture = Image.new("RGB", (8, 8), (number, len(label), 0))
            picture.save(tmp_path / "pictures" / label / f"{number}.png")
    split = Dataset.from_folder(tmp_path / "pictures").split(val=0.2, test=0.6)
    for name, sure in (("good", 0.9), ("bad_1", 0.1)):
        tables = [
            Predictions(
                part.relative_paths(),
                part.labels,
                split.classes,
                np.array(
                    [
                        [sure, 1 - sure] if label == split.classes[0] else [0.2, 0.8]
                        for label in part.labels
                    ]
                ),
                (title,) * len(part),
            )
            for title, part in split.parts().items()
        ]
        predictions = tables[0].joined(*tables[1:])
        Run.create(tmp_path / "runs" / name, RunRecord(description=name), predictions, split=split)
    return tmp_path / "runs"


def ask(*arguments):
    result = CliRunner().invoke(app, ["compare-runs", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("form", "beginning", "said"),
    [
        ("text", "description", "bad_1"),
        ("markdown", "| description |", "bad\\_1"),
        ("latex", "% needs \\usepackage{booktabs}", "bad\\_1"),
        ("csv", "description,data,epochs", "bad_1"),
        ("json", "{", '"bad_1"'),
    ],
)
def test_runs_are_compared_in_every_form(runs, form, beginning, said):
    text = ask(runs, "--format", form)

    assert text.startswith(beginning)
    assert said in text
    assert "is better than" in text or form == "csv"


def test_a_machine_gets_rows_verdicts_and_the_page(runs, tmp_path):
    result = json.loads(ask(runs, "--json", "--out", tmp_path / "comparison.html"))

    assert {row["description"] for row in result["rows"]} == {"good", "bad_1"}
    assert [verdict["better"] for verdict in result["verdicts"]] in (["a"], ["b"])
    assert result["page"] == str(tmp_path / "comparison.html")
    assert (tmp_path / "comparison.html").is_file()
