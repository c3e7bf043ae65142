"""Would the tests notice? Small faults put into the package one at a time, and the tests of the module run on each.

    python -m tests.mutation --count 200 --seed 0
    python -m tests.mutation --again

draws places in the method, networks, training, evaluation and checkpoints at random, and at each place one of the
mutations of cosmic-ray (another operator, number, comparison, condition, keyword). Each mutant lives in a copy of the
repository, as many at a time as there are processors. It is killed if a test fails or the tests hang; survivors are
printed with their change. Results are kept in `tests/benchmarks/results/mutation.json` after each mutant; the same
command goes on where it stopped, and tries survivors again, as long as the package is what it was. `--again` puts the
survivors into the package of today, before all tests of their modules; a "note" that somebody writes there beside a
survivor, why no test can notice it, stays. Before the first mutant, coverage finds out which test runs which line, so
that a mutant meets the tests that reach it. Left out are mutants that differ in annotations, docstrings, the `strict`
of a zip or `is` against `==` alone, and those that no type would allow, such as `a & b` in place of `a / b`.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import itertools
import json
import os
import queue
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "benchmarks" / "results" / "mutation.json"
PLAUSIBLE = re.compile(r"^core/(?!Exception|Replace(Binary|Unary))|BinaryOperator_(Add|Sub|Mul|Div)_(Add|Sub|Mul|Div)$")
LOOPS = 300  # seconds of processor time, which a busy machine does not use up: a mutant may loop for ever
HANGS = 4 * 3600  # seconds: or wait
MORE = 40  # tests of other modules that reach a mutant's line
QUIETLY = ["-q", "-p", "no:cacheprovider", "-p", "no:nbval", "-o", "addopts="]  # notebooks are not among these tests
# The tests that are to notice, for each module; what is not listed is not mutated.
TESTS = {
    "schedule": "schedule transition continuous odd_arguments",
    "draws": "transition sampling finite odd_arguments",
    "transition": "transition sampling",
    "guidance": "sampling open_pipeline pipeline",
    "reverse": "sampling exact scheduler finite",
    "choices": "unmasking exact",
    "objective": "objective continuous bound",
    "sampling": "sampling exact",
    "unmasking": "unmasking exact",
    "scheduler": "scheduler sampling open_pipeline diffusers",
    "samplers": "pipeline exact",
    "keeping": "exact pipeline",
    "compatibility": "scheduler diffusers pipeline",
    "calls": "pipeline",
    "drop_in": "pipeline diffusers",
    "components": "open_pipeline checkpoints pipeline",
    "checkpoints/parts": "scheduler diffusers pipeline checksums",
    "checkpoints/fit": "diffusers pipeline checkpoints",
    "networks/models": "diffusers",
    "pipeline": "pipeline open_pipeline",
    "exactness/enumeration": "exact",
    "exactness/ideal": "ideal",
    "exactness/sequential": "autoregressive",
    "autoregression": "autoregressive",
    "checkpoints/checksums": "checksums checkpoints",
    "networks/conditions": "pipeline open_pipeline convert",
    "networks/denoiser": "open_pipeline pipeline",
    "networks/transformer": "transformer configuration diffusers convert open_pipeline",
    "networks/codebook": "vqvae diffusers",
    "networks/autoregressive": "autoregressive",
    "networks/configuration": "configuration",
    "networks/convolutions": "vqvae diffusers",
    "networks/vqvae": "vqvae configuration diffusers",
    "networks/text": "conditioning checkpoints",
    "networks/clip": "clip configuration checkpoints",
    "training/batches": "data_sets training recipes",
    "training/codec": "training data_sets",
    "training/conditioned": "training data_sets",
    "training/denoiser": "training data_sets",
    "training/objectives": "training data_sets continuous",
    "training/on_policy": "on_policy training",
    "training/relations": "training",
    "training/runs": "runs processes",
    "training/checkpoint": "runs training data_sets",
    "training/process": "runs",
    "training/recipes": "recipes training",
    "training/scenes": "training on_policy",
    "training/stage": "training data_sets",
    "training/autoregressive": "autoregressive",
    "training/start": "training recipes",
    "training/updates": "training data_sets",
    "evaluation/agreement": "evaluate",
    "evaluation/bound": "bound",
    "evaluation/distances": "distances",
    "evaluation/kept": "measured",
    "evaluation/measures": "measured",
    "evaluation/protocol": "measured",
    "evaluation/reconstruction": "distances",
    "evaluation/references": "measured",
    "checkpoints/hub": "checkpoints",
    "checkpoints/loading": "checkpoints descriptions",
    "checkpoints/saving": "checkpoints",
    "checkpoints/reading": "checkpoints reading",
    "checkpoints/weights": "checkpoints",
    "data/files": "files checkpoints",
}


SAME: dict[type[ast.cmpop], ast.cmpop] = {ast.Is: ast.Eq(), ast.IsNot: ast.NotEq()}


def essence(source: str) -> str:
    """What a module does: its syntax tree without what changes nothing (see above); "" if it is no Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    for node in ast.walk(tree):
        for name in ("returns", "annotation"):
            if getattr(node, name, None) is not None and not isinstance(node, ast.AnnAssign):
                setattr(node, name, None)
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        if isinstance(node, ast.Call):
            node.keywords = [one for one in node.keywords if one.arg != "strict"]
        if isinstance(node, ast.Compare):
            node.ops = [SAME.get(type(one), one) for one in node.ops]
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0].value.value = ""
    return ast.dump(tree)


