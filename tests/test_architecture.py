"""The shape of the code: one import direction, small modules, and no torch where none belongs."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import regraft

SOURCE = Path(regraft.__file__).parent
MODULES = {
    ".".join(("regraft", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(SOURCE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
BASE = {"errors", "files", "system", "settings", "download", "notebook"}
DATA = BASE | {"data"}
CLASSIFIERS = DATA | {"backbones", "features", "training"}
MAY_IMPORT = {
    "errors": set(),
    "system": {"errors"},
    "files": {"errors", "system"},
    "settings": {"errors", "files"},
    "download": BASE,
    "notebook": set(),
    "data": BASE,
    "backbones": DATA,
    "features": DATA | {"backbones"},
    "training": DATA | {"backbones", "features"},
    "classifiers": CLASSIFIERS,
    "results": DATA,
    "report": DATA | {"results"},
    "explain": CLASSIFIERS | {"classifiers", "results", "report"},
    "deploy": CLASSIFIERS | {"classifiers", "results", "report", "explain"},
    "experiment": CLASSIFIERS | {"classifiers", "results", "report", "explain", "deploy"},
    "labels": CLASSIFIERS | {"classifiers", "results", "report", "explain", "experiment"},
}
# The limits of size were set for the packages before these: modules, lines and lines of code that
# each may take beside them, with its commands, pages and options.
ALLOWED = {
    "labels": (4, 790, 465),
    "explain": (5, 990, 590),
    "watch, notebook": (3, 700, 440),
    "deploy": (10, 1_480, 990),
    "server": (5, 1_260, 910),
    "confidence": (5, 1_260, 800),
    "hub and card": (3, 920, 580),
    "pages of a run that show why": (6, 1_010, 620),
}
NETWORKS = {"torch", "torchvision", "timm", "openvino"}
WITHOUT_TORCH = {"data", "results", "report"}


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def imported(tree: ast.AST) -> set[str]:
    """Return every module that is imported, wherever the statement stands."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(tree: ast.AST) -> set[str]:
    return {name for name in imported(tree) if name in MODULES}


def functions(tree: ast.AST):
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def lines_of_code(function):
    """Return the lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def code_lines(name: str) -> int:
    """Return how many lines of a module are neither docstring, comment nor blank."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {
        line
        for node in ast.walk(TREES[name])
        if isinstance(node, kinds) and ast.get_docstring(node)
        for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)
    }
    lines = MODULES[name].read_text(encoding="utf-8").splitlines()
    return sum(
        1
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.strip().startswith("#") and number not in docs
    )


def test_the_house_is_small(capsys):
    lines = sum(len(path.read_text("utf-8").splitlines()) for path in MODULES.values())
    code = sum(map(code_lines, MODULES))
    with capsys.disabled():
        print(f"\nregraft: {len(MODULES)} modules, {lines} lines, of which {code} are code")

    more_modules, more_lines, more_code = map(sum, zip(*ALLOWED.values(), strict=True))
    assert len(MODULES) <= 95 + more_modules
    assert lines <= 25_000 + more_lines
    assert code <= 15_000 + more_code


def test_no_modules_import_each_other_in_a_circle():
    left = {name: own(tree) - {name} for name, tree in TREES.items()}
    shrinking = True
    while shrinking:  # what uses nothing that is left, or is used by nothing left, is in no circle
        used = set().union(*left.values()) if left else set()
        kept = {name: uses & set(left) for name, uses in left.items() if name in used}
        kept = {name: uses for name, uses in kept.items() if uses & set(kept)}
        shrinking, left = len(kept) < len(left), kept

    assert sorted(left) == []


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_imported_in_one_direction_only(name):
    allowed = MAY_IMPORT.get(room(name))
    if allowed is None:  # cli, __init__ and __main__ stand on top of everything
        return

    assert {room(used) for used in own(TREES[name])} <= allowed | {room(name)}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_and_its_functions_can_be_read(name):
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= 600
    assert [f.name for f in functions(TREES[name]) if lines_of_code(f) > 60] == []


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) != "cli"])
def test_own_modules_are_imported_at_the_top(name):
    inside = [f"{f.name}: {sorted(own(f))}" for f in functions(TREES[name]) if own(f)]

    assert inside == []


