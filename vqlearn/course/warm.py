"""Kernels that start in a fraction of a second: forks of one process that has imported torch and its like already.

A class is marked with them. A kernel that cannot be forked (another Python, a system other than Linux) is started as
Jupyter starts it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from threading import RLock
from typing import Any

from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from vqlearn.course import nursery

LAUNCHER = "ipykernel_launcher"


class Nursery:
    """The process that forks kernels, and what it says of them."""

    def __init__(self) -> None:
        self.lock, self.ends = RLock(), dict[int, int]()
        self.line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open(os.devnull, "wb") as nowhere:
            command = [sys.executable, nursery.__file__]
            self.process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=nowhere, stderr=nowhere, cwd="/")
        atexit.register(self.close)

    def close(self) -> None:
        """End it; kernels that still run end as well, by themselves."""
        self.line.close()
        self.process.wait()

    def fork(self, kernel: dict[str, Any], streams: list[int]) -> int:
        """The process id of a new kernel. Raises OSError if the process that forks kernels is gone."""
        with self.lock:
            socket.send_fds(self.line, [json.dumps(kernel).encode()], streams)
            while "started" not in (said := self._hear()):
                pass
            return int(said["started"])

    def status(self, kernel: int, *, wait: bool = False) -> int | None:
        """How a kernel ended, None while it runs."""
        with self.lock:
            try:
                while kernel not in self.ends:
                    self._hear(0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except OSError:  # the process that forked it is gone, and the kernel with it
                return -signal.SIGKILL
            return self.ends[kernel]

    def _hear(self, flags: int = 0) -> dict[str, int]:
        text = self.line.recv(nursery.MOST, flags)
        if not text:
            raise ConnectionError("the process that forks kernels has ended")
        said: dict[str, int] = json.loads(text)
        if "ended" in said:
            self.ends[said["ended"]] = said["status"]
        return said


@cache
def nursery_of(process: int) -> Nursery:
    """The nursery of this process, which a fork of it does not share."""
    return Nursery()


class Forked:
    """A forked kernel with the interface of `subprocess.Popen`, as far as Jupyter uses it."""

    stdin = stdout = stderr = None

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.nursery, self.pid = nursery, pid

    def poll(self) -> int | None:
        return self.nursery.status(self.pid)

    def wait(self) -> int | None:
        return self.nursery.status(self.pid, wait=True)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class WarmProvisioner(LocalProvisioner):
    """Starts a kernel of this Python as a fork of a warm process, and any other as Jupyter does."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        if not possible(cmd):
            return await super().launch_kernel(cmd, **kwargs)
        arguments = cmd[cmd.index(LAUNCHER) + 1 :]
        cwd = str(Path(kwargs.get("cwd") or ".").absolute())
        kernel = {"arguments": arguments, "cwd": cwd, "env": dict(kwargs.get("env") or os.environ)}
        with contextlib.ExitStack() as opened:
            names = enumerate(("stdin", "stdout", "stderr"))
            streams = [_descriptor(kwargs.get(name), number, opened) for number, name in names]
            nursery = nursery_of(os.getpid())
            try:
                self.pid = self.pgid = nursery.fork(kernel, streams)
            except OSError:
                nursery_of.cache_clear()  # the next kernel has a new one
                return await super().launch_kernel(cmd, **kwargs)
        self.process: Any = Forked(nursery, self.pid)
        self.cwd = cwd
        return self.connection_info


def register() -> str:
    """Make `WarmProvisioner` known to Jupyter in this process. Returns its name, which a kernel's spec may ask for."""
    name = "vqlearn-warm"
    where = f"{WarmProvisioner.__module__}:{WarmProvisioner.__name__}"
    KernelProvisionerFactory.provisioners[name] = EntryPoint(name, where, KernelProvisionerFactory.GROUP_NAME)
    return name


def possible(command: list[str]) -> bool:
    """Whether a kernel's command is one that a fork can take the place of."""
    return sys.platform == "linux" and command[0] == sys.executable and LAUNCHER in command


def _descriptor(given: Any, number: int, opened: contextlib.ExitStack) -> int:
    """The file descriptor that `subprocess.Popen` would make of this argument; a pipe that nobody reads is none."""
    if given is None and number:
        return number
    if given in (None, subprocess.DEVNULL, subprocess.PIPE):
        return opened.enter_context(open(os.devnull, "r+b", buffering=0)).fileno()
    return given if isinstance(given, int) else int(given.fileno())
