"""What happened while a network was trained, phase by phase, in words, a table and curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regraft.report import figures
from regraft.report.tables import NOTHING, Cell, Duration, Table, accuracy_of
from regraft.results.intervals import percent, points

Phases = Sequence[Mapping[str, Any]]
Epochs = Sequence[Mapping[str, Any]]

_OPTIMIZERS = {
    "sgd": "SGD",
    "rmsprop": "RMSprop",
    "adam": "Adam",
    "adamw": "AdamW",
    "nadam": "NAdam",
}
_SCHEDULES = {
    "constant": "the same all the time",
    "cosine": "falling along half a cosine",
    "one_cycle": "rising and falling in one cycle",
    "plateau": "a tenth after two epochs without a better validation loss",
}
_BEHIND_TRUNK = {"pooled": "the row of features", "map": "the last feature map"}
_COLUMNS = {
    "phase": "phase",
    "epoch": "epoch",
    "train_loss": "training loss",
    "train_accuracy": "training accuracy",
    "val_loss": "validation loss",
    "val_accuracy": "validation accuracy",
    "lr": "learning rate",
    "seconds": "time",
}


def is_training(history: Any) -> bool:
    """Return whether a history is that of a trained network.

    Example:
        >>> is_training({"phases": [], "epochs": []}), is_training({"grid": []})
        (True, False)
    """
    keys = ("phases", "epochs")
    return isinstance(history, Mapping) and all(isinstance(history.get(k), list) for k in keys)


def phases_table(phases: Phases) -> Table:
    """Return what was trained, a column per phase.

    Args:
        phases: The records of the phases, as ``history_["phases"]`` holds them.

    Example:
        >>> phases_table([{"share_of_stages": 0.0, "trained": {"optimizer": "sgd"}}]).rows[0]
        ('trained', 'the new head alone')
    """
    before, counted = 0, []
    for phase in phases:
        counted.append({**phase, "epochs_before": before})
        before += int(phase.get("last_epoch") or 0)
    rows: list[tuple[Cell, ...]] = [
        (name, *(say(phase) for phase in counted)) for name, say in _ROWS.items()
    ]
    told = [row for row in rows if any(cell not in {None, NOTHING} for cell in row[1:])]
    return Table(("", *(f"Phase {number}" for number in range(1, len(phases) + 1))), tuple(told))


def epochs_table(epochs: Epochs) -> Table:
    """Return a row per epoch."""
    names = [name for name in _COLUMNS if any(name in epoch for epoch in epochs)]
    rows = tuple(tuple(_epoch_cell(name, epoch.get(name)) for name in names) for epoch in epochs)
    return Table(tuple(_COLUMNS[name] for name in names), rows)


def training_curves(phases: Phases, epochs: Epochs) -> str | None:
    """Draw accuracy and loss over the epochs of all phases, or nothing where there were none.

    Broken lines stand between the phases, rings at the best epoch of a phase on validation.
    """
    if not epochs:
        return None
    lines = [
        {k: v for k, v in epoch.items() if k.endswith(("accuracy", "loss")) and v is not None}
        for epoch in epochs
    ]
    places = {(e.get("phase"), e.get("epoch")): at for at, e in enumerate(epochs, start=1)}
    last = [max(at for (phase, _), at in places.items() if phase == p) for p in _numbers(epochs)]
    best = [places.get((phase.get("phase"), phase.get("best_epoch"))) for phase in phases]
    told = (
        "Accuracy and loss after each epoch. Broken lines stand between phases, rings at the epoch "
        "with the best validation accuracy of a phase."
    )
    return figures.curves(
        lines,
        alt=told,
        borders=[at + 0.5 for at in last[:-1]],
        rings=[at for at in best if at is not None],
    )


def gap(metrics: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Return in a sentence how much better a network is on the pictures it learned from.

    The interval of the difference is Newcombe's (Statistics in Medicine 17, 1998, method 10).

    Args:
        metrics: For ``train`` and ``validation`` accuracy, n and interval, as a run holds them.

    Example:
        >>> gap({"train": {"accuracy": 1.0, "n": 4, "interval": [0.51, 1.0]}})
        ''
    """
    train, held = (accuracy_of(metrics.get(part)) for part in ("train", "validation"))
    if not (train.known and held.known):
        return ""
    found = (
        f"The network names {percent(train, parts='')} of its {train.n:,} training pictures "
        f"correctly and {percent(held, parts='')} of the {held.n:,} validation pictures"
    )
    if train.value <= held.value:
        return f"{found}: it does not overfit."
    difference = train.value - held.value
    low = difference - math.hypot(train.value - train.low, held.high - held.value)
    high = difference + math.hypot(train.high - train.value, held.value - held.low)
    found += (
        f": a gap of {points(difference).removeprefix('+')} (95 % interval "
        f"{points(low).removesuffix(' points')} to {points(high).removesuffix(' points')})"
    )
    if low > 0:
        return f"{found}, more than chance explains. It overfits."
    return f"{found}, which so few pictures cannot tell from none."


