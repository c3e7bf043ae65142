"""`vqlearn course ACTION`: the notebooks in a folder of one's own, learners' marks, slides and pages."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import current_thread, main_thread
from typing import TYPE_CHECKING

from vqlearn.cli.options import Commands, note, path_name, whole
from vqlearn.cli.output import LOST

if TYPE_CHECKING:
    from vqlearn.course.marking import Row
    from vqlearn.course.submissions import Submission

ACTIONS = ("copy", "check", "assignment", "slides", "site")
STATES = {
    "kept": ": yours differs and stays; to get the course's, rename or delete yours and run this again",
    "none": ": has no exercises",
}

# Every action reads notebooks by nbformat, whose validator builds dozens of grammars, 3 s in all, for addresses in
# other alphabets. No notebook has one, and without this package, as in many installations, that check is left out.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def add(commands: Commands) -> None:
    course = commands.add_parser(
        "course", help="copy the notebooks, mark learners', or make slides or web pages of them", description=__doc__
    )
    actions = course.add_subparsers(required=True, metavar=" | ".join(ACTIONS))
    _add_copy(actions)
    _add_check(actions)
    _add_assignment(actions)
    slides = actions.add_parser("slides", help="write slides of each notebook to DIR", description=write_slides.__doc__)
    slides.add_argument("folder", metavar="DIR", type=path_name, help="the folder of the slides, made if need be")
    slides.set_defaults(run=write_slides, interrupted="no file is half written")
    site = actions.add_parser("site", help="write the course to DIR as web pages", description=write_site.__doc__)
    site.add_argument("folder", metavar="DIR", type=path_name, help="the folder of the pages, made if need be")
    site.set_defaults(run=write_site, interrupted="no page is half written")


def _add_copy(actions: Commands) -> None:
    command = actions.add_parser("copy", help="copy the notebooks to DIR", description=copy.__doc__)
    command.add_argument("folder", metavar="DIR", type=path_name, help="the folder to copy to, made if need be")
    command.add_argument("--exercises-only", action="store_true", help="cards, hints and stubs alone, no solutions")
    command.add_argument("--without-outputs", action="store_true", help="copy without outputs, to be run by the reader")
    command.set_defaults(run=copy, interrupted="no notebook is half written, and none was changed")


def _add_check(actions: Commands) -> None:
    command = actions.add_parser(
        "check", help="which exercises are done, of one learner or many", description=check.__doc__
    )
    command.add_argument(
        "folders",
        metavar="DIR",
        type=path_name,
        nargs="+",
        help="a learner's folder or zip file, several of them, or one that holds those of a class",
    )
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the same as JSON, at the end")
    form.add_argument("--csv", action="store_true", help="print a line for each exercise, for a spreadsheet")
    numbers = "those of these numbers alone, as in 05,06"
    command.add_argument("--notebooks", metavar="NUMBERS", type=_numbers, default=(), help=numbers)
    _add_limits(command)
    command.set_defaults(run=check, interrupted="no notebook was changed")


def _add_limits(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--timeout",
        type=whole(1, 10**6),
        default=1200,
        metavar="SECONDS",
        help="what a cell, or a call of an exercise's function, may take (default %(default)s)",
    )
    total = "what all notebooks of a learner may take (default: no limit)"
    command.add_argument("--total", type=whole(1, 10**6), metavar="SECONDS", help=total)
    jobs = "learners at a time (default: one for each processor)"
    command.add_argument("--jobs", type=whole(1, 1000), metavar="N", default=os.cpu_count() or 1, help=jobs)


def _numbers(text: str) -> tuple[str, ...]:
    """The numbers of notebooks, as their files have them: 5 is 05, and 5b is 05b."""
    words = (word.strip() for word in text.split(","))
    return tuple(f"0{word}" if word[:1].isdigit() and not word[1:2].isdigit() else word for word in words if word)


def _add_assignment(actions: Commands) -> None:
    command = actions.add_parser("assignment", help="write assignments for an autograder", description=assign.__doc__)
    command.add_argument("folder", metavar="DIR", type=path_name, help="the folder of the assignments, made if need be")
    command.add_argument(
        "--for", dest="grader", choices=("nbgrader", "otter"), default="nbgrader", help="(default nbgrader)"
    )
    command.set_defaults(run=assign, interrupted="no notebook is half written, and none was changed")


def copy(arguments: argparse.Namespace) -> None:
    """Copy the course's notebooks to DIR; a notebook that is there already is never changed."""
    from vqlearn.course import copying

    chosen = {"exercises_only": arguments.exercises_only, "without_outputs": arguments.without_outputs}
    for name, state in copying.copy(arguments.folder, **chosen):
        print(f"{state:9}  {name}{STATES.get(state, '')}")


