"""The card of a run's model: what to know of it before using it, with metadata for the hub.

It is made to be handed on, so what only its owner should know is left out: where files lie on their
machine, and what their images and the groups of these are called.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from regraft.errors import list_names, printable
from regraft.files import write_text
from regraft.report import text
from regraft.report.confidence import confidence
from regraft.report.tables import (
    NOTHING,
    class_table,
    counts_table,
    escaped,
    measures_table,
    parts_table,
)
from regraft.results import metrics
from regraft.results.intervals import Estimate, percent
from regraft.results.predictions import part_name
from regraft.results.run import CLEAN, MODEL, Run, without_secrets
from regraft.settings import to_json

CARD = "README.md"  # where the hub looks for it
# What the hub calls licences: https://huggingface.co/docs/hub/repositories-licenses
_LICENCES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear
c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0
cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl
ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1
ncsa unlicense zlib pddl lgpl-lr unknown
"""
_FEW = 20  # images of a class to learn from
_MOST = 300  # classes that a table shows
_PATHS = {"source", "root", "start", "weights"}  # settings that may name a place
_FILES = {"archive", "broken"}  # what the origin of images says of files
# Findings of a check whose message ends in names of images or of groups of them.
_NAMING = re.compile(
    "DATA-(BAD-IMAGES|GROUP-LEAK|LIKELY-GROUPS|(NEAR-)?(CONFLICT|LEAK|DUPLICATES))"
)
_NAMES = re.compile(r"(\)|groups? of \d+ images): .*", re.DOTALL)


def write_card(run: Run) -> Path:
    """Write the card of a run beside its page, in place of an older one; return its path."""
    path = run.folder / CARD
    write_text(path, model_card(run))
    return path


def model_card(run: Run) -> str:
    """Return the card of a run's model: Markdown behind the hub's metadata in YAML."""
    record, part, tested = run.record, run.shown_part, _tested(run)
    p = run.predictions.part(part_name(part))
    facts = model_facts(
        classes=record.data.classes,
        backbone=to_json(record.backbone),
        accuracy=None if tested is None else f"{percent(tested)} test images",
        made=(record.created, record.regraft),
    )
    scores = metrics.per_class(p)
    averages = [replace(each, name=f"{each.name} average") for each in metrics.averages(p)]
    per_class = class_table([*scores[:_MOST], *averages])
    sections = {
        "": [escaped(f"{text.what_was_done(record)} {text.what_was_found(p, part)}")],
        "What it is": [bullets(facts)],
        "Data": [_data(run), counts_table(record.data, most=_MOST).to_markdown()],
        "Numbers": [
            "Shares are given with their 95 % interval and the number of images.",
            parts_table(run.metrics).to_markdown(),
            measures_table(run.metrics).to_markdown(),
            f"Each class, on the {part} images:",
            per_class.to_markdown(),
        ],
        "How far its probabilities can be believed": _confidence(run),
        "Limits": [_limits(run)],
        "How to use it": [_use(run)],
        "How to repeat it": [_repeat(run)],
    }
    blocks = [f"---\n{_metadata(run)}\n---", f"# {escaped(run.description)}"]
    for title, content in sections.items():
        blocks += [f"## {title}"] * bool(title and any(content))
        blocks += filter(None, content)
    return "\n\n".join(blocks) + "\n"


def model_facts(
    *,
    classes: Sequence[str],
    backbone: Mapping[str, Any],
    accuracy: str | None,
    made: tuple[str, str],
) -> dict[str, str]:
    """Return what is known of a model wherever it goes, by what it is called.

    Args:
        classes: Their names.
        backbone: ``BackboneFacts`` as JSON values.
        accuracy: That of the test part in words.
        made: When, and by which version.

    Example:
        >>> model_facts(classes="ab", backbone={}, accuracy=None, made=("", "1.0"))["2 classes"]
        'a, b'
    """
    created, version = made
    return {
        f"{len(classes)} classes": ", ".join(map(printable, classes)),
        "accuracy": accuracy or "not measured",
        "network": str(backbone.get("name") or "unknown"),
        "weights": str(backbone.get("weights") or "random"),
        "licence of the weights": str(backbone.get("licence") or "unknown"),
        "made": f"{created} by Regraft {version}".strip(),
    }


def bullets(facts: Mapping[str, Any]) -> str:
    """Return facts as a list in Markdown, those that are there.

    Example:
        >>> print(bullets({"seed": 0, "groups": None}))
        * seed: 0
    """
    there = {name: value for name, value in facts.items() if value not in (None, "", [], {})}
    return "\n".join(f"* {escaped(name)}: {escaped(text.flat(v))}" for name, v in there.items())


def shareable(run: Run) -> dict[str, Any]:
    """Return the record of a run as others may see it, JSON values.

    The folders of settings and command become their own names, and images and groups that warnings
    name are left out; everything else stays, so that it can still be read as a record.
    """
    values: dict[str, Any] = without_secrets(to_json(run.record))
    for settings in values["config"].values():
        for name in _PATHS & settings.keys() if isinstance(settings, dict) else ():
            if isinstance(settings[name], str):
                settings[name] = _own_name(settings[name])
    values["command"] = _shared_command(values["command"])
    values["warnings"] = _shared_remarks(run, values["warnings"])
    values["leaked"] = []
    for name in _FILES & (values["data"]["origin"] or {}).keys():
        del values["data"]["origin"][name]
    return values


# ---- metadata -----------------------------------------------------------------------------------


