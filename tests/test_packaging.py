"""The files around the package agree with each other, and the code with its linters."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return {_name(line): line.split("==")[1] for line in lines}


def test_every_dependency_has_a_tested_version_within_its_range(project):
    from packaging.requirements import Requirement

    pins = _pins()
    for text in project["dependencies"] + project["optional-dependencies"]["test"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[_name(requirement.name)]), text
    assert pins["torch"] == "2.13.0"


def test_conda_users_get_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-c constraints.txt", "-e ."]  # nothing is listed twice, so nothing can drift
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert f"python{requires}" in conda and "pip" in conda


def test_the_pip_part_is_satisfied_by_the_tested_versions():
    """A dry run without the network: what is installed here satisfies the project and its constraints."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*command, "-c", "constraints.txt", "-e", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Would install vqlearn-" in done.stdout


def test_the_readme_has_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r'^python -m pip install -c constraints.txt -e \. && vqlearn generate ".+"$', text, re.M)
    assert re.search(r'^python -m pip install -c constraints.txt -e "\.\[test\]" && python -m pytest$', text, re.M)
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)|src=\"(?!https?:)([^\"]+)\"", text):
        target = next(filter(None, link))
        assert (ROOT / target).exists(), target


def test_imports_go_downwards():
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_ruff_is_content():
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_type_hints_hold():
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_shipped_model_is_small_and_whole():
    folder = ROOT / "vqlearn" / "assets" / "models" / "scenes"
    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) <= 15_000_000
    assert (folder / "README.md").is_file()


def test_the_citation_names_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    found = {entry["value"] for paper in citation["references"] for entry in paper["identifiers"]}
    assert found == {"arXiv:2111.14822", "arXiv:2205.16007"}
