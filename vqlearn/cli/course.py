"""`vqlearn course copy | check | site`: the notebooks in a folder of one's own."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from vqlearn.cli.options import Commands, note, path_name, whole

ACTIONS = ("copy", "check", "site")
STATES = {
    "kept": ": yours differs and stays; to get the course's, rename or delete yours and run this again",
    "none": ": has no exercises",
}


def add(commands: Commands) -> None:
    course = commands.add_parser(
        "course", help="copy the notebooks, check a learner's, or make web pages of them", description=__doc__
    )
    actions = course.add_subparsers(required=True, metavar="copy | check | site")
    _add_copy(actions)
    _add_check(actions)
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
    command = actions.add_parser("check", help="which exercises in DIR are done", description=check.__doc__)
    command.add_argument("folder", metavar="DIR", type=path_name, help="a learner's folder; it is executed on a copy")
    command.add_argument("--json", action="store_true", help="print the same as JSON")
    command.add_argument(
        "--timeout",
        type=whole(1, 10**6),
        default=1200,
        metavar="SECONDS",
        help="what a cell, or a call of an exercise's function, may take (default %(default)s)",
    )
    command.set_defaults(run=check, interrupted="no notebook was changed")


def copy(arguments: argparse.Namespace) -> None:
    """Copy the course's notebooks to DIR; a notebook that is there already is never changed."""
    from vqlearn.course import copying

    chosen = {"exercises_only": arguments.exercises_only, "without_outputs": arguments.without_outputs}
    for name, state in copying.copy(arguments.folder, **chosen):
        print(f"{state:9}  {name}{STATES.get(state, '')}")


def check(arguments: argparse.Namespace) -> None:
    """Execute the notebooks of DIR, on a copy, and print which exercises are done.

    Their code runs with your rights, so use a container or an account of its own for strangers.
    """
    from vqlearn.course import marking

    rows = marking.check(arguments.folder, timeout=arguments.timeout)
    print((marking.as_json if arguments.json else marking.table)(rows))


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
