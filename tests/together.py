"""Several calls at the same moment, each in a thread of its own, for tests of what they share."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def together(*calls: Callable[[], Any], times: int = 1) -> list[list[Any]]:
    """What each call returns, time after time; all begin at once, whatever the machine does. An error is raised."""
    meet = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> list[Any]:
        found = []
        try:
            for _ in range(times):
                meet.wait()
                found.append(call())
        except BaseException:
            meet.abort()  # nobody waits for who is gone
            raise
        return found

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(run, call) for call in calls]
    errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None and not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [future.result() for future in futures]