def in_words(phases: Phases, backbone: str, *, random: bool = False) -> str:
    """Return what all the phases together did.

    Args:
        phases: The records of the phases.
        backbone: What the network is called.
        random: Whether its trunk began with random weights.

    Example:
        >>> in_words([{"share_of_stages": 0.0}, {"share_of_stages": 0.5}], "vgg16")
        'A new head was trained on the frozen vgg16, then together with 50 % of the stages,'
    """
    trunks = [_trunk(phase) for phase in phases]
    if not trunks:
        return f"A new head was put on {backbone} and nothing was trained"
    if random and trunks[0] == "all stages":
        return f"{backbone} was trained, beginning with random weights,"
    start = f"A new head was trained on {'' if trunks[0] else 'the frozen '}{backbone}"
    if not any(trunks):
        return start
    if len(trunks) == 1:
        return f"A new head was trained together with {trunks[0]} of {backbone}"
    if trunks == ["", trunks[-1]]:
        return f"{start}, then together with {trunks[-1]},"
    last = trunks[-1] or "nothing else"
    return f"{start} in {len(trunks)} phases, in the last together with {last},"


def _numbers(epochs: Epochs) -> list[Any]:
    return list(dict.fromkeys(epoch.get("phase") for epoch in epochs))


def _epoch_cell(name: str, value: Any) -> Cell:
    if value is None:
        return None
    if name.endswith("accuracy"):
        return percent(float(value))
    return Duration(float(value)) if name == "seconds" else value


def _trained(phase: Mapping[str, Any]) -> Cell:
    trunk = _trunk(phase)
    part = "the last layer of the head" if _setting(phase, "head") == "last" else "the new head"
    return f"{part} and {trunk}" if trunk else f"{part} alone"


def _trunk(phase: Mapping[str, Any]) -> str:
    share = float(phase.get("share_of_stages") or 0)
    if not share:
        return ""
    if share == 1 and _setting(phase, "unfreeze_matching") is None:
        return "all stages"
    text = f"{percent(share, digits=0)} of the stages"
    if _setting(phase, "unfreeze_from") is not None:
        return f"{text}, from {_setting(phase, 'unfreeze_from')} on"
    if _setting(phase, "unfreeze_matching") is not None:
        return f"what matches /{_setting(phase, 'unfreeze_matching')}/ in {text}"
    return text


def _parameters(phase: Mapping[str, Any]) -> Cell:
    if phase.get("parameters") is None:
        return None
    share = phase.get("share_of_parameters")
    of = "" if share is None else f", {percent(float(share))} of all"
    return f"{phase['parameters']:,}{of}"


def _optimizer(phase: Mapping[str, Any]) -> Cell:
    name = _setting(phase, "optimizer")
    if name is None:
        return None
    momentum = _setting(phase, "momentum") if name in {"sgd", "rmsprop"} else None
    more = {"momentum": momentum, "weight decay": _setting(phase, "weight_decay")}
    told = [f"{key} {value:g}" for key, value in more.items() if value]
    return ", ".join([_OPTIMIZERS.get(name, str(name)), *told])


