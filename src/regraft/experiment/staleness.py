"""Whether a finished run is still it: its images and weights are those that it was fitted on.

That its settings are the same is told by ``RunConfig.key``: all fields but those that change
nothing of what is computed.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

from regraft.backbones.sources import stored_hash
from regraft.classifiers.model_files import MANIFEST
from regraft.data.dataset import Dataset
from regraft.data.split import division
from regraft.errors import RunError
from regraft.experiment.config import MethodConfig
from regraft.files import sha256_file
from regraft.results.run import MODEL, RECORD, Run

_HINT = "choose another folder with out (--out), or delete this one"


def refuse_changed_images(run: Run, data: Dataset) -> None:
    """Refuse a finished run whose images are not the ones that lie there now.

    Paths and classes are compared with the run's. Only files that were written, moved or copied
    since are opened: the content decides. An image that could not be used then, and was touched
    since, may be repaired.

    Args:
        run: The finished run.
        data: The images that lie there now; what is read of their content is kept.

    Raises:
        RunError: Images are new, gone, changed, of another class or repaired, or came with other
            parts or groups (``RUN-DATA-CHANGED``).
        DataError: A file cannot be read.
    """
    then = {row.path: row for row in run.rows()}
    bad = {str(entry.get("path", "")) for entry in (run.check or {}).get("bad_files", [])}
    now = {name: place for place, name in enumerate(data.relative_paths())}
    written = (run.folder / RECORD).stat().st_mtime
    touched = {name for name, place in now.items() if _touched(data.paths[place]) > written}
    again = sorted(touched & then.keys())
    contents = zip(again, data.take(now[name] for name in again).hashes(), strict=True)
    kinds = {
        "new": now.keys() - then.keys() - bad,
        "gone": then.keys() - now.keys(),
        "changed": {name for name, sha256 in contents if sha256 != then[name].sha256},
        "of another class": {n for n in now.keys() & then if data.labels[now[n]] != then[n].label},
        "perhaps repaired": touched & bad - then.keys(),
    }
    told = [f"{len(names)} {what} ({min(names)})" for what, names in kinds.items() if names]
    settings = run.record.split.settings
    divided = division(data, regroup=settings.get("regroup", False), among=then)
    if not told and divided != settings.get("division", divided):
        told.append("their own parts or groups are others")
    if told:
        raise RunError(
            "the images are not the ones of this run any more",
            path=run.folder,
            why=", ".join(told),
            hint=_HINT,
            code="RUN-DATA-CHANGED",
        )


def initial_weights(method: MethodConfig) -> dict[str, str]:
    """Return the SHA-256 of what a run begins with and that can give way to another, by its name.

    It is the model of the run that it starts from (a ``start`` that is no folder is passed over),
    its file of weights, or what is stored under the name of its network.

    Raises:
        BackboneError: The network is unknown.
        ModelError: The record of its stored weights is damaged.
    """
    spec, found = method.spec, {}
    if method.start is not None:
        places = (method.start / MODEL / MANIFEST, method.start / MANIFEST)
        model = next((each for each in places if each.is_file()), None)
        found = {} if model is None else {"run to start from": sha256_file(model)}
    elif spec.weights == "default":
        stored = stored_hash(spec.name)
        found = {} if stored is None else {"stored weights": stored}
    elif spec.weights is not None and (file := Path(spec.weights)).is_file():
        facts = file.stat()
        found = {"file of weights": _digest(file, facts.st_mtime_ns, facts.st_ctime_ns)}
    return found


def refuse_changed_weights(run: Run, method: MethodConfig) -> None:
    """Refuse a finished run that began with other weights than it would begin with now.

    Raises:
        RunError: They are others (``RUN-WEIGHTS-CHANGED``).
    """
    then = run.record.backbone.initial
    for name, now in initial_weights(method).items():
        if then.get(name, now) != now:
            raise RunError(
                "the weights are not the ones of this run any more",
                path=run.folder,
                why=f"the {name} ({method.start or method.weights}) has other content now",
                hint=_HINT,
                code="RUN-WEIGHTS-CHANGED",
            )


@functools.lru_cache(maxsize=64)
def _digest(file: Path, *_when: int) -> str:
    """Return the SHA-256 of a file; many rows of a plan begin with the same large one."""
    return sha256_file(file)


def _touched(file: Path) -> float:
    """Return the latest time of a file: a copy or a move may keep when its content was written."""
    try:
        facts = file.stat()
    except OSError:  # whoever opens it says what is wrong
        return math.inf
    return max(facts.st_mtime, facts.st_ctime)
