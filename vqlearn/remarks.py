"""Remarks about a call: warnings, or words for who listens in this thread. No filter of the process is touched."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_listener: ContextVar[Callable[[str], object] | None] = ContextVar("listener", default=None)


def remark(text: str, *, stacklevel: int = 2) -> None:
    """Give `text` to this thread's listener, or else warn with it (UserWarning); `stacklevel` as in `warnings.warn`."""
    listener = _listener.get()
    if listener is None:
        warnings.warn(text, stacklevel=stacklevel + 1)
    else:
        listener(text)


@contextlib.contextmanager
def heard_by(listener: Callable[[str], object]) -> Iterator[None]:
    """Within it, and in this thread alone, `listener(text)` is called with every remark, at once, and nothing warns.

    >>> heard = []
    >>> with heard_by(heard.append):
    ...     remark("this will take a while")
    >>> heard
    ['this will take a while']
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
