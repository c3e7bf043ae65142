"""What runs inside the learner's kernel: it notes what each check is given and puts the cases to these functions."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqlearn.course.checks.check import Check, Function, Outcome


class Desk:
    """In the learner's kernel: checks print nothing there, and the functions that they are given come here.

    Its answers are JSON, for the kernel's reply to the question that asked for them.
    """

    def __init__(self) -> None:
        from vqlearn.course.checks import EXERCISES
        from vqlearn.course.checks.check import collect_attempts

        self.checks = dict(EXERCISES)
        self.given: dict[str, Function] = {}
        self.fresh: list[str] = []
        shell = sys.modules["IPython"].get_ipython()
        self.space = shell.user_ns
        shell.display_pub.publish = lambda *_, **__: None
        sys.stdout = sys.stderr = _Nowhere()
        collect_attempts(self._note)

    def _note(self, check: Check, attempt: Function) -> None:
        self.given[check.name] = attempt
        self.fresh = [*(name for name in self.fresh if name != check.name), check.name]

    def noted(self) -> str:
        """The checks that were called since the last time this was asked."""
        names, self.fresh = self.fresh, []
        return json.dumps(names)

    def outcomes(self, name: str) -> str:
        """What the function last given to a check does on each of its cases."""
        return json.dumps([packed(outcome) for outcome in self.checks[name].run(self.given[name])])

    def last(self, name: str, function: str) -> str:
        """The same for the function that has this name at the end, or null if there is none, or no other."""
        found = self.space.get(function)
        if not callable(found) or found is self.given.get(name):
            return json.dumps(None)
        self.given[name] = found
        return self.outcomes(name)


class _Nowhere(io.TextIOBase):
    """Where the learner's kernel prints. IPython puts a `write` in place that keeps all in memory; here it cannot."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def __setattr__(self, name: str, value: object) -> None:
        pass


# ------------------------------------------------------------------------------------------------ outcomes as JSON


def packed(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON can carry it; of many numbers, of which only the shape is judged, it carries the shape."""
    from vqlearn.course.checks.check import MOST_NUMBERS

    if outcome.error:
        return {"error": outcome.error, "text": outcome.text[:1000]}
    if outcome.numbers is None:
        return {}
    many = outcome.numbers.numel() > MOST_NUMBERS
    return {"shape": list(outcome.numbers.shape), "numbers": [] if many else outcome.numbers.flatten().tolist()}


def unpacked(data: dict[str, Any]) -> Outcome:
    """The outcome that was packed; raises some exception for anything else."""
    import torch

    from vqlearn.course.checks.check import Outcome

    if "error" in data:
        return Outcome(error=str(data["error"]), text=str(data["text"]))
    if not data:
        return Outcome()
    if not data["numbers"]:
        return Outcome(torch.zeros((), dtype=torch.float64).expand(data["shape"]))
    return Outcome(torch.tensor(data["numbers"], dtype=torch.float64).reshape(data["shape"]))
