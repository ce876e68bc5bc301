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
MODULES = sorted(SOURCE.rglob("*.py"))
BASE = {"errors", "files", "settings", "progress", "connection", "downloading", "compute"}
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "settings": {"errors", "files"},
    "progress": set(),
    "connection": {"errors"},
    "downloading": {"errors", "files", "progress", "connection"},
    "compute": {"errors"},
    "data": BASE,
    "backbones": BASE | {"data"},
    "features": BASE | {"data", "backbones"},
    "training": BASE | {"data", "backbones", "features"},
    "classifiers": BASE | {"data", "backbones", "features", "training"},
    "results": BASE | {"data"},
    "report": BASE | {"data", "results"},
    "experiment": BASE
    | {"data", "backbones", "features", "training", "classifiers", "results", "report"},
}
HEAVY = {"torch", "torchvision", "timm", "openvino"}
WITHOUT_TORCH = ("data", "results", "report")


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Return every module that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_module_is_imported_in_one_direction_only(path):
    allowed = MAY_IMPORT.get(room(path))
    if allowed is None:  # cli, __init__ and __main__ stand on top of everything
        return
    used = {name.split(".")[1] for name in imports(path) if name.startswith("regraft.")}

    assert used <= allowed | {room(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_module_stays_under_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_function_fits_a_screen(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]

    assert [f.name for f in functions if lines_of_code(f) > 60] == []


def lines_of_code(function):
    """Return the lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def test_data_results_and_report_never_name_a_network_library():
    offenders = [
        str(path.relative_to(SOURCE))
        for path in MODULES
        if room(path) in WITHOUT_TORCH and {n.split(".")[0] for n in imports(path)} & HEAVY
    ]

    assert offenders == []


def test_timm_and_torchvision_models_are_reached_through_one_module_each():
    timm = {
        str(p.relative_to(SOURCE))
        for p in MODULES
        if any(n.split(".")[0] == "timm" for n in imports(p))
    }
    models = {
        str(p.relative_to(SOURCE))
        for p in MODULES
        if any(n.startswith("torchvision.models") for n in imports(p))
    }

    assert timm <= {"backbones/from_timm.py"}
    assert models <= {"backbones/from_torchvision.py"}


def test_no_module_is_a_drawer_for_odds_and_ends():
    names = {path.stem for path in MODULES}

    assert names & {"utils", "util", "common", "helpers", "misc", "models"} == set()


def test_pickle_is_used_nowhere():
    users = [
        str(p.relative_to(SOURCE))
        for p in MODULES
        if {"pickle", "joblib", "cloudpickle"} & imports(p)
    ]

    assert users == []


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


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["fit", "--help"],
        ["data", "check", "--help"],
        ["compare-runs", "--help"],
        ["weights", "list"],
        ["backbones", "list"],
        ["fit", "--no-such-option"],
    ],
    ids=" ".join,
)
def test_the_command_line_answers_without_importing_torch(arguments):
    code = (
        f"import sys; sys.argv = ['regraft', *{arguments!r}]\nfrom regraft.cli import main; main()"
    )

    result = run_without_networks(code)

    assert "must not be imported" not in result.stderr + result.stdout
    assert result.returncode == (2 if "--no-such-option" in arguments else 0), result.stderr


def test_packages_without_torch_import_where_torch_is_forbidden():
    names = [
        ".".join(("regraft", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        for path in MODULES
        if room(path) in {*WITHOUT_TORCH, *BASE}
    ]

    result = run_without_networks(
        "import importlib\n" + "\n".join(f"importlib.import_module({n!r})" for n in names)
    )

    assert result.returncode == 0, result.stderr


def test_every_public_name_has_a_home_and_is_documented():
    assert set(regraft.__all__) == set(regraft._HOME)
    for name in regraft.__all__:
        value = getattr(regraft, name)
        assert value.__doc__, name


def test_dir_shows_exactly_the_public_names():
    assert set(dir(regraft)) >= set(regraft.__all__)


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


def test_the_version_stands_in_the_changelog():
    import tomllib

    root = SOURCE.parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]

    assert project["version"] == regraft.__version__
    assert f"## {regraft.__version__}" in (root / "CHANGELOG.md").read_text()
    assert importlib.import_module("regraft.cli").main is not None
