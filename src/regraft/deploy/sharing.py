"""The model of a run on a hub: which of its files go there, and what is taken from there.

README.md       the card
run.json        what was done and measured, without paths and names of images
model/          the model, and its deployed form in ``model/deploy/``

Images, their small copies and names, predictions, splits and pages stay at home.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from regraft.backbones.checkpoint_files import may_hold_code
from regraft.classifiers import model_files
from regraft.classifiers.model_files import read_model
from regraft.deploy.hub import Hub
from regraft.deploy.likeness import TRAINING
from regraft.deploy.predictor import (
    FOLDER,
    NETWORK,
    RECORD,
    Predictor,
    find_deployed,
    load,
    record_json,
)
from regraft.errors import HubError, ModelError, RegraftError
from regraft.files import atomic_folder, free_bytes
from regraft.report.model_card import CARD, model_card, shareable
from regraft.report.tables import size
from regraft.results.run import MODEL, Run
from regraft.results.run import RECORD as RUN
from regraft.system import __version__

_MODEL = (
    *(model_files.RECORD, model_files.MANIFEST, model_files.ARRAYS, model_files.BACKBONE),
    *model_files.CONTENTS.values(),
)
_DEPLOYED = tuple(f"{FOLDER}/{name}" for name in (NETWORK, RECORD, TRAINING))
SHARED = (CARD, RUN, *(f"{MODEL}/{name}" for name in (*_MODEL, *_DEPLOYED)))

Say = Callable[[str], object]


def push_run(
    run: str | os.PathLike[str],
    hub: Hub,
    *,
    private: bool = False,
    message: str | None = None,
    say: Say = lambda _text: None,
) -> str:
    """Upload the model of a run, after everything of it was verified.

    Args:
        run: The folder of a run.
        hub: Where to.
        private: Whether only its owner may see the repository.
        message: What the commit says.
        say: Is told what goes where before anything does.

    Returns:
        The address of the commit.

    Raises:
        RunError: There is no finished run.
        ModelError: It has no model, or a damaged one.
        HubError: The hub refuses.
    """
    hub.require_token()
    finished = Run.open(run)
    files = files_to_share(finished)
    say(f"to {hub.address}{' (private)' if private else ''}:")
    for name, content in files.items():
        count = len(content) if isinstance(content, bytes) else content.stat().st_size
        note = ", the features of the training images" if name.endswith(TRAINING) else ""
        say(f"  {name}  {size(count)}{note}")
    told = message or f"{finished.description} (Regraft {__version__})"
    return hub.upload(files, message=told, private=private, replaces=SHARED)


def files_to_share(run: Run) -> dict[str, Path | bytes]:
    """Return what of a run others may have, by its name on a hub: a file, or its content.

    A card that somebody has edited goes as it is.

    Raises:
        ModelError: The run has no model, or a damaged one.
    """
    model = run.folder / MODEL
    read_model(model)
    card = run.folder / CARD
    files: dict[str, Path | bytes] = {
        CARD: card if card.is_file() else model_card(run).encode(),
        RUN: _json(shareable(run)),
    }
    files |= {f"{MODEL}/{name}": model / name for name in _MODEL if (model / name).is_file()}
    if (model / FOLDER / RECORD).is_file():
        record = _working(model / FOLDER).record
        names = _DEPLOYED if record.likeness else _DEPLOYED[:2]
        files |= {f"{MODEL}/{name}": model / name for name in names}
        if record.likeness and record.likeness.images:
            without = replace(record, likeness=replace(record.likeness, images=()))
            files[f"{MODEL}/{FOLDER}/{RECORD}"] = _json(record_json(without))
    return files


def pull_model(
    hub: Hub,
    folder: str | os.PathLike[str],
    *,
    revision: str | None = None,
    say: Say = lambda _text: None,
) -> Path:
    """Download a model; it gets its name when all of it is there and verified, or not at all.

    Only the files of a model are taken, whatever else the repository holds.

    Args:
        hub: Where from.
        folder: Where to; nothing may stand there.
        revision: A branch, a tag or a commit; None for the newest.
        say: Is told what comes from where before anything does.

    Returns:
        The folder, which `predict` and the others take as they take a run.

    Raises:
        HubError: The hub refuses, or holds no model of Regraft there (``HUB-NO-MODEL``).
        ModelError: What came is not what was saved, or could run code; it was not kept.
        RegraftError: Something stands there already (``FILE-EXISTS``), or it does not fit
            (``FILE-WRITE``).
    """
    place = Path(folder)
    if place.exists():
        hint = "choose another folder"
        raise RegraftError("there already", path=place, hint=hint, code="FILE-EXISTS")
    commit, there = hub.look(revision)
    taken = {name: there[name] for name in SHARED if name in there}
    if not {f"{MODEL}/{model_files.RECORD}", f"{MODEL}/{model_files.MANIFEST}"} <= taken.keys():
        what, hint = "there is no model of Regraft", "check the name and --revision"
        raise HubError(what, path=hub.address, hint=hint, code="HUB-NO-MODEL")
    total = sum(listed.size for listed in taken.values())
    if total > free_bytes(place):
        why, hint = f"it takes {size(total)}", "free some space there, or choose another folder"
        raise RegraftError("cannot write", path=place, why=why, hint=hint, code="FILE-WRITE")
    left = len(there) - len(taken)
    say(
        f"from {hub.address} at {commit[:12]}: {len(taken)} files, {size(total)}"
        + (f"; {left} others are not of a model and stay there" if left else "")
    )
    with atomic_folder(place) as part:
        hub.download(taken, commit, part)
        try:
            _verify(part)
        except RegraftError as error:
            what = "what came from the hub is not a model to be trusted"
            where = Path(error.path or part)
            named = f": {where.relative_to(part)}" if where.is_relative_to(part) else ""
            why = error.what + named.removesuffix(": .")
            hint = "it was not kept; ask whoever uploaded it, or name an older --revision"
            raise ModelError(what, path=hub.address, why=why, hint=hint, code=error.code) from error
    return place


def _verify(folder: Path) -> None:
    """Read everything of a model that came from elsewhere as it will be read when it is used."""
    for file in sorted(folder.rglob("*")):
        why = may_hold_code(file)
        if why and file.name != TRAINING:  # which is read as numbers only, whatever is in it
            raise ModelError("a file could run code", path=file, why=why, code="MODEL-UNSAFE")
    model = read_model(folder / MODEL)
    if (folder / RUN).is_file():
        Run.open(folder)
    deployed = find_deployed(folder)
    if deployed is not None and _working(deployed).record.classes != model.record.classes:
        what = "the deployed form is that of another model"
        raise ModelError(what, path=deployed, code="MODEL-CORRUPT")


def _working(deployed: Path) -> Predictor:
    """Return a deployed model that has answered once."""
    model = load(deployed)
    try:
        model.outputs([np.zeros((8, 8, 3), np.uint8)])
    except Exception as error:  # of onnxruntime, whatever it is
        what, why = "the deployed network cannot be run", f"{error}"[:300]
        hint = "export the run again"
        raise ModelError(what, path=deployed, why=why, hint=hint, code="MODEL-CORRUPT") from error
    return model


def _json(values: object) -> bytes:
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()
