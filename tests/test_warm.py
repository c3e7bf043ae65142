"""Forked kernels: what a cell finds in one is what it finds in one that Jupyter has started."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from learners import light_nursery

from vqlearn.course import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone")

FACTS = """
import json, os, signal, sys
facts = dict(
    vqlearn=[name for name in sys.modules if name.split(".")[0] == "vqlearn"], main=__name__, argv=sys.argv[:1],
    path=sys.path, cwd=os.getcwd(), leader=os.getpgrp() == os.getsid(0) == os.getpid(), flags=repr(sys.flags),
    environment={k: v for k, v in os.environ.items() if k not in ("JPY_PARENT_PID", "PYTEST_CURRENT_TEST", "_")},
    signals=[str(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGCHLD)], wakeup=signal.set_wakeup_fd(-1) >= 0,
)
signal.set_wakeup_fd(-1)
import matplotlib, torch
facts |= dict(backend=matplotlib.get_backend(), threads=torch.get_num_threads())
with open("facts.json", "w") as file:
    json.dump(facts, file)
"""


class Started:
    """A kernel of this Python, in a folder, started by the provisioner of this name."""

    def __init__(self, folder, provisioner):
        self.manager = KernelManager(
            kernel_name="python3",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            connection_file=str(folder / f"{secrets.token_hex(4)}.json"),
        )
        self.manager.kernel_spec.metadata["kernel_provisioner"] = {"provisioner_name": provisioner}
        aside = {**os.environ, "IPYTHONDIR": str(folder / "ipython"), "OMP_NUM_THREADS": "1"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.manager.start_kernel(cwd=str(folder), env=aside, **quiet)
        self.client = self.manager.client()
        self.client.start_channels(iopub=False, stdin=False, hb=False)
        self.process = self.manager.provisioner.process

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, code):
        """The reply to a cell."""
        number = self.client.execute(code)
        while (reply := self.client.get_shell_msg(timeout=600))["parent_header"]["msg_id"] != number:
            pass
        return reply["content"]


@pytest.fixture
def forked(tmp_path):
    with Started(tmp_path, warm.register()) as kernel:
        assert isinstance(kernel.process, warm.Forked) and kernel.process.poll() is None
        yield kernel


def test_a_cell_finds_what_it_finds_in_a_fresh_python(forked, tmp_path):
    assert forked.run(FACTS)["status"] == "ok"
    found = json.loads((tmp_path / "facts.json").read_text())
    with Started(tmp_path, "local-provisioner") as fresh:
        assert fresh.run(FACTS)["status"] == "ok"
    assert found == json.loads((tmp_path / "facts.json").read_text())
    assert found["leader"] and found["vqlearn"] == [] and found["threads"] == 1


def test_each_draws_its_own_numbers(forked, tmp_path):
    draw = "import json, random, numpy, torch\n"
    draw += "print(json.dumps([random.random(), numpy.random.rand(), float(torch.rand(()))]), file=open('drawn', 'w'))"
    drawn = []
    with Started(tmp_path, warm.register()) as other:
        for kernel in (forked, other):
            assert kernel.run(draw)["status"] == "ok"
            drawn.append(json.loads((tmp_path / "drawn").read_text()))
    assert all(a != b for a, b in zip(*drawn, strict=True))


def test_how_it_ends_is_reported(forked):
    forked.client.execute("import os; os._exit(3)")
    assert forked.process.wait() == forked.process.poll() == 3


def test_it_can_be_interrupted_and_killed(forked):
    number = forked.client.execute("print(1)\nopen('begun', 'w').close()\nwhile True: pass")
    folder = forked.manager.provisioner.cwd
    while not os.path.exists(f"{folder}/begun"):
        pass
    forked.manager.interrupt_kernel()
    reply = forked.client.get_shell_msg(timeout=600)
    assert reply["parent_header"]["msg_id"] == number and reply["content"]["ename"] == "KeyboardInterrupt"
    forked.process.kill()
    assert forked.process.wait() == -signal.SIGKILL


def test_it_ends_with_whoever_started_it(tmp_path):
    """As Jupyter's own do: within a second or so, which this waits for."""
    code = "import sys, test_warm\nfrom pathlib import Path\n"
    code += f"test_warm.warm.nursery.__file__ = {light_nursery(tmp_path)!r}\n"
    code += "kernel = test_warm.Started(Path(sys.argv[1]), test_warm.warm.register())\n"
    code += "print(kernel.process.pid, kernel.process.nursery.process.pid, flush=True)\nimport os; os._exit(0)"
    path = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent.parent}"}
    done = subprocess.run([sys.executable, "-c", code, tmp_path], env=path, stdout=subprocess.PIPE, check=True)
    for process in map(int, done.stdout.split()):
        while Path(f"/proc/{process}").exists():
            time.sleep(0.1)


def test_without_its_nursery_a_kernel_starts_as_usual(tmp_path, monkeypatch):
    class Gone:
        def fork(self, kernel, streams):
            raise BrokenPipeError

    monkeypatch.setattr(warm, "nursery_of", type("", (), {"cache_clear": lambda: None, "__new__": lambda *_: Gone()}))
    with Started(tmp_path, warm.register()) as kernel:
        assert not isinstance(kernel.process, warm.Forked) and kernel.run("1")["status"] == "ok"


def test_another_python_is_not_forked():
    assert warm.possible([sys.executable, "-m", "ipykernel_launcher", "-f", "x"])
    assert not warm.possible(["/usr/bin/other", "-m", "ipykernel_launcher", "-f", "x"])
    assert not warm.possible([sys.executable, "-m", "another_kernel"])
