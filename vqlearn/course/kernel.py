"""The kernel that a learner's notebook runs in, and the questions that are put to the desk inside it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import secrets
import subprocess
import time
from pathlib import Path
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


class Died(Exception):
    """The kernel is gone, or of no use any more."""


class NotStarted(Exception):
    """There is no kernel."""


class Kernel:
    """A kernel that runs a learner's cells, and a desk in it that answers our questions.

    Only its shell channel is used, where replies come; what the cells print or show goes nowhere. It starts beside the
    learner's folder `work`, so that no file there takes the place of a part of the kernel. `names` are those of the
    checks; the kernel cannot open files in the folders `closed`.
    """

    def __init__(self, work: Path, scratch: Path, timeout: int, *, names: list[str], closed: list[str]) -> None:
        import zmq
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import KernelManager

        self.scratch, self.timeout = scratch, timeout
        self.token = "desk_" + secrets.token_hex(16)  # the desk's name, which no notebook can know
        self.start = START.format(here=str(HERE), token=self.token, names=names, closed=closed, work=str(work))
        self.context: Any = zmq.Context()
        self.context.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES)
        self.context.setsockopt(zmq.LINGER, 0)
        self.manager = KernelManager(
            kernel_name="python3",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # this Python, whatever else has that name
            connection_file=str(scratch / "kernel.json"),
            context=self.context,
        )

    def __enter__(self) -> Kernel:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        aside = {**os.environ, "IPYTHONDIR": str(self.scratch)}  # no start-up files, no history
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
        self.manager.shutdown_kernel(now=True)
        self.context.term()

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
        limit = seconds or self.timeout
        number = self.client.execute(stop_on_error=False, allow_stdin=False, **request)
        reply = self._reply(number, limit)
        if reply:
            return reply
        for _ in range(3):  # a cell may catch the first interrupt
            self.manager.interrupt_kernel()
            if self._reply(number, GRACE):
                return {"status": "error", "ename": "", "evalue": f"it ran longer than {limit} seconds"}
        raise Died(f"it ran longer than {limit} seconds and could not be stopped")

    def _reply(self, number: str, seconds: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
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
