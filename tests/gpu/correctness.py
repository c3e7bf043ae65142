"""Part 1: the tests with the marker `cuda`, each a row as soon as it is done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from .record import Record, bar

TESTS = Path(__file__).parents[1] / "test_cuda.py"


class Recorder:
    """A plug-in for pytest that puts outcome, seconds, and what a test states of itself into a record."""

    def __init__(self, record: Record):
        self.record = record

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        row = {"test": report.nodeid.split("::")[-1], "outcome": report.outcome, "seconds": round(report.duration, 2)}
        if report.user_properties:
            row["states"] = dict(report.user_properties)
        if report.failed:
            row["error"] = report.longreprtext[-2000:]
        self.record.add(**row)


def run(out: Path, device: torch.device) -> None:
    """Run the tests on a device. No plug-in is needed or loaded; warnings are shown, and fail nothing.

    Ends the process with pytest's code where a test fails.
    """
    os.environ.update(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", VQLEARN_TEST_DEVICE=device.type)
    record = Record(out, "correctness", device)
    settings = ["addopts=", "filterwarnings=default"]
    arguments = [str(TESTS), "-q", "--tb=short", "--show-capture=no", "-p", "no:cacheprovider", "-m", "cuda"]
    arguments += [word for setting in settings for word in ("-o", setting)]
    code = pytest.main(arguments, plugins=[Recorder(record)])
    failed = sum(row["outcome"] != "passed" for row in record.content["rows"])
    record.judge(bar("tests that do not pass", failed, met=failed == 0 and bool(record.content["rows"])))
    record.finish()
    raise SystemExit(code)
