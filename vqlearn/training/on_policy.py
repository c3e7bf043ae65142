"""States of the denoiser's own sampling trajectories, to learn from.

Training shows a denoiser scenes of the data, noised: x_t from q(x_t | x_0). When it samples, it sees what its own steps
have made, mistakes included. In the toy world the right prediction is known for any x_t, whoever made it (`ideal`), so
part of every batch can be states on its own trajectories, and it learns to go on from its mistakes too (in the manner
of DAgger, Ross et al. 2011).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vqlearn.data import layouts
from vqlearn.data.layouts import Claims, TextTable
from vqlearn.draws import Share
from vqlearn.sampling import prior_sample, strided_times
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.training.checkpoint import check_form
from vqlearn.transition import p_sample_step

STEPS = (10, 25, 25, 50)  # sampling steps of trajectory number n, in turn


class Trajectories:
    """`count` trajectories side by side, each a step further per update; one that is done makes room for the next.

    `x_t` int64 `[count, L]`, the captions as `ids` `[count, S]` and `claims`; everything is on the generator's device.
    """

    def __init__(self, count: int, length: int, schedule: MaskReplaceSchedule, texts: TextTable, generator: Generator):
        self.schedule, self.texts, self.device = schedule, texts, generator.device
        plans = [strided_times(schedule.num_steps, steps) for steps in STEPS]
        self.plans = torch.tensor([plan + [0] * (max(STEPS) + 1 - len(plan)) for plan in plans], device=self.device)
        self.number = torch.arange(count, device=self.device)
        self.taken = torch.zeros_like(self.number)
        self.x_t, self.ids, self.claims = self._begin(count, length, generator)

    def _begin(self, count: int, length: int, generator: Generator) -> tuple[Tensor, Tensor, Claims]:
        drawn = layouts.draw("train", count, generator=generator, device=self.device)
        x_t = prior_sample(self.schedule, count, length, generator=generator, device=self.device)
        return x_t, layouts.token_ids(drawn, self.texts), drawn.claims()

    def times(self, ahead: int = 0) -> Tensor:
        """The time of each trajectory, int64 `[count]`, or with `ahead` that after so many more steps."""
        return self.plans[self.number % len(STEPS), self.taken + ahead]

    @torch.no_grad()
    def further(self, logits: Tensor, rows: slice, generator: Generator | Share) -> Tensor:
        """Where one step by the network's own prediction, logits `[N, L, K]`, takes some of the trajectories."""
        x_t, t, s = self.x_t[rows], self.times()[rows], self.times(ahead=1)[rows]
        if isinstance(generator, Share):
            generator = Share(generator.generator, rows, len(self.x_t))
        return p_sample_step(logits, x_t, t, self.schedule, s=s, generator=generator)

    def advance(self, logits: Tensor, generator: Generator) -> None:
        """One step of each trajectory by the network's own prediction, as logits `[count, L, K]`."""
        self.arrive(self.further(logits, slice(None), generator), generator)

    @torch.no_grad()
    def arrive(self, x_s: Tensor, generator: Generator) -> None:
        """Take every trajectory one step further, to `x_s` `[count, L]`."""
        s = self.times(ahead=1)
        self.x_t = x_s
        self.taken += 1
        done = (s == 0).nonzero()[:, 0]
        if len(done):
            x_t, ids, claims = self._begin(len(done), self.x_t.shape[1], generator)
            self.x_t[done], self.ids[done] = x_t, ids
            for ours, new in zip(self.claims, claims, strict=True):
                ours[done] = new
            self.number[done] = self.number.max() + 1 + torch.arange(len(done), device=self.device)
            self.taken[done] = 0

    def state_dict(self) -> dict[str, Tensor]:
        own = {"x_t": self.x_t, "ids": self.ids, "number": self.number, "taken": self.taken}
        return {**own, **self.claims._asdict()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        check_form(state, self.state_dict())
        state = {name: tensor.clone().to(self.device) for name, tensor in state.items()}
        self.claims = Claims(**{name: state.pop(name) for name in Claims._fields})
        self.x_t, self.ids, self.number, self.taken = (state[name] for name in ("x_t", "ids", "number", "taken"))
