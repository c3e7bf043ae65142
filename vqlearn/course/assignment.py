"""The exercises as assignments that an autograder reads: with solutions and tests marked in its own way.

They are for instructors. nbgrader and Otter-Grader make the learners' versions of them, in which a stub takes the place
of each solution. There the tests run in the learner's kernel; `vqlearn course check` does not trust that.
"""

from __future__ import annotations

import ast
from pathlib import Path
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Any

from vqlearn.course import copying
from vqlearn.course.exercises import CHECK, Exercise, exercises
from vqlearn.course.reduced import equations, reduced

if TYPE_CHECKING:
    from nbformat import NotebookNode

SCHEMA = 3  # of nbgrader's metadata
CONFIGURATION = "# ASSIGNMENT CONFIG\ninit_cell: false\nexport_cell: false\nsolutions_pdf: false\ntemplate_pdf: false\n"


def write(folder: str | Path, grader: str) -> list[tuple[str, str]]:
    """Write an assignment for each notebook with exercises into `folder`, as `copying.copy` copies notebooks.

    For nbgrader, `folder` is the course's; the assignments are in `source/NAME/NAME.ipynb`, as its commands expect.
    """
    import nbformat

    paths = copying.notebooks()
    known = equations(copying.read(path).cells for path in paths)
    texts = {}
    for path in paths:
        book = copying.read(path)
        name = f"source/{path.stem}/{path.name}" if grader == "nbgrader" else path.name
        texts[name] = ""
        if found := exercises(book.cells):
            book.cells = _assignment(reduced(book.cells, known), {one.check: one for one in found}, grader)
            texts[name] = str(nbformat.writes(book)) + "\n"  # type: ignore[no-untyped-call]
    return copying.written(folder, texts)


def _assignment(cells: list[NotebookNode], by_check: dict[str, Exercise], grader: str) -> list[NotebookNode]:
    made: list[NotebookNode] = [] if grader == "nbgrader" else [_cell("raw", CONFIGURATION)]
    for cell in cells:
        checked = CHECK.findall(cell.source) if cell.cell_type == "code" else []
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if not checked:
            made.append(cell)
        for check, _ in checked:
            made += (for_nbgrader if grader == "nbgrader" else for_otter)(by_check[check], cell.source)
    return made


def for_nbgrader(exercise: Exercise, stub: str) -> list[NotebookNode]:
    """A cell with the solution between nbgrader's marks, and one with the test and its points."""
    body = indent(_solution(exercise), "    ")
    answer = f"{_head(exercise, stub)}\n    ### BEGIN SOLUTION\n{body}\n    ### END SOLUTION"
    marks = {"schema_version": SCHEMA, "task": False}
    solved = {"grade": False, "solution": True, "locked": False, "grade_id": exercise.check}
    graded = {"grade": True, "solution": False, "locked": True, "grade_id": f"test_{exercise.check}"}
    return [
        _cell("code", answer, nbgrader=marks | solved),
        _cell("code", _test(exercise), nbgrader=marks | graded | {"points": exercise.points}),
    ]


def for_otter(exercise: Exercise, stub: str) -> list[NotebookNode]:
    """The cells of a question of Otter-Grader, between its marks."""
    body = indent(_solution(exercise), "    ")
    answer = f"{_head(exercise, stub)}\n    # BEGIN SOLUTION\n{body}\n    # END SOLUTION\n"
    prompt = '    """ # BEGIN PROMPT\n    raise NotImplementedError\n    """ # END PROMPT'
    return [
        _cell("raw", f"# BEGIN QUESTION\nname: {exercise.check}\npoints: {exercise.points}"),
        _cell("raw", "# BEGIN SOLUTION"),
        _cell("code", answer + prompt),
        _cell("raw", "# END SOLUTION"),
        _cell("raw", "# BEGIN TESTS"),
        _cell("code", _test(exercise)),
        _cell("raw", "# END TESTS"),
        _cell("raw", "# END QUESTION"),
    ]


def _test(exercise: Exercise) -> str:
    verdict = f"verdict = checks.{exercise.check}.judge({exercise.function})"
    return f'{verdict}\nassert verdict.status == "right", str(verdict)'


def _head(exercise: Exercise, stub: str) -> str:
    """The stub's first lines, up to its body."""
    function = _function(exercise, stub)
    return "\n".join(stub.splitlines()[function.lineno - 1 : function.body[0].lineno - 1])


def _solution(exercise: Exercise) -> str:
    """The solution as the body of the stub: what it defines beside the function comes first."""
    function = _function(exercise, exercise.solution)
    lines = exercise.solution.splitlines()
    body = "\n".join(lines[function.body[0].lineno - 1 : function.end_lineno])
    beside = lines[: function.lineno - 1] + lines[function.end_lineno :]
    return "\n\n".join(part for part in ("\n".join(beside).strip("\n"), dedent(body)) if part)


def _function(exercise: Exercise, source: str) -> ast.FunctionDef:
    """The definition of the exercise's function. Raises ValueError where there is none."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == exercise.function:
            return node
    raise ValueError(f"the exercise {exercise.check!r} has no solution that defines {exercise.function!r}")


def _cell(kind: str, source: str, **metadata: Any) -> NotebookNode:
    from nbformat import v4

    new: Any = v4.new_raw_cell if kind == "raw" else v4.new_code_cell
    cell: NotebookNode = new(source, metadata=metadata)
    return cell