def places(module: str) -> dict[tuple, list[tuple[str, int]]]:
    """Where a module can be changed, and by which mutations: their operators' names and occurrences."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    tree = get_ast((ROOT / "vqlearn" / f"{module}.py").read_text(encoding="utf-8"))
    found: dict[tuple, list[tuple[str, int]]] = {}
    for name in operator_names():
        if get_operator(name).arguments() or not PLAUSIBLE.search(name):
            continue
        operator = get_operator(name)()
        spots = (spot for node in ast_nodes(tree) for spot in operator.mutation_positions(node))
        for occurrence, (start, end) in enumerate(spots):
            found.setdefault((start, end), []).append((name, occurrence))
    return found


def mutants(seed: int) -> Iterator[dict[str, Any]]:
    """Mutants without end, each a place drawn uniformly from all modules, and a mutation drawn uniformly there."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    rng = random.Random(seed)
    modules = [module for module in TESTS if (ROOT / "vqlearn" / f"{module}.py").exists() and tests_of(module, ROOT)]
    spots = [(module, spot, ways) for module in modules for spot, ways in sorted(places(module).items())]
    rng.shuffle(spots)
    for module, (start, _), ways in spots:
        name, occurrence = rng.choice(ways)
        source = (ROOT / "vqlearn" / f"{module}.py").read_text(encoding="utf-8")
        changed = mutate_code(source, get_operator(name)(), occurrence)
        if changed is None or essence(changed) in ("", essence(source)):
            continue
        lines = difflib.unified_diff(source.splitlines(), changed.splitlines(), lineterm="", n=0)
        change = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
        yield {"module": module, "line": start[0], "change": change, "source": changed}


def tests_of(module: str, folder: Path) -> list[str]:
    """The test files of a module that a folder has."""
    files = [f"tests/test_{name}.py" for name in (*TESTS[module].split(), "defaults")]
    return [file for file in files if (folder / file).exists()]


class Reached:
    """Which tests run which lines of the package, found out once by coverage and kept beside the results."""

    def __init__(self, folder: Path, kept: Path):
        from coverage import CoverageData

        if not kept.exists():
            part = kept.with_suffix(".part")
            settings = folder / "mutation.cfg"
            settings.write_text(
                f"[run]\nsource = {folder}/vqlearn\ndynamic_context = test_function\ndata_file = {part}\n"
            )
            files = sorted({file for module in TESTS for file in tests_of(module, folder)})
            command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest"]
            print(f"finding out which tests of {len(files)} files reach which line", flush=True)
            subprocess.run([*command, *QUIETLY, *files], cwd=folder, env=_environment(folder), check=True)
            part.rename(kept)
        self.data = CoverageData(str(kept))
        self.data.read()
        self.files = {Path(file).as_posix().rpartition("/vqlearn/")[2]: file for file in self.data.measured_files()}

    def tests(self, mutant: dict[str, Any]) -> list[str]:
        """Tests that run the statement, the module's own first.

        Where fewer than two of these do, all of the module: an import, a fixture or what is kept from then on runs it.
        """
        path = f"{mutant['module']}.py"
        lines = _statement((ROOT / "vqlearn" / path).read_text(encoding="utf-8"), mutant["line"])
        contexts = self.data.contexts_by_lineno(self.files[path]) if path in self.files else {}
        names = {tuple(name.split(".")[-2:]) for line in lines for name in contexts.get(line, []) if name}
        files = tests_of(mutant["module"], ROOT)
        own = sorted(name for name in names if f"tests/{name[0]}.py" in files)
        others = sorted(names - set(own))
        more = [f"tests/{stem}.py::{test}" for stem, test in others[:MORE]]
        return ([f"tests/{stem}.py::{test}" for stem, test in own] if len(own) > 1 else files) + more


def _statement(source: str, line: int) -> range:
    """The lines of the innermost statement that has a line; of one with a body its head alone."""
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or line):
            body = getattr(node, "body", None)
            end = body[0].lineno if body else (node.end_lineno or line) + 1
            if line < end:
                found = range(node.lineno, max(end, node.lineno + 1))
    return found


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def replaced(mutant: dict[str, Any]) -> str | None:
    """The module of today with a kept change, at the place nearest to its line; None if its lines are gone."""
    source = (ROOT / "vqlearn" / f"{mutant['module']}.py").read_text(encoding="utf-8")
    old, new = ("".join(f"{line[1:]}\n" for line in mutant["change"] if line[0] == sign) for sign in "-+")
    places = [found.start() for found in re.finditer(f"(?m)^{re.escape(old)}", source)]
    if not places:
        return None
    at = min(places, key=lambda place: abs(source.count("\n", 0, place) + 1 - mutant["line"]))
    return source[:at] + new + source[at + len(old) :]


