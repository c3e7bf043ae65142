"""Walks that the denoiser itself takes while it learns.

Training shows a denoiser pictures of the data, noised: x_t from q(x_t | x_0). When it draws, it sees what its own steps
have made, mistakes included. In the toy world the right belief is known for any x_t, whoever made it (`ideal`), so part
of every batch can be states of its own walks, and it learns to go on from its mistakes too (in the manner of DAgger,
Ross et al. 2011).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vqlearn import scenes
from vqlearn.sampling import prior_sample, strided_times
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import p_sample_step

STEPS = (10, 25, 25, 50)  # of walk number n, by turns
END = 30  # the time at which a walk is left: what is still open then the network knows, to a tenth of a nat per picture
FIRST = 10**9  # their captions are those of the training scenes from this number on, which no other batch reaches


class Walks:
    """`count` walks side by side, each a step further per update; one that is done makes room for the next caption."""

    def __init__(self, count: int, length: int, schedule: MaskReplaceSchedule, generator: Generator):
        self.schedule = schedule
        self.x_t = prior_sample(schedule, count, length, generator=generator)
        self.number, self.taken = torch.arange(count), torch.zeros(count, dtype=torch.int64)

    def captions(self) -> list[str]:
        """What each walk is to draw."""
        return [scenes.sample("train", FIRST + number)[1] for number in self.number.tolist()]

    def times(self, ahead: int = 0) -> Tensor:
        """The time of each walk, int64 `[count]`, or with `ahead` that after so many more steps."""
        plans = [strided_times(self.schedule.num_steps, STEPS[number % len(STEPS)]) for number in self.number.tolist()]
        at = [plan[k + ahead] for plan, k in zip(plans, self.taken.tolist(), strict=True)]
        return torch.tensor(at, dtype=torch.int64)

    @torch.no_grad()
    def advance(self, log_p_x0: Tensor, generator: Generator) -> None:
        """One step of each walk by the network's own belief, float `[count, L, K]`."""
        s = self.times(ahead=1)
        self.x_t = p_sample_step(log_p_x0, self.x_t, self.times(), self.schedule, s=s, generator=generator)
        self.taken += 1
        begun = prior_sample(self.schedule, *self.x_t.shape, generator=generator)
        for row in (s <= END).nonzero()[:, 0].tolist():
            self.x_t[row], self.number[row], self.taken[row] = begun[row], self.number.max() + 1, 0

    def state_dict(self) -> dict[str, Tensor]:
        return {"x_t": self.x_t, "number": self.number, "taken": self.taken}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.x_t, self.number, self.taken = (state[name].clone() for name in ("x_t", "number", "taken"))
