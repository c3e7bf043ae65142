"""What runs inside the learner's kernel: it notes what each check is given, and puts the marker's cases to that.

It knows no check: in place of `vqlearn.course.checks` the learner's code finds names that note a function and no more,
and the files that hold solutions cannot be opened. The marker sends the cases, and compares.
"""

from __future__ import annotations

import io
import os
import sys
import types
from base64 import b64encode
from collections.abc import Callable
from json import dumps, loads
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent.parent
CLOSED = "the solutions are closed while the course is marked"
ASKS = str(PACKAGE / "course" / "outcomes.py")  # the file that calls the learner's functions
FREE = {ASKS, __file__, str(PACKAGE / "schedule.py"), str(PACKAGE / "arguments.py")}  # what an answer may use
LEAVING = "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "socket.connect"
ALONE = "an answer starts no other program and asks none while the course is marked"
MOST_TEXT = 1000  # characters of an exception in a reply
MOST_USES = 20


class Desk:
    """In the learner's kernel: checks print nothing there, and the functions that they are given come here.

    `names` are those of the checks, `closed` the folders that hold solutions. Its answers are JSON in base 64, which
    no display formatter changes, for the kernel's reply to the question that asked for them.
    """

    def __init__(self, names: list[str], closed: list[str]) -> None:
        import vqlearn.course.outcomes  # noqa: F401  before anything of the learner's could take its place

        self.given: dict[str, Callable[..., Any]] = {}
        self.fresh: list[str] = []
        self.uses: dict[str, None] = {}
        self.asking = False
        shell = sys.modules["IPython"].get_ipython()
        self.space = shell.user_ns
        shell.display_pub.publish = shell.ask_exit = lambda *_, **__: None  # exit() would stop the kernel a while later
        sys.stdout = sys.stderr = _Nowhere()
        _reply_shortly(shell.kernel)
        module: Any = types.ModuleType("vqlearn.course.checks")
        module.__dict__.update({name: _noting(self, name) for name in names}, __all__=names)
        sys.modules[module.__name__] = sys.modules["vqlearn.course"].checks = module  # type: ignore[attr-defined]
        sys.addaudithook(self._guard([os.path.realpath(folder) for folder in closed]))

    def _guard(self, closed: list[str]) -> Callable[[str, tuple[Any, ...]], None]:
        def guard(event: str, arguments: tuple[Any, ...]) -> None:
            if self.asking and event in ("subprocess.Popen", *LEAVING):
                raise PermissionError(ALONE)
            if event == "open" or event.startswith(("os.", "shutil.")):
                for path in arguments:
                    if isinstance(path, str | bytes | os.PathLike) and _within(path, closed):
                        raise PermissionError(CLOSED)

        return guard

    def note(self, name: str, attempt: Callable[..., Any]) -> None:
        self.given[name] = attempt
        self.fresh = [*(other for other in self.fresh if other != name), name]

    def noted(self) -> str:
        """The checks that were called since the last time this was asked."""
        names, self.fresh = self.fresh, []
        return _sent(names)

    def last(self, name: str, function: str) -> str:
        """Whether a function of this name is there at the end that its check was not given; it counts as given now."""
        found = self.space.get(function)
        if not callable(found) or found is self.given.get(name):
            return _sent(False)
        self.given[name] = found
        return _sent(True)

    def answers(self, name: str, cases: str) -> str:
        """What the function last given to a check does on each of these cases, and what it uses that it should not."""
        from vqlearn.course.outcomes import outcomes_of, packed, unpacked_argument

        asked = [tuple(unpacked_argument(value) for value in case) for case in loads(cases)]
        self.uses, self.asking = {}, True
        sys.setprofile(self._watch)
        try:
            found = outcomes_of(self.given[name], asked)
        finally:
            if sys.getprofile() != self._watch:
                self.uses["hides its calls"] = None
            sys.setprofile(None)
            self.asking = False
        return _sent({"outcomes": [packed(outcome) for outcome in found], "uses": list(self.uses)[:MOST_USES]})

    def _watch(self, frame: types.FrameType, event: str, _: Any) -> None:
        """Note a call of the package from without, and of code that came from a text and not from a cell."""
        code, caller = frame.f_code, frame.f_back
        if event != "call" or code.co_filename in FREE or code.co_name.startswith("__"):  # those of dataclasses too
            return
        if code.co_filename == "<string>" and _of_the_learner(caller):
            self.uses["runs a text as code"] = None
        if code.co_filename.startswith(str(PACKAGE)) and code.co_name != "<module>" and not _of_the_package(caller):
            module = Path(code.co_filename).relative_to(PACKAGE).with_suffix("").parts
            self.uses[f"calls {'.'.join(('vqlearn', *module, code.co_qualname))}"] = None


def _of_the_learner(frame: types.FrameType | None) -> bool:
    return frame is not None and (frame.f_globals.get("__name__") == "__main__" or frame.f_code.co_filename == ASKS)


def _of_the_package(frame: types.FrameType | None) -> bool:
    """Not counting the files whose use is free: what calls from there may be a learner's function."""
    file = frame.f_code.co_filename if frame else ""
    return file.startswith(str(PACKAGE)) and file not in FREE


def _within(path: str | bytes | os.PathLike[Any], folders: list[str]) -> bool:
    real = os.path.realpath(os.fsdecode(path))
    return any(real == folder or real.startswith(folder + os.sep) for folder in folders)


def _noting(desk: Desk, name: str) -> Callable[[Callable[..., Any]], None]:
    def check(attempt: Callable[..., Any]) -> None:
        desk.note(name, attempt)

    check.__name__ = check.__qualname__ = name
    return check


def _sent(value: Any) -> str:
    return b64encode(dumps(value).encode()).decode()


def _reply_shortly(kernel: Any) -> None:
    """Make every reply short, and certain: an exception may have a text of a gigabyte, or one that raises."""
    execute = kernel.do_execute

    async def do_execute(*arguments: Any, **options: Any) -> dict[str, Any]:
        try:
            reply = await execute(*arguments, **options)
        except BaseException as error:
            reply = {"status": "error", "ename": type(error).__name__}
        short = {name: str(reply.get(name, ""))[:MOST_TEXT] for name in ("ename", "evalue")}
        return {**short, "status": reply["status"], "user_expressions": reply.get("user_expressions", {})}

    kernel.do_execute = do_execute


class _Nowhere(io.TextIOBase):
    """Where the learner's kernel prints. IPython puts a `write` in place that keeps all in memory; here it cannot."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def close(self) -> None:
        pass

    def __setattr__(self, name: str, value: object) -> None:
        pass
