"""What every check does: run the reader's function, compare, and name the likely mistake."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vqlearn.schedule import MaskReplaceSchedule

RELATIVE, ABSOLUTE = 1e-4, 1e-7  # loose enough for float32, tight enough to tell every mistake from the truth


def judge(
    attempt: Callable, cases: Sequence[tuple], right: Callable, mistakes: Sequence[tuple[str, Callable]], praise: str
) -> None:
    """Run the attempt on every case and print the verdict."""
    try:
        answers = [attempt(*_copies(case)) for case in cases]  # whoever changes an argument changes a copy
        found = [torch.as_tensor(answer).double() for answer in answers if answer is not None]
    except NotImplementedError:
        print("not attempted yet")
        return
    except Exception as error:  # whatever a reader's function may raise
        print(f"Not yet: your function stopped with {type(error).__name__}: {error}")
        return
    if len(found) < len(answers):
        print("Not yet: your function returned None. Is a `return` missing?")
        return
    wanted = _each(right, cases)
    wrong = next((i for i, (a, b) in enumerate(zip(found, wanted, strict=True)) if not _close(a, b)), None)
    if wrong is None:
        print(praise)
        return
    shape, expected = list(found[wrong].shape), list(wanted[wrong].shape)
    if shape != expected:
        print(f"Not yet: the answer has shape {shape}, it should have {expected}.")
        return
    likely = (
        text
        for text, mistake in mistakes
        if all(_close(a, b) for a, b in zip(found, _each(mistake, cases), strict=True))
    )
    print(f"Not yet: {next(likely, 'no common mistake gives this; compare the numbers by hand')}.")
    print(f"  for {_spell(right, cases[wrong])}")
    print(f"  you say   {_numbers(found[wrong])}\n  expected  {_numbers(wanted[wrong])}")


def then(right: Callable, change: Callable) -> Callable:
    """The right answer, changed: a mistake made at the end."""
    return lambda *case: change(right(*case))


def at(right: Callable, times: Callable) -> Callable:
    """The right answer to another pair of times; the last arguments of a case are s, t, schedule."""
    return lambda *case: right(*case[:-3], *times(*case[-3:-1]), case[-1])


def share(values: Tensor) -> Tensor:
    """Values over their sum."""
    return values / values.sum()


def _copies(case: tuple) -> list:
    return [value.clone() if isinstance(value, Tensor) else value for value in case]


def _each(function: Callable, cases: Sequence[tuple]) -> list[Tensor]:
    return [torch.as_tensor(function(*case)).double() for case in cases]


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)


def _spell(function: Callable, case: tuple) -> str:
    """A case in words, by the names of the function's parameters; the schedule goes without saying."""
    pairs = zip(inspect.signature(function).parameters, case, strict=False)
    return ", ".join(f"{name} = {_numbers(torch.as_tensor(value))}" for name, value in pairs if name != "schedule")


def _numbers(values: Tensor) -> str:
    def rounded(value):
        return [rounded(v) for v in value] if isinstance(value, list) else round(value, 4)

    return str(rounded(values.tolist()))


def small_schedule() -> MaskReplaceSchedule:
    """K = 4, T = 10, with more replacement than the presets have, so that no mistake hides in a small number."""
    return MaskReplaceSchedule.from_ends(num_codes=4, num_steps=10, gamma_end=0.5)