def verdict(mutant: dict[str, Any], folder: Path, tests: list[str]) -> str:
    """ "killed", "hung" or "survived", with the mutant in a copy of the repository."""
    path = folder / "vqlearn" / f"{mutant['module']}.py"
    whole = path.read_text(encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", *QUIETLY, *tests]
    path.write_text(mutant["source"], encoding="utf-8")
    try:
        done = subprocess.run(
            command, cwd=folder, env=_environment(folder), capture_output=True, timeout=HANGS, preexec_fn=_limited
        )
        if done.returncode == -signal.SIGXCPU:
            return "hung"
        return "survived" if done.returncode == 0 else "killed"
    except subprocess.TimeoutExpired:
        return "hung"
    finally:
        path.write_text(whole, encoding="utf-8")


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (LOOPS, resource.RLIM_INFINITY))


def main(arguments: list[str]) -> None:
    """Judge mutants until `--count` have been judged."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants at a time (one for each processor)")
    parser.add_argument("--again", action="store_true", help="only the survivors, in the package of today")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args(arguments)
    kept = (
        json.loads(chosen.out.read_text(encoding="utf-8"))
        if chosen.out.exists()
        else {"seed": chosen.seed, "mutants": []}
    )
    if kept["seed"] != chosen.seed and not chosen.again:
        raise SystemExit(f"{chosen.out} holds the sample of seed {kept['seed']}; delete it or choose another --out")
    if chosen.again:
        return again(kept, chosen.out)
    judged_before = (m for m in kept["mutants"] if m["verdict"] != "survived")  # these meet the tests of today
    known = {_key(m): m for m in judged_before}
    notes = {_key(m): {"note": m["note"]} for m in kept["mutants"] if "note" in m}
    with tempfile.TemporaryDirectory(prefix="mutation-") as place, ThreadPoolExecutor(chosen.jobs) as pool:
        folders: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(chosen.jobs):
            folders.put(folder := _copy(Path(place, str(number))))
        reached, judged = Reached(folder, chosen.out.with_suffix(".coverage")), []

        def judge(mutant: dict[str, Any]) -> dict[str, Any]:
            """A mutant with its verdict, from before or from its tests in a folder that is free."""
            if _key(mutant) in known:
                return known[_key(mutant)]
            folder = folders.get()
            said = verdict(mutant, folder, reached.tests(mutant))
            folders.put(folder)
            note = notes.get(_key(mutant), {}) if said == "survived" else {}
            return {name: mutant[name] for name in ("module", "line", "change")} | {"verdict": said} | note

        for found in pool.map(judge, itertools.islice(mutants(chosen.seed), chosen.count)):
            judged.append(found)
            if found["verdict"] == "survived":
                place_of = f"survived: vqlearn/{found['module']}.py:{found['line']}"
                print(place_of, *found["change"], *filter(None, [found.get("note")]), sep="\n    ", flush=True)
            killed = _keep(chosen.out, chosen.seed, judged)
            hung = sum(m["verdict"] == "hung" for m in judged)
            print(f"{killed} of {len(judged)} killed, {hung} of these by the time limit", flush=True)


def again(kept: dict[str, Any], out: Path) -> None:
    """Judge the survivors of a sample once more."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as place:
        folder = _copy(Path(place))
        for mutant in kept["mutants"]:
            if mutant["verdict"] != "survived":
                continue
            if (source := replaced(mutant)) is None:
                said = "its lines are no longer there"
            elif (said := verdict(mutant | {"source": source}, folder, tests_of(mutant["module"], ROOT))) != "survived":
                mutant |= {"verdict": said, "at_first": "survived"}
                mutant.pop("note", None)
            where = f"{said}: vqlearn/{mutant['module']}.py:{mutant['line']}"
            print(where, *mutant["change"], *filter(None, [mutant.get("note")]), sep="\n    ", flush=True)
            _keep(out, kept["seed"], kept["mutants"])
    print(f"{_keep(out, kept['seed'], kept['mutants'])} of {len(kept['mutants'])} killed")


def _copy(place: Path) -> Path:
    """A copy of the repository."""
    left_out = shutil.ignore_patterns(".*", "*.egg-info", "wheels", "__pycache__", "notebooks")
    return Path(shutil.copytree(ROOT, place / "main", ignore=left_out))


def _keep(out: Path, seed: int, judged: list[dict[str, Any]]) -> int:
    """Write the results; how many are killed."""
    killed = sum(mutant["verdict"] != "survived" for mutant in judged)
    out.write_text(json.dumps({"seed": seed, "killed": killed, "mutants": judged}, indent=1) + "\n", encoding="utf-8")
    return killed


def _key(mutant: dict[str, Any]) -> tuple:
    return (mutant["module"], mutant["line"], *mutant["change"])


if __name__ == "__main__":
    main(sys.argv[1:])
