"""What a learner's function does on a case, and how cases and outcomes travel between marker and kernel: as JSON.

JSON holds numbers and text and nothing that could run, whichever side wrote it. Nothing here knows an answer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqlearn.schedule import MaskReplaceSchedule

Function = Callable[..., Any]
Case = tuple[Any, ...]
MOST_NUMBERS = 10_000  # of an answer with more only the shape is judged; the checks ask for a few
MOST_TEXT = 1000  # characters of an exception


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an attempt did on one case: it returned `numbers` or None, or it raised the `error` of that name."""

    numbers: Tensor | None = None
    error: str = ""
    text: str = ""


def outcomes_of(attempt: Function, cases: Sequence[Case]) -> list[Outcome]:
    """What a function does on each case, up to the first that raises an exception."""
    found: list[Outcome] = []
    for case in cases:
        found.append(_outcome(attempt, copy.deepcopy(case)))  # an attempt that changes an argument changes a copy
        if found[-1].error:
            break
    return found


def _outcome(attempt: Function, case: Case) -> Outcome:
    try:
        answer = attempt(*case)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a learner's function may raise
        return Outcome(error=type(error).__name__, text=in_words(error))
    if answer is None:
        return Outcome()
    try:
        return Outcome(_numbers(answer))
    except Exception as error:
        return Outcome(error="TypeError", text=f"its answer cannot be read as numbers: {in_words(error)}")


def _numbers(answer: Any) -> Tensor:
    if isinstance(answer, list | tuple) and any(isinstance(part, Tensor) and part.ndim for part in answer):
        found = f"it is a {'list' if isinstance(answer, list) else 'tuple'} of tensors, not one tensor"
        raise TypeError(f"{found}. torch.stack joins tensors; max and sort give values and indices: return one of them")
    numbers = torch.as_tensor(answer).detach()
    if numbers.is_complex():
        raise TypeError("they are complex")
    if numbers.layout != torch.strided:
        numbers = numbers.to_dense()
    return numbers if numbers.numel() > MOST_NUMBERS else numbers.cpu().double()


def in_words(error: BaseException) -> str:
    """The text of an exception, of which any part can be printed, and whose `__str__` may itself raise one."""
    try:
        return str(error)[:MOST_TEXT].encode("utf-8", "backslashreplace").decode()
    except Exception:
        return "it has no text"


# ------------------------------------------------------------------------------------------------ as JSON carries them


def packed(outcome: Outcome) -> dict[str, Any]:
    """An outcome for JSON; of many numbers, of which only the shape is judged, it carries the shape."""
    if outcome.error:
        return {"error": outcome.error, "text": outcome.text}
    if outcome.numbers is None:
        return {}
    many = outcome.numbers.numel() > MOST_NUMBERS
    return {"shape": list(outcome.numbers.shape), "numbers": [] if many else outcome.numbers.flatten().tolist()}


def unpacked(data: dict[str, Any]) -> Outcome:
    """The outcome that was packed; raises some exception for anything else."""
    if "error" in data:
        return Outcome(error=str(data["error"]), text=str(data["text"]))
    if not data:
        return Outcome()
    if not data["numbers"]:
        return Outcome(torch.zeros((), dtype=torch.float64).expand(data["shape"]))
    return Outcome(torch.tensor(data["numbers"], dtype=torch.float64).reshape(data["shape"]))


def packed_argument(value: Any) -> Any:
    """A case's argument for JSON. Raises TypeError for what is no number, list of numbers, tensor or schedule."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return {"tensor": value.flatten().tolist(), "shape": list(value.shape), "dtype": dtype}
    if isinstance(value, MaskReplaceSchedule):
        curves = value.alpha_bar.tolist(), value.gamma_bar.tolist()
        return {"alpha_bar": curves[0], "gamma_bar": curves[1], "num_codes": value.num_codes}
    if isinstance(value, list):
        return [packed_argument(item) for item in value]
    if isinstance(value, int | float):
        return value
    raise TypeError(f"a case's argument must be a number, a list, a tensor or a schedule, got {type(value).__name__}")


def unpacked_argument(data: Any) -> Any:
    """The argument that was packed."""
    if isinstance(data, list):
        return [unpacked_argument(item) for item in data]
    if not isinstance(data, dict):
        return data
    if "tensor" in data:
        return torch.tensor(data["tensor"], dtype=getattr(torch, data["dtype"])).reshape(data["shape"])
    return MaskReplaceSchedule(data["alpha_bar"], data["gamma_bar"], num_codes=data["num_codes"])
