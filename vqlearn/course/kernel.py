"""The kernel that a learner's notebook runs in, and the questions that are put to the desk inside it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import secrets
import signal
import subprocess
import time
from math import inf
from pathlib import Path
from threading import Event
from typing import Any

from vqlearn import assets

HERE = assets.FOLDER.parent.parent  # where this package is imported from
GRACE = 2  # seconds, for a cell to heed an interrupt
START_WITHIN = 1200  # seconds, for a kernel to start and to import torch
MOST_BYTES = 50_000_000  # of a reply; a desk sends a few thousand
START = """
import os, sys
path = sys.path[:]
sys.path[:] = [{here!r}, *(p for p in path if p not in ("", os.getcwd()))]  # not what the learner's folder may hold
from vqlearn.course import desk
sys.modules[{token!r}] = desk.Desk({names!r}, {closed!r})
sys.path[:] = path
os.chdir({work!r})
"""


LATE = "it ran longer than"


class Died(Exception):
    """The kernel is gone, or of no use any more."""


class NotStarted(Exception):
    """There is no kernel."""


class OutOfTime(Exception):
    """The time for all notebooks of a learner is used up."""


class Stopped(BaseException):
    """Whoever started this wants it to end, which nothing on the way may take for a learner's error."""


class Limits:
    """What a learner's code may use: `cell` seconds at a time, `total` in all from now on, `threads` of torch.

    It ends earlier if `stop` is set, from another thread.
    """

    def __init__(
        self, cell: int, total: int | None = None, *, threads: int | None = None, stop: Event | None = None
    ) -> None:
        self.cell, self.total, self.threads, self.stop = cell, total, threads, stop
        self.end = time.monotonic() + total if total else inf

    def check(self) -> None:
        """Raises Stopped or OutOfTime."""
        if self.stop is not None and self.stop.is_set():
            raise Stopped
        if time.monotonic() > self.end:
            raise OutOfTime(f"the {self.total} seconds for all notebooks were used up")


class Kernel:
    """A kernel that runs a learner's cells, and a desk in it that answers our questions.

    Only its shell channel is used, where replies come; what the cells print or show goes nowhere. It starts beside the
    learner's folder `work`, so that no file there takes the place of a part of the kernel. `names` are those of the
    checks; the kernel cannot open files in the folders `closed`.
    """

    def __init__(self, work: Path, scratch: Path, limits: Limits, *, names: list[str], closed: list[str]) -> None:
        import zmq
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import KernelManager

        from vqlearn.course import warm

        self.scratch, self.limits = scratch, limits
        self.token = "desk_" + secrets.token_hex(16)  # the desk's name, which no notebook can know
        self.start = START.format(here=str(HERE), token=self.token, names=names, closed=closed, work=str(work))
        self.context: Any = zmq.Context()
        self.context.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES)
        self.context.setsockopt(zmq.LINGER, 0)
        self.manager: Any = KernelManager(
            kernel_name="python3",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # this Python, whatever else has that name
            connection_file=str(scratch / "kernel.json"),
            context=self.context,
        )
        spec: Any = self.manager.kernel_spec
        spec.metadata["kernel_provisioner"] = {"provisioner_name": warm.register()}

    def __enter__(self) -> Kernel:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        aside = {**os.environ, "IPYTHONDIR": str(self.scratch)}  # no start-up files, no history
        if self.limits.threads:
            aside["OMP_NUM_THREADS"] = str(self.limits.threads)
        try:
            self.manager.start_kernel(cwd=str(self.scratch), env=aside, **quiet)
            self.client: Any = self.manager.client()
            self.client.start_channels(iopub=False, stdin=False, hb=False)
            if trouble := self.run(f"exec({self.start!r}, {{}})", START_WITHIN):
                raise NotStarted(f"the kernel did not start: {trouble}")
        except BaseException as error:
            self.__exit__()
            if isinstance(error, Died):
                raise NotStarted(str(error)) from None
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(AttributeError):
            self.client.stop_channels()
        self._end_group()
        self.manager.shutdown_kernel(now=True)
        self.context.term()

    def _end_group(self) -> None:
        """End the kernel with all that its cells have started and left in its group."""
        group = getattr(self.manager.provisioner, "pgid", None)
        if group and group != os.getpgrp():
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)

    def run(self, code: str, seconds: float | None = None) -> str:
        """Run a cell: what went wrong, in words, or nothing."""
        try:
            code.encode()
        except UnicodeEncodeError:
            return "its source is no text: it holds half of a surrogate pair"
        reply = self._request(seconds, code=code, store_history=seconds is None)
        return _in_words(reply) if reply["status"] != "ok" else ""

    def ask(self, question: str) -> tuple[str, Any]:
        """Put a question to the desk: what went wrong, and the answer."""
        expression = f"__import__('sys').modules[{self.token!r}].{question}"
        reply = self._request(None, code="", silent=True, user_expressions={"said": expression})
        try:
            said = reply["user_expressions"]["said"] if reply["status"] == "ok" else reply
            if said["status"] != "ok":
                return _in_words(said), None
            text = said["data"]["text/plain"]
            return "", json.loads(base64.b64decode(text.strip("'"), validate=True))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return "what it answers cannot be read", None

    def _request(self, seconds: float | None, **request: Any) -> dict[str, Any]:
        limit = seconds or self.limits.cell
        number = self.client.execute(stop_on_error=False, allow_stdin=False, **request)
        reply = self._reply(number, limit)
        if reply:
            return reply
        for _ in range(3):  # a cell may catch the first interrupt
            self.manager.interrupt_kernel()
            if self._reply(number, GRACE):
                return {"status": "error", "ename": "", "evalue": f"{LATE} {limit} seconds"}
        raise Died(f"{LATE} {limit} seconds and could not be stopped")

    def _reply(self, number: str, seconds: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.limits.check()
            try:
                message = self.client.get_shell_msg(timeout=min(left, 0.25))
                if message["parent_header"].get("msg_id") == number:
                    return {"status": "none", **message["content"]}
            except queue.Empty:
                if not self.manager.is_alive():
                    raise Died("the kernel died") from None
            except Exception as error:  # a message that no kernel sends
                raise Died(f"the kernel's reply cannot be read: {type(error).__name__}") from None
        return None


def _in_words(reply: dict[str, Any]) -> str:
    kind, text = str(reply.get("ename", "")), str(reply.get("evalue", ""))
    return (f"{kind}: {text}" if kind else text) or "it gave no reply"
