"""What a command prints, wherever it goes: no encoding, full disk or reader that has left may cost it its result."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

LOST = 1  # exit status of a command that did its work, but could not print all that it had to say


class _Deaf:
    """A stream whose errors are nobody's concern: bars and remarks that cannot be shown end no work."""

    def __init__(self, stream: TextIO | None):
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def printable() -> Iterator[None]:
    """Within it signs that stdout's encoding lacks are printed as escapes, and stderr raises nothing.

    At the end SystemExit is raised with status 1 if not all could be printed, unless only because the reader has left.
    """
    out, err = sys.stdout, sys.stderr
    errors = getattr(out, "errors", None)
    if hasattr(out, "reconfigure"):
        out.reconfigure(errors="backslashreplace")
    sys.stderr = _Deaf(err)
    try:
        yield
    finally:
        try:
            if out is not None:
                out.flush()
        except OSError as error:
            _let_go(out)
            if not isinstance(error, BrokenPipeError):
                print(f"vqlearn: not all could be printed: {error}", file=sys.stderr)
                raise SystemExit(LOST) from None
        finally:
            sys.stderr = err
            if hasattr(out, "reconfigure") and not out.closed:
                out.reconfigure(errors=errors)


def _let_go(out: TextIO) -> None:
    """Lead what Python still holds for a stream to nowhere, or it would try again when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, out.fileno())
    os.close(nowhere)
