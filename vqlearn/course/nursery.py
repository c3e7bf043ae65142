"""A process that has imported what notebooks take seconds to import, and forks a kernel from itself when asked.

`vqlearn.course.warm` runs this file as a script: nothing of `vqlearn` is loaded here, so a kernel finds what it would
find in a fresh Python. A request is a line of JSON on the socket that is standard input, with the three standard
streams of the kernel; the answer is its process id, and later, unasked, that id with the status of its end.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import selectors
import signal
import socket
import sys
from typing import Any

HEAVY = (
    *("numpy", "torch", "safetensors.torch", "PIL.Image", "ipywidgets"),
    *("ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.debugger"),
    *(
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
    ),  # not pyplot, which looks for IPython when it is imported
    *("transformers.models.clip.modeling_clip", "transformers.models.clip.tokenization_clip"),
)
MOST = 10**6  # bytes of a request


def serve(line: socket.socket) -> dict[str, Any] | None:
    """Fork kernels until the line is closed. Returns None then, and in each kernel what was asked for it."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asks
    with selectors.DefaultSelector() as ready:
        ready.register(line, selectors.EVENT_READ)
        ready.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fd == woken:
                    os.read(woken, 4096)
                    _report_ends(line)
                    continue
                text, streams, *_ = socket.recv_fds(line, MOST, 3)
                if not text:
                    return None
                if (child := os.fork()) == 0:
                    signal.set_wakeup_fd(-1)
                    line.close()
                    for number, stream in enumerate(streams):
                        os.dup2(stream, number)
                    for descriptor in (woken, wake, *streams):
                        os.close(descriptor)
                    return dict(json.loads(text))
                for stream in streams:
                    os.close(stream)
                line.send(json.dumps({"started": child}).encode())


def _report_ends(line: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError, OSError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            line.send(json.dumps({"ended": ended[0], "status": os.waitstatus_to_exitcode(ended[1])}).encode())


def become(kernel: dict[str, Any]) -> None:
    """Be the kernel that was asked for, as if Python had just been started with its command."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(kernel["cwd"])
    set_by_debugger = {name: value for name, value in os.environ.items() if name == "PYDEVD_USE_FRAME_EVAL"}
    os.environ.clear()
    os.environ.update(kernel["env"], JPY_PARENT_PID=str(os.getppid()), **set_by_debugger)
    launcher = importlib.util.find_spec("ipykernel_launcher")
    alone = f"--IPKernelApp.parent_handle={os.getppid()}"  # a kernel does not outlive its parent
    sys.argv = [str(launcher and launcher.origin), *kernel["arguments"], alone]
    import numpy as np
    import torch

    np.random.seed()  # each kernel draws its own numbers
    torch.seed()
    if threads := kernel["env"].get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()


def main() -> None:
    del sys.path[0]  # the folder of this file
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # which a kernel sets before any import
    for name in HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    kernel = serve(socket.socket(fileno=os.dup(0)))
    if kernel is not None:
        become(kernel)


if __name__ == "__main__":
    main()
