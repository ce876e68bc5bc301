"""What the documents say is true: the README's Python runs, and its commands and names exist."""

import doctest
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import regraft
from regraft.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROSE = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.strip().splitlines()[0])
def test_the_python_of_the_readme_runs(code, tmp_path, monkeypatch):
    from regraft.data.synthetic import make_flowers

    monkeypatch.chdir(tmp_path)
    make_flowers("photos", species=3, per_class=12, size=48)

    exec(compile(code, "README.md", "exec"), {})


COMMAND = re.compile(
    r"^\$ regraft ([a-z-]+"
    r"(?: (?:check|split|preview|suspects|next|apply-review|list|show|rank|import|fetch|verify"
    r"|path)\b)?)",
    re.MULTILINE,
)


def commands():
    return sorted(set(COMMAND.findall("\n".join(blocks("console")))))


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_readme_exist_with_their_options(command):
    options = {
        option
        for line in "\n".join(blocks("console")).splitlines()
        if line.startswith(f"$ regraft {command} ")
        for option in re.findall(r"(--[a-z-]+)", line)
    }
    result = CliRunner().invoke(app, [*command.split(), "--help"])

    assert result.exit_code == 0
    assert [option for option in options if option not in result.stdout] == []


@pytest.mark.parametrize("name", PROSE)
def test_links_inside_the_documents_lead_somewhere(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in t]

    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_files_named_in_the_architecture_exist():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    source = Path(regraft.__file__).parent
    named = re.findall(
        r"`((?:data|backbones|features|training|classifiers|deploy|results|report|explain|experiment|labels|cli)/[a-z_]*(?:\.py|\.toml)?)",
        text,
    )

    assert named
    assert [name for name in named if not (source / name).exists()] == []


def test_the_package_itself_carries_a_running_example():
    assert doctest.testmod(regraft).failed == 0
