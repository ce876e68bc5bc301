"""What a learner is called where nobody named its run, and its parameters as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from regraft.settings import to_json
from regraft.training.heads import HEADS, Head, find_head
from regraft.training.phases import Phase, frozen


class Parametrised(Protocol):
    """Anything whose parameters can be listed, as those of scikit-learn's estimators."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name."""
        ...


def learner_name(learner: Parametrised) -> str:
    """Return how a learner is called where nobody named the run.

    Example:
        >>> from regraft.classifiers.feature_classifier import FeatureClassifier
        >>> from regraft.classifiers.network_classifier import NetworkClassifier
        >>> from regraft.training.phases import two_stage
        >>> learner_name(FeatureClassifier("vgg16", classifier="knn"))
        'vgg16 + knn'
        >>> learner_name(NetworkClassifier("vgg16", phases=two_stage(), head="mlp_512_512"))
        'vgg16 + two_stage (mlp_512_512)'
    """
    parameters = learner.get_params(deep=False)
    backbone = parameters["backbone"]
    name = getattr(backbone, "name", backbone)
    if "phases" not in parameters:
        return f"{name} + {plain(parameters['classifier'])}"
    random = getattr(backbone, "weights", "default") is None and not parameters.get("start")
    phases = parameters["phases"]
    strategy = strategy_name(frozen() if phases is None else phases, random=random)
    return f"{name} + {strategy} ({head_name(parameters['head'])})"


def strategy_name(phases: Sequence[Phase], *, random: bool = False) -> str:
    """Return which strategy a list of phases is.

    Args:
        phases: What is trained, phase by phase.
        random: Whether the trunk begins with random weights.

    Example:
        >>> strategy_name([Phase(), Phase(unfreeze=0.5)]), strategy_name([Phase()] * 3)
        ('two_stage', '3 phases')
    """
    trains = [_trains_trunk(phase) for phase in phases]
    if trains == [False, True]:
        return "two_stage"
    if trains == [True]:
        return "from_scratch" if random and phases[0].unfreeze == 1 else "fine_tune"
    return "frozen" if trains == [False] else f"{len(phases)} phases"


def head_name(head: str | Head) -> str:
    """Return the name of a head, or of its class where it has none.

    Example:
        >>> from regraft.training.heads import LinearHead
        >>> head_name(LinearHead()), head_name(LinearHead(dropout=0.5))
        ('linear', 'LinearHead')
    """
    own = find_head(head)
    return next((name for name, known in HEADS.items() if known == own), type(own).__name__)


def plain(value: Any) -> Any:
    """Return a parameter as JSON has it; objects without a JSON form as they print.

    Example:
        >>> from regraft.training.heads import ConvHead
        >>> plain((1, None)), plain(ConvHead(dropout=0.5))
        ([1, None], {'kind': 'conv', 'dropout': 0.5})
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if hasattr(type(value), "__pydantic_fields__"):
        return to_json(value)
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__, **plain(vars(value))}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value)


def _trains_trunk(phase: Phase) -> bool:
    named = phase.unfreeze_from is not None or phase.unfreeze_matching is not None
    return named or phase.unfreeze > 0 or bool(phase.unfreeze_last)
