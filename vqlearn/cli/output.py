"""What a command prints, wherever it goes: no encoding, full disk or reader that has left may cost it its result."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

LOST = 1  # exit status of a command that did its work, but could not print all that it had to say


class Printer:
    """A stream to print to that raises nothing, but BrokenPipeError for a listener who has left, if one is needed."""

    def __init__(self, stream: TextIO | None, *, listener: bool):
        self._stream, self._listener = stream, listener
        self.status, self.error = 0, ""  # LOST and the first error, if there was one

    def write(self, text: str) -> int:
        self._attempt(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(lambda stream: stream.flush())

    def _attempt(self, act: Callable[[TextIO], object]) -> None:
        try:
            if self._stream is not None:  # closed before Python began
                act(self._stream)
        except BrokenPipeError:
            if self._listener:
                raise
        except (OSError, ValueError) as error:  # ValueError: closed since
            self.status, self.error = LOST, self.error or str(error)

    def let_go(self) -> None:
        """Lead what is still held for the stream to nowhere, or Python would try again when it ends."""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream without a file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # type: ignore[union-attr]
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def printable() -> Iterator[Printer]:
    """Within it stdout prints signs that its encoding lacks as escapes, and neither it nor stderr ends any work.

    At the end the `status` of what it gives is 1 where not all could be printed; that the reader has left is no loss.
    """
    out, err = sys.stdout, sys.stderr
    printer, errors = Printer(out, listener=True), getattr(out, "errors", None)
    sys.stdout, sys.stderr = printer, Printer(err, listener=False)
    with contextlib.suppress(AttributeError):  # a stream of another kind, in a notebook say
        out.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        yield printer
    finally:
        left = False
        try:
            printer.flush()
        except BrokenPipeError:
            left = True
        if left or printer.status:
            printer.let_go()
        if printer.status:
            print(f"vqlearn: not all could be printed: {printer.error}", file=sys.stderr)
        sys.stdout, sys.stderr = out, err
        with contextlib.suppress(AttributeError, ValueError, OSError):
            out.reconfigure(errors=errors)  # type: ignore[union-attr]