def _metadata(run: Run) -> str:
    """Return the front matter: a line of JSON for each key, which is YAML, too."""
    values: dict[str, Any] = _licence(run.record.backbone.licence)
    values |= {
        "library_name": "regraft",
        "pipeline_tag": "image-classification",
        "tags": ["regraft", "image-classification", "transfer-learning"],
    }
    if (tested := _tested(run)) is not None:
        name, split = printable(run.description), CLEAN if CLEAN in run.metrics else "test"
        found = {"type": "accuracy", "value": tested.value, "name": f"accuracy {percent(tested)}"}
        data = {
            "type": "imagefolder",
            "name": printable(run.record.data.root_name or "images"),
            "split": split,
        }
        task = {"type": "image-classification", "name": "image classification"}
        result = {"task": task, "dataset": data, "metrics": [found]}
        values["model-index"] = [{"name": name, "results": [result]}]
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
    return "\n".join(lines)


def _licence(name: str) -> dict[str, Any]:
    """Return how the hub says the licence of the weights; nothing where there were none."""
    if name.lower() in _LICENCES.split():
        return {"license": name.lower()}
    return {"license": "other", "license_name": name} if name not in {"", "none"} else {}


def _tested(run: Run) -> Estimate | None:
    """Return the accuracy on test images that nothing gives away; None without a test part."""
    return run.metrics.get(CLEAN, run.metrics.get("test", {})).get("accuracy")


# ---- sections -----------------------------------------------------------------------------------


def _data(run: Run) -> str:
    data, split = run.record.data, run.record.split
    origin = data.origin or {}
    cut = {name: value for name, value in split.settings.items() if value and name != "division"}
    return bullets(
        {
            "folder": data.root_name,
            "origin": origin.get("title"),
            "licence of the images": origin.get("licence"),
            "citation": origin.get("citation"),
            "images": data.images,
            "how they were split": {"seed": split.seed, **cut},
            "hash of the split": split.hash,
            "test part looked at": f"{run.test_looks} ×",
        }
    )


def _confidence(run: Run) -> list[str]:
    part = run.shown_part
    found = confidence(
        run.predictions.part(part_name(part)),
        run.calibration if part == "test" else None,
        temperature=run.record.temperature,
        drawn=False,
    )
    if found is None:
        return []
    said = [escaped(" ".join(found.found))]
    for title, table in (
        ("Errors that can be promised (`--abstain-error`), and what they bring:", found.errors),
        ("Sets of classes that can be promised (`--coverage`):", found.coverages),
    ):
        said += [title, table.to_markdown()] if table is not None else []
    if found.refused:
        refused = "\n".join(f"* {escaped(each)}" for each in found.refused)
        said += [f"What cannot be promised:\n\n{refused}"]
    return said


def _limits(run: Run) -> str:
    learned = run.record.data.counts.get("train", {})
    few = [f"{name} ({n})" for name, n in learned.items() if n < _FEW]
    said = [
        "An image of none of these classes gets one all the same: see `regraft predict --unlike`.",
        "The numbers hold for images like these: another camera, place or time was not tested.",
        "The licence named above is that of the weights that it began with, not of the images.",
    ]
    if few:
        named = escaped(list_names(few))
        said.append(f"These classes were learned from fewer than {_FEW} images: {named}.")
    warned = map(escaped, _shared_remarks(run, text.remarks(run)))
    return "\n".join(f"* {each}" for each in (*said, *warned))


def _use(run: Run) -> str:
    if not (run.folder / MODEL).is_dir():
        return ""
    return """From the folder that holds this card (`regraft pull OWNER/NAME FOLDER` fetches it):

    regraft predict FOLDER IMAGES

```python
import regraft

model = regraft.load_model("FOLDER/model")  # or regraft.load("FOLDER"), where model/deploy is there
print(model.predict(["image.jpg"]))
```"""


def _repeat(run: Run) -> str:
    command = _shared_command(str(without_secrets(run.record.command)))
    told = f"Regraft {run.record.regraft}, on the same images; the hash of the split tells them."
    return f"    {printable(command)}\n\n{told}" if command else told


# ---- what stays at home -------------------------------------------------------------------------


def _shared_remarks(run: Run, remarks: Sequence[str]) -> list[str]:
    """Return remarks without the names of images and groups that a check has put into them."""
    shared = list(remarks)
    for finding in (run.check or {}).get("findings") or []:
        message = str(finding.get("message") or NOTHING)
        if _NAMING.match(str(finding.get("code"))):
            told = _NAMES.sub(r"\1", message)
            shared = [each.replace(message, told) for each in shared]
    return shared


def _shared_command(command: str) -> str:
    """Return a command with the own name of each folder that it names from the root or home on.

    Example:
        >>> _shared_command("regraft fit ~/mine/photos --out=/tmp/run --lr 0.1")
        'regraft fit photos --out=run --lr 0.1'
    """
    try:
        words = shlex.split(command)
    except ValueError:  # of one that nobody could repeat
        return ""
    parts = (word.rpartition("=") for word in words)
    return shlex.join(f"{name}{equals}{_own_name(value)}" for name, equals, value in parts)


def _own_name(path: str) -> str:
    """Return the last part of a path that does not begin where one stands; other texts whole."""
    outside = path.startswith(("/", "~", "..")) or PureWindowsPath(path).is_absolute()
    kind = PureWindowsPath if "\\" in path else PurePosixPath
    return kind(path).name or "data" if outside else path
