"""Keep tokens, the home folder and the machine's name out of what is written down."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|sk-[A-Za-z0-9_-]{20,})"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
    r"|(?<=--token[= ])\S+"
)
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "GITHUB_TOKEN")
_HIDDEN = "[removed]"


def without_secrets(value: Any) -> Any:
    """Return a value as JSON has it, the home folder as ``~``, without tokens and the host's name.

    Args:
        value: Mappings, sequences, arrays and single values; NaN and infinity become null, and
            anything that JSON does not know becomes its text.

    Example:
        >>> without_secrets({"command": "fit --token hf_abcdefghijklmnopqrst"})
        {'command': 'fit --token [removed]'}
    """
    return _cleaned(value, _replacements())


def _cleaned(value: Any, replacements: list[tuple[re.Pattern[str], str]]) -> Any:
    if isinstance(value, str):
        for pattern, replacement in replacements:
            value = pattern.sub(replacement, value)
        return value
    if isinstance(value, Mapping):
        return {str(key): _cleaned(item, replacements) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item, replacements) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _cleaned(value.tolist(), replacements)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, int):
        return value
    return _cleaned(str(value), replacements)


def _replacements() -> list[tuple[re.Pattern[str], str]]:
    secrets = [os.environ.get(name, "") for name in _TOKEN_VARIABLES]
    literal = [re.compile(re.escape(secret)) for secret in secrets if len(secret) >= 8]
    hidden = [(pattern, _HIDDEN) for pattern in (_TOKEN, *literal)]
    home = str(Path.home())
    if len(home) > 1:  # a home of "/" would eat every path
        begins, ends = r"(?:(?<![\w.~/\\-])|(?<=://))", r"(?=[/\\\s'\",:]|$)"
        hidden.append((re.compile(begins + re.escape(home) + ends), "~"))
    host = platform.node()
    if len(host) >= 6 and host != "localhost":  # a short name may be an ordinary word
        hidden.append((re.compile(rf"\b{re.escape(host)}\b"), "[this machine]"))
    return hidden
