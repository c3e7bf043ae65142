"""The kernel that a learner's notebook runs in, and the questions that are put to the desk inside it."""

from __future__ import annotations

import ast
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
START = """
import os, sys
path = sys.path[:]
sys.path[:] = [{here!r}, *(p for p in path if p not in ("", os.getcwd()))]  # not what the learner's folder may hold
from vqlearn.course import desk
sys.modules[{token!r}] = desk.Desk()
sys.path[:] = path
"""


class Died(Exception):
    """The kernel is gone."""


class Kernel:
    """A kernel that runs a learner's cells, and a desk in it that answers our questions.

    Only its shell channel is used, where replies come; what the cells print or show goes nowhere.
    """

    def __init__(self, work: Path, scratch: Path, timeout: int) -> None:
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import KernelManager

        self.work, self.scratch, self.timeout = work, scratch, timeout
        self.token = "desk_" + secrets.token_hex(16)  # the desk's name, which no notebook can know
        self.manager = KernelManager(
            kernel_name="python3",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # this Python, whatever else has that name
            connection_file=str(scratch / "kernel.json"),
        )

    def __enter__(self) -> Kernel:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        aside = {**os.environ, "IPYTHONDIR": str(self.scratch)}  # no start-up files, no history
        self.manager.start_kernel(cwd=str(self.work), env=aside, **quiet)
        try:
            self.client: Any = self.manager.client()
            self.client.start_channels(iopub=False, stdin=False, hb=False)
            code = START.format(here=str(HERE), token=self.token)
            if trouble := self.run(f"exec({code!r}, {{}})", START_WITHIN):
                raise Died(f"the kernel did not start: {trouble}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(AttributeError):
            self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, code: str, seconds: float | None = None) -> str:
        """Run a cell: what went wrong, in words, or nothing."""
        reply = self._request(seconds, code=code, store_history=seconds is None)
        return _in_words(reply) if reply["status"] == "error" else ""

    def ask(self, question: str) -> tuple[str, Any]:
        """Put a question to the desk: what went wrong, and the answer."""
        expression = f"__import__('sys').modules[{self.token!r}].{question}"
        reply = self._request(None, code="", silent=True, user_expressions={"said": expression})
        said = reply.get("user_expressions", {}).get("said", reply)
        if said["status"] != "ok":
            return _in_words(said), None
        try:
            return "", json.loads(ast.literal_eval(said["data"]["text/plain"]))
        except (ValueError, SyntaxError, TypeError, KeyError):
            return "what it answers could not be read", None

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
            except queue.Empty:
                if not self.manager.is_alive():
                    raise Died("the kernel died") from None
            else:
                if message["parent_header"].get("msg_id") == number:
                    content: dict[str, Any] = message["content"]
                    return content
        return None


def _in_words(reply: dict[str, Any]) -> str:
    kind, text = str(reply.get("ename", "")), str(reply.get("evalue", ""))
    return f"{kind}: {text}" if kind else text