def check(arguments: argparse.Namespace) -> int:
    """Execute learners' notebooks, on copies, and print which exercises are done and what they earn.

    Their code runs with your rights, so use a container or an account of its own for strangers. The exit status is 1 if
    something could not be marked for a reason that is not the learner's.
    """
    from vqlearn.course import submissions

    with _ended_like_ctrl_c(), submissions.opened(arguments.folders) as (found, is_class):
        return (_check_class if is_class else _check_one)(found, arguments)


@contextlib.contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Within it SIGTERM does what Ctrl-C does, so that kernels are ended and temporary folders removed."""
    if current_thread() is not main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_one(found: list[Submission], arguments: argparse.Namespace) -> int:
    """Mark one learner's notebooks; a row is printed when its notebook is done."""
    from tqdm.auto import tqdm

    from vqlearn.course import classroom, marking
    from vqlearn.course.kernel import Limits

    (one,), rows = found, []
    if one.trouble:
        raise ValueError(f"DIR: {one.trouble}")
    table = classroom.of_exercises(classroom.none(arguments.notebooks))
    _print_head(table.head(), arguments)
    limits = Limits(arguments.timeout, arguments.total)
    with tqdm(desc="checking", bar_format="{desc}", leave=False) as bar:
        for row in marking.rows(one.folder, limits, numbers=arguments.notebooks, tell=bar.set_description_str):
            rows.append(row)
            with bar.external_write_mode(file=sys.stdout):
                _print_line(table.line(*classroom.exercise_line(row)), one.learner, [row], arguments)
    if arguments.json:
        print(classroom.dumped(classroom.as_json(rows)))
    elif not arguments.csv:
        print(f"\n{len(rows)} exercises: {classroom.summary(rows)}; {classroom.points(rows)} points")
    return LOST if classroom.lost(rows) else 0


def _check_class(found: list[Submission], arguments: argparse.Namespace) -> int:
    """Mark the notebooks of many learners; a learner's line is printed when all of them are done."""
    from tqdm.auto import tqdm

    from vqlearn.course import classroom

    options = {name: getattr(arguments, name) for name in ("jobs", "timeout", "total")}
    table, said = classroom.of_learners(one.learner for one in found), {}
    _print_head(table.head(), arguments)
    marked = classroom.check(found, numbers=arguments.notebooks, **options)
    with contextlib.closing(marked), tqdm(total=len(found), desc="checking", unit="learner") as bar:
        for (name, *_), rows in marked:
            said[name] = rows
            bar.update()
            with bar.external_write_mode(file=sys.stdout):
                line = table.line(name, classroom.points(rows), classroom.summary(rows))
                _print_line(line, name, rows, arguments)
    if arguments.json:
        rest = [classroom.as_json(said[one.learner], one.learner) for one in found]
        print(classroom.dumped({"learners": rest}))
    return LOST if any(map(classroom.lost, said.values())) else 0


def _print_head(head: str, arguments: argparse.Namespace) -> None:
    from vqlearn.course import classroom

    if not arguments.json:
        print(classroom.as_csv([classroom.COLUMNS]).rstrip() if arguments.csv else head, flush=True)


def _print_line(line: str, learner: str, rows: list[Row], arguments: argparse.Namespace) -> None:
    """Print what is known of a learner by now, in the form that was asked for."""
    from vqlearn.course import classroom

    if not arguments.json:
        print(classroom.as_csv([(learner, *row) for row in rows]).rstrip() if arguments.csv else line, flush=True)


def assign(arguments: argparse.Namespace) -> None:
    """Write the exercises to DIR as assignments that nbgrader or Otter-Grader reads, with solutions: for instructors.

    A file that is there already is never changed.
    """
    from vqlearn.course import assignment

    for name, state in assignment.write(arguments.folder, arguments.grader):
        print(f"{state:9}  {name}{STATES.get(state, '')}")


def write_slides(arguments: argparse.Namespace) -> None:
    """Write slides of each notebook to DIR, a page each that needs no network and no other file."""
    from vqlearn.course import copying, slides

    names = slides.write(arguments.folder, copying.notebooks())
    print(f"slides of {len(names)} notebooks; open {Path(arguments.folder, names[0])} in a browser")


def write_site(arguments: argparse.Namespace) -> None:
    """Write the course to DIR as web pages, with its outputs, to be read without running anything."""
    from vqlearn.course import copying, site

    pages = site.build(arguments.folder, copying.notebooks(), address=copying.address())
    print(f"{len(pages)} pages; open {Path(arguments.folder, 'index.html')} in a browser")


def modern(argv: list[str]) -> list[str]:
    """`vqlearn course DIR [--check | --site] ...`, as it was before there were subcommands, in today's form."""
    if argv[:1] != ["course"] or len(argv) == 1 or argv[1] in (*ACTIONS, "-h", "--help"):
        return argv
    flags = {"--check": "check", "--site": "site"}
    found = next((flags[word] for word in argv[1:] if word in flags), "copy")
    new = ["course", found, *(word for word in argv[1:] if word != f"--{found}")]
    note(f"this is written `vqlearn {shlex.join(new)}` now")
    return new
