"""From the configuration to what runs are made of today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regraft.experiment.config import DataConfig, MethodConfig
from regraft.experiment.preparation import DataPlan
from regraft.experiment.recipe import Recipe
from regraft.settings import changed_fields


def data_plan(data: DataConfig, **more: Any) -> DataPlan:
    """Return the images of a configuration."""
    given = {**changed_fields(data), **more}
    return DataPlan(**{**given, "source": data.source})


def recipe(data: DataConfig, method: MethodConfig) -> Recipe:
    """Return the recipe of a configuration."""
    row = changed_fields(method)
    if "time_budget" in row:
        row["time_budget"] = f"{row['time_budget']:g}"
    told = {**changed_fields(data), "source": str(data.source)}
    if "folds" in told:
        told["fold"] = data.fold
    return Recipe(told, row)


def learner(data: DataConfig, method: MethodConfig, **more: Any) -> Any:
    """Return the learner of a configuration."""
    from dataclasses import replace

    from regraft.experiment.strategies import build_learner

    made = recipe(data, method)
    start = None if method.start is None else Path(method.start)
    return build_learner(made.backbone, replace(made.options(), start=start, **more))