def _rate(phase: Mapping[str, Any]) -> Cell:
    rate, schedule = _setting(phase, "lr"), _setting(phase, "schedule")
    if rate is None:
        return None
    words = [f"{rate:g}", _SCHEDULES.get(str(schedule), str(schedule))]
    warmup, decay = _setting(phase, "warmup"), _setting(phase, "layer_decay")
    if warmup and schedule == "cosine":
        words.append(f"after rising for {percent(warmup, digits=0)} of the phase")
    if decay not in {None, 1}:
        words.append(f"times {decay:g} per stage away from the head")
    return ", ".join(words)


def _epochs(phase: Mapping[str, Any]) -> Cell:
    run, planned = phase.get("last_epoch"), _setting(phase, "epochs")
    if run is None:
        return None
    text = f"{run}" if planned in {None, run} else f"{run} of {planned}"
    if phase.get("stopped") == "patience":
        waited = _setting(phase, "patience")
        return f"{text}; stopped, for {waited} epochs had brought no better validation accuracy"
    return f"{text}; stopped by the time budget" if phase.get("stopped") else text


def _best(phase: Mapping[str, Any]) -> Cell:
    best = phase.get("best_epoch")
    if best is not None:
        before = int(phase.get("epochs_before") or 0)
        counted = f" ({before + best} in all)" if before else ""
        if _setting(phase, "keep") == "last":
            return f"{best}{counted}, by validation accuracy; the last one's weights were kept"
        return f"{best}{counted}, by validation accuracy; its weights were kept"
    return "the last; there were no validation pictures to choose by"


def _way(phase: Mapping[str, Any]) -> Cell:
    way, boundary = phase.get("mode"), phase.get("boundary") or {}
    if way == "cached":
        text = "cached: each picture went through the frozen part once"
        stage, dtype, size = (boundary.get(key) for key in ("stage", "dtype", "bytes"))
        if stage is not None:
            what = _BEHIND_TRUNK.get(stage, f"what left {stage}")
            text += f"; {what} was kept as {dtype}"
        return text + (f" ({_size(size)})" if size else "")
    if way is None:
        return None
    why = boundary.get("why")
    text = "live: each picture went through the whole network in every epoch"
    return f"{text} ({why})" if why else text


def _at_once(phase: Mapping[str, Any]) -> Cell:
    found = phase.get("micro_batch")
    return None if found is None else f"{found}; the memory was not enough for whole batches"


def _gradient_error(phase: Mapping[str, Any]) -> Cell:
    error = (phase.get("boundary") or {}).get("gradient_error")
    return None if error is None else f"{100 * float(error):.2g} %"


def _unchanged(phase: Mapping[str, Any]) -> Cell:
    frozen = phase.get("frozen") or {}
    if "before" not in frozen:
        return None
    if phase.get("share_of_parameters") == 1:
        return "nothing was frozen"
    same = frozen["before"] == frozen.get("after")
    return "yes, bit for bit" if same else "NO: they changed, which must not happen"


def _time(phase: Mapping[str, Any]) -> Cell:
    return None if phase.get("seconds") is None else str(Duration(float(phase["seconds"])))


def _setting(phase: Mapping[str, Any], name: str) -> Any:
    return (phase.get("trained") or {}).get(name)


def _size(count: float) -> str:
    """Return a number of bytes as people say it.

    Example:
        >>> _size(512), _size(12_300_000)
        ('512 bytes', '12 MB')
    """
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return (
                f"{count / step:.2g} {unit}" if count < 100 * step else f"{count / step:.0f} {unit}"
            )
    return f"{count:.0f} bytes"


_ROWS: dict[str, Callable[[Mapping[str, Any]], Cell]] = {
    "trained": _trained,
    "parameters": _parameters,
    "optimizer": _optimizer,
    "learning rate": _rate,
    "epochs": _epochs,
    "best epoch": _best,
    "how it ran": _way,
    "gradient error by caching": _gradient_error,
    "pictures at a time": _at_once,
    "frozen tensors unchanged": _unchanged,
    "time": _time,
}