@pytest.mark.parametrize("name", MODULES)
def test_no_module_uses_private_names_of_another(name):
    aliases = {used.rpartition(".")[2] for used in own(TREES[name])}
    private = [
        alias.name
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("regraft")
        for alias in node.names
        if is_private(alias.name)
    ]
    private += [
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in aliases
        and is_private(node.attr)
    ]

    assert private == []


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_data_results_and_report_never_name_a_network_library():
    offenders = [
        name
        for name, tree in TREES.items()
        if room(name) in WITHOUT_TORCH and {n.split(".")[0] for n in imported(tree)} & NETWORKS
    ]

    assert offenders == []


def test_timm_and_torchvision_models_are_reached_through_one_module_each():
    timm = {n for n, tree in TREES.items() if "timm" in {m.split(".")[0] for m in imported(tree)}}
    models = {
        name
        for name, tree in TREES.items()
        if any(used.startswith("torchvision.models") for used in imported(tree))
    }

    assert timm <= {"regraft.backbones.from_timm"}
    assert models <= {"regraft.backbones.from_torchvision"}


def test_no_module_is_a_drawer_for_odds_and_ends():
    stems = {path.stem for path in MODULES.values()}

    assert stems & {"utils", "util", "common", "helpers", "misc", "models"} == set()


def test_pickle_is_used_nowhere():
    banned = {"pickle", "joblib", "cloudpickle"}

    assert [name for name, tree in TREES.items() if banned & imported(tree)] == []


FORBID = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "timm", "openvino"}:
            raise ImportError(f"{name} must not be imported here")
sys.meta_path.insert(0, Forbid())
"""


def run_without_networks(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", FORBID + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent)},
    )


COMMANDS = ("--help", "--version", "fit --help", "data check --help", "compare-runs --help")
COMMANDS += (
    "watch --help",
    "serve --help",
    "weights list",
    "backbones list",
    "fit --no-such-option",
)


def test_the_command_line_answers_without_importing_torch():
    code = f"""
import sys
from regraft.cli import main
for command in {COMMANDS!r}:
    sys.argv, code = ["regraft", *command.split()], 0
    try:
        main()
    except SystemExit as stopped:
        code = stopped.code or 0
    assert code == (2 if "no-such" in command else 0), (command, code)
"""

    result = run_without_networks(code)

    assert "must not be imported" not in result.stderr + result.stdout
    assert result.returncode == 0, result.stderr


def test_packages_without_torch_import_where_torch_is_forbidden():
    more = {
        *("regraft.backbones.spec", "regraft.backbones.catalog", "regraft.experiment.config"),
        "regraft.backbones.published",
        *(f"regraft.training.{name}" for name in ("phases", "heads", "augment", "regularize")),
    }
    names = [name for name in MODULES if room(name) in {*WITHOUT_TORCH, *BASE}] + sorted(more)

    result = run_without_networks(
        "import importlib\n" + "\n".join(f"importlib.import_module({n!r})" for n in names)
    )

    assert result.returncode == 0, result.stderr


def test_every_public_name_has_a_home_and_is_documented():
    assert set(dir(regraft)) >= set(regraft.__all__) == set(regraft._HOME)
    for name in regraft.__all__:
        assert getattr(regraft, name).__doc__, name


def test_importing_the_package_opens_no_socket_and_writes_no_file(tmp_path):
    code = (
        "import socket, builtins, os, importlib\n"
        "def refuse(*a, **k): raise AssertionError('socket')\n"
        "socket.socket.connect = refuse\n"
        "import regraft\n"
        "[getattr(regraft, name) for name in regraft.__all__]\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(SOURCE.parent),
            "REGRAFT_HOME": str(tmp_path / "home"),
        },
    )

    assert result.returncode == 0, result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_floors_that_security_needs_are_kept():
    import tomllib

    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["project"]

    assert {"torch>=2.10", "pillow>=12.3", "safetensors>=0.8"} <= set(project["dependencies"])
    assert "python-multipart>=0.0.27" in project["optional-dependencies"]["serve"]


def test_the_version_stands_in_the_changelog():
    import tomllib

    root = SOURCE.parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]

    assert project["version"] == regraft.__version__
    assert f"## {regraft.__version__}" in (root / "CHANGELOG.md").read_text()
    assert importlib.import_module("regraft.cli").main is not None
