"""Transfer learning for image classification: find out which way works on your pictures.

>>> import regraft
>>> "FeatureClassifier" in regraft.__all__
True
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

from regraft.system import __version__ as __version__

# The stub lists every public name once, under its module; each is imported on its first use, so
# that `import regraft` is instant.
_HOME = {
    alias.name: str(node.module)
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom) and node.module != "regraft.system"
    for alias in node.names
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'regraft' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
