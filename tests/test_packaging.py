"""The files around the package agree with each other and with the code."""

import ast
import functools
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
# These are run, not imported
TOOLS = {
    "axe-playwright-python",
    "import-linter",
    "jupyterlab",
    "mypy",
    "nbstripout",
    "nbval",
    "playwright",
    "ruff",
}
METHOD = (
    "schedule", "draws", "transition", "objective", "guidance", "choices", "reverse", "sampling", "unmasking",
    "samplers", "exactness",
)  # fmt: skip


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def imported(folder: Path) -> set[str]:
    """The top-level names that the files of a folder import, anywhere in them, but those of Python and of ours."""
    found = set().union(*map(imported_by, folder.rglob("*.py")))
    ours = {"vqlearn", "tests", "experiments", *(path.stem for path in (ROOT / "tests").iterdir())}
    return found - set(sys.stdlib_module_names) - ours


@functools.cache
def imported_by(path: Path) -> set[str]:
    """The top-level names that a file imports."""
    found, nodes = set(), [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if not isinstance(node, ast.expr):  # an expression, most of a file, holds no statement
            nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found


# ------------------------------------------------------------------------------------------ dependencies


def test_everything_imported_is_declared_and_the_reverse(project):
    providers = importlib.metadata.packages_distributions()
    optional = project["optional-dependencies"]
    for folder, declared in (
        ("vqlearn", names(project["dependencies"] + optional["site"] + optional["evaluate"])),
        ("tests", names(project["dependencies"] + optional["test"] + optional["mutation"])),
    ):
        for name in imported(ROOT / folder) - {"carried_along"}:  # a package that a test makes
            found = {canonicalize_name(one) for one in providers.get(name, [name])}  # the extra may be absent here
            assert found & declared, f"{folder} imports {name}"
    used = {canonicalize_name(found) for name in imported(ROOT) for found in providers.get(name, [])}
    assert names(project["dependencies"] + optional["test"]) - used == TOOLS


def test_importing_vqlearn_and_its_method_needs_torch_alone():
    """Every other package that we import is blocked; torch is there first, since it looks for some of them itself."""
    code = f"""
import importlib, sys, torch

blocked = {sorted(imported(ROOT / "vqlearn") - {"torch"})!r}
for name in [name for name in sys.modules if name.partition(".")[0] in blocked]:
    del sys.modules[name]


class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Finder())
import vqlearn

for name in {METHOD!r}:
    importlib.import_module(f"vqlearn.{{name}}")
schedule = vqlearn.MaskReplaceSchedule.paper(5, 10)
print(vqlearn.q_sample(torch.zeros(2, 3, dtype=torch.long), 10, schedule).shape)
try:
    import numpy
except ModuleNotFoundError:
    print("blocked")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["torch.Size([2, 3])", "blocked"], done.stderr


def test_every_dependency_has_a_tested_version_within_its_range(project):
    lines = (ROOT / "constraints.txt").read_text().split()
    pins = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines}
    optional = project["optional-dependencies"]
    for text in project["dependencies"] + optional["test"] + optional["site"] + optional["evaluate"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text
    assert pins["torch"] == "2.13.0"


def test_conda_users_get_the_same(project):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-c constraints.txt", "-e ."]  # nothing is listed twice, so nothing can drift
    assert f"python{project['requires-python']}" in conda and "pip" in conda


def test_the_same_pythons_are_promised_and_tried(project):
    promised = [text.rpartition(" ")[2] for text in project["classifiers"] if "Python :: 3." in text]
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    assert promised == workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert project["requires-python"] == f">={promised[0]}"


# ------------------------------------------------------------------------------------------ what is packed


def test_every_package_is_packed(project):
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "vqlearn").rglob("__init__.py")}
    assert set(listed) - {f"vqlearn.course_{name}" for name in ("figures", "guides", "notebooks", "results")} == found


@pytest.mark.parametrize(("name", "most"), [("scenes", 15_000_000), ("ar-scenes", 8_000_000), ("emoji", 15_000_000)])
def test_a_shipped_model_is_small_and_has_a_card(name, most):
    folder = ROOT / "vqlearn" / "assets" / "models" / name
    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) <= most
    assert (folder / "README.md").is_file()


def test_every_shipped_model_is_known():
    models = ROOT / "vqlearn" / "assets" / "models"
    assert {path.name for path in models.iterdir()} == {"scenes", "ar-scenes", "emoji"}


# ------------------------------------------------------------------------------------------ pages and settings


def test_the_readme_has_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r'^python -m pip install -c constraints.txt -e \. && vqlearn generate ".+"$', text, re.M)
    assert re.search(
        r'^python -m pip install -c constraints.txt -e "\.\[test\]" && python -m pytest -n 3 --dist loadfile$',
        text,
        re.M,
    )


def test_quick_tests_are_there():
    space: dict = {}
    exec((ROOT / "conftest.py").read_text(encoding="utf-8"), space)
    for name, left_out in space["QUICK"].items():
        text = (ROOT / "tests" / name).read_text(encoding="utf-8")
        for test, _, module in (test.strip("]").partition("[") for test in left_out):
            assert f"\ndef {test}(" in text, f"{name} has no {test}"
            assert not module or (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"there is no {module}"


def test_imports_go_downwards():
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_citation_names_both_papers(project):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    found = {entry["value"] for paper in citation["references"] for entry in paper["identifiers"]}
    assert found == {"arXiv:2111.14822", "arXiv:2205.16007"}
