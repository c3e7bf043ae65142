"""Several processes that are one training, as `torchrun` starts them, but begun as copies of this one.

To import torch in each would take longer than what is tested.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo  # what each process would import by itself
import torch.multiprocessing as mp


class Together:
    """Processes that call `act(*arguments)` each; `count` of them, numbered from 0 as they are in `processes`."""

    def __init__(self, act: Callable[..., Any], *arguments: Any, count: int = 2):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        context = mp.get_context("fork")
        self.ends, self.processes = [], []
        for rank in range(count):
            end, other = context.Pipe(duplex=False)
            one = context.Process(target=_one, args=(rank, count, port, other, act, arguments))
            one.start()
            other.close()
            self.ends.append(end)
            self.processes.append(one)

    def results(self, patience: float | None = None) -> list[Any]:
        """What the calls return; of a process that returns nothing its exit status.

        One that takes more than `patience` seconds is killed.
        """
        found = []
        for one, end in zip(self.processes, self.ends, strict=True):
            if not end.poll(patience):
                one.kill()
            try:
                result = pickle.loads(end.recv_bytes())
            except EOFError:
                result = None
            one.join()
            found.append(one.exitcode if result is None else result)
        return found


def _one(rank: int, count: int, port: int, pipe: Any, act: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in where.items()})
    torch.set_num_threads(1)
    status: Any = 1
    try:
        pipe.send_bytes(pickle.dumps(act(*arguments)))
        status = 0
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
