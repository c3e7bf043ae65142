"""An exercise's check as a value: its cases, its solution and its common mistakes, and the verdict on an attempt."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Generator, Tensor

from vqlearn.course.outcomes import Case, Function, Outcome, outcomes_of
from vqlearn.schedule import MaskReplaceSchedule

RELATIVE, ABSOLUTE = 1e-4, 1e-7  # loose enough for float32, tight enough to tell every mistake from the truth


@dataclass(frozen=True)
class Verdict:
    """What a check says: `status` is "right", "not attempted", "wrong" or "crashed"; `str(verdict)` is printed.

    `reason` is one sentence: the praise, the likely mistake, or the error. `comparison` shows the first wrong case.
    """

    status: str
    reason: str = ""
    comparison: str = ""

    def __str__(self) -> str:
        if self.status == "not attempted":
            return "not attempted yet"
        first = f"{'Right' if self.status == 'right' else 'Not yet'}: {self.reason}"
        return f"{first}\n{self.comparison}" if self.comparison else first


@dataclass(frozen=True, eq=False)
class Check:
    """A check of one exercise. Calling it with the learner's function prints the verdict; it never raises.

    `question` says what is asked for. `solution` is a right function; the names of its parameters are printed. Each of
    `cases` is a tuple of arguments. `mistakes` are pairs of a sentence and the function that makes this mistake; the
    first that gives the learner's answers to all cases is named. `praise` is the sentence for a right answer. `vary`
    makes another case from one of them and a generator, for the marker; without it the marker asks for `cases` alone.

    >>> double = Check(
    ...     name="double", question="twice a number", solution=lambda x: 2 * x, cases=[(1.0,), (3.0,)],
    ...     mistakes=[("that is the square", lambda x: x**2)], praise="the number and itself once more.",
    ... )
    >>> double(lambda x: x + x)
    Right: the number and itself once more.
    >>> double.judge(lambda x: x * x).reason
    'that is the square.'
    """

    name: str
    question: str
    solution: Function = field(repr=False)
    cases: Sequence[Case] = field(repr=False)
    mistakes: Sequence[tuple[str, Function]] = field(repr=False)
    praise: str = field(repr=False)
    vary: Callable[[Case, Generator], Case] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", f"`{self.signature}`: {self.question}.")  # for help and the reference

    def __call__(self, attempt: Function) -> None:
        """Print the verdict on a function."""
        print(self.judge(attempt))

    @property
    def signature(self) -> str:
        """The call that is asked for, such as "token_counts(x_0, x_t, mask_id)"."""
        return f"{self.name}({', '.join(_parameters(self.solution))})"

    def varied(self, generator: Generator) -> Check:
        """The same check with other cases of the same kind."""
        return replace(self, cases=[self.vary(case, generator) for case in self.cases] if self.vary else self.cases)

    def judge(self, attempt: Function) -> Verdict:
        """Run a function on every case and judge what it does."""
        return self.verdict(self.run(attempt))

    def run(self, attempt: Function) -> list[Outcome]:
        """What a function does on each case, up to the first that raises an exception."""
        return outcomes_of(attempt, self.cases)

    def verdict(self, outcomes: Sequence[Outcome]) -> Verdict:
        """Judge the outcomes of an attempt. Raises ValueError if there are fewer than cases and none is an error."""
        for outcome in outcomes:
            if outcome.error == NotImplementedError.__name__ and not outcome.text:  # torch's own has a text
                return Verdict("not attempted")
            if outcome.error:
                return Verdict("crashed", f"your function stopped with {outcome.error}: {outcome.text}")
        found = [outcome.numbers for outcome in outcomes if outcome.numbers is not None]
        if len(found) < len(outcomes):
            return Verdict("wrong", "your function returned None. Is a `return` missing?")
        return self._compared(found)

    def _compared(self, found: Sequence[Tensor]) -> Verdict:
        wanted = list(self._answers(self.solution))
        pairs = enumerate(zip(found, wanted, strict=True))
        wrong = next((i for i, (a, b) in pairs if not _close(a, b)), None)
        if wrong is None:
            return Verdict("right", self.praise)
        shape, expected = list(found[wrong].shape), list(wanted[wrong].shape)
        if shape != expected:
            return Verdict("wrong", f"the answer has shape {shape}, it should have {expected}.")
        case = zip(_parameters(self.solution), self.cases[wrong], strict=True)
        given = ", ".join(f"{name} = {_spelled(value)}" for name, value in case if name != "schedule")
        comparison = f"  for {given}\n  you say   {_spelled(found[wrong])}\n  expected  {_spelled(wanted[wrong])}"
        return Verdict("wrong", f"{self._likely(found)}.", comparison)

    def _likely(self, found: Sequence[Tensor]) -> str:
        """The mistake that gives just these answers."""
        for text, mistake in self.mistakes:
            if all(_close(a, b) for a, b in zip(found, self._answers(mistake), strict=True)):
                return text
        return "no common mistake gives this; compare the numbers by hand"

    def _answers(self, function: Function) -> Iterable[Tensor]:
        return (torch.as_tensor(function(*copy.deepcopy(case))).double() for case in self.cases)


# ------------------------------------------------------------------------------------- what the checks are written with


def then(solution: Function, change: Function) -> Function:
    """The right answer, changed: a mistake made at the end."""
    return lambda *case: change(solution(*case))


def at_times(solution: Function, times: Function) -> Function:
    """The right answer for another pair of times; the last arguments of a case are s, t, schedule."""
    return lambda *case: solution(*case[:-3], *times(*case[-3:-1]), case[-1])


def normalised(values: Tensor) -> Tensor:
    """Values over their sum."""
    return values / values.sum()


def small_schedule(num_codes: int = 4, num_steps: int = 10) -> MaskReplaceSchedule:
    """Few codes and steps, with more replacement than the presets have, so that no mistake hides in a small number."""
    return MaskReplaceSchedule.from_ends(num_codes=num_codes, num_steps=num_steps, gamma_end=0.5)


# ------------------------------------------------------------------------------------------------------------- numbers


def _close(a: Tensor, b: Tensor) -> bool:
    same = a.shape == b.shape
    return same and torch.allclose(a.double(), b.double(), rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)


def _parameters(function: Function) -> list[str]:
    kinds = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD
    return [name for name, p in inspect.signature(function).parameters.items() if p.kind not in kinds]


def _spelled(value: Any) -> str:
    def rounded(value: Any) -> Any:
        return [rounded(v) for v in value] if isinstance(value, list) else round(value, 4)

    return str(rounded(torch.as_tensor(value).tolist()))
