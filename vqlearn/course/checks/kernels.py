"""Checks of notebook 09, how wrong a sampler is: the posterior of any kernel."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import redistributed
from vqlearn.course.checks.check import Check, then
from vqlearn.course.outcomes import Case

KernelCase = tuple[Tensor, Tensor, Tensor, Tensor]


def normalised_log(log_p: Tensor) -> Tensor:
    """The distribution, in logs, over the last dimension."""
    return log_p - log_p.logsumexp(-1, keepdim=True)


def table(x_t: Tensor, log_bar_s: Tensor, log_step: Tensor) -> Tensor:
    """log of q(x_t | x_s) q(x_s | x_0), `[B, L, C, K]`."""
    return log_step[x_t][..., None] + log_bar_s


def mixed(log_weight: Tensor, paths: Tensor) -> Tensor:
    return normalised_log((paths + log_weight[..., None, :]).logsumexp(-1))


def by_bayes(log_p_x0: Tensor, x_t: Tensor, log_bar_s: Tensor, log_step: Tensor) -> Tensor:
    paths = table(x_t, log_bar_s, log_step)
    evidence = paths.logsumexp(-2)  # [B, L, K]
    return mixed(torch.where(evidence > -torch.inf, log_p_x0 - evidence, -torch.inf), paths)


def not_a_number(log_p_x0: Tensor, x_t: Tensor, log_bar_s: Tensor, log_step: Tensor) -> Tensor:
    paths = table(x_t, log_bar_s, log_step)
    return mixed(log_p_x0 - paths.logsumexp(-2), paths)


def not_divided(log_p_x0: Tensor, x_t: Tensor, log_bar_s: Tensor, log_step: Tensor) -> Tensor:
    return mixed(log_p_x0, table(x_t, log_bar_s, log_step))


def mass_lost(log_p_x0: Tensor, x_t: Tensor, log_bar_s: Tensor, log_step: Tensor) -> Tensor:
    paths = table(x_t, log_bar_s, log_step)
    evidence = paths.logsumexp(-2)
    weight = torch.where(evidence > -torch.inf, log_p_x0 - evidence, -torch.inf)
    return (paths + weight[..., None, :]).logsumexp(-1)


def column(log_p_x0: Tensor, x_t: Tensor, log_bar_s: Tensor, log_step: Tensor) -> Tensor:
    return by_bayes(log_p_x0, x_t, log_bar_s, log_step.T)


def forgotten(log_p_x0: Tensor, x_t: Tensor, log_bar_s: Tensor, log_step: Tensor) -> Tensor:
    return normalised_log((log_bar_s + log_p_x0[..., None, :]).logsumexp(-1))


def likelihood(log_p_x0: Tensor, x_t: Tensor, log_bar_s: Tensor, log_step: Tensor) -> Tensor:
    return normalised_log(log_step[x_t])


def largest(log_p_x0: Tensor, x_t: Tensor, log_bar_s: Tensor, log_step: Tensor) -> Tensor:
    sure = torch.zeros_like(log_p_x0).scatter(-1, log_p_x0.argmax(-1, keepdim=True), 1.0).log()
    return by_bayes(sure, x_t, log_bar_s, log_step)


# ------------------------------------------------------------------------------------------ kernels, [to, from]


def neighbours(codes: int, width: float) -> Tensor:
    """Codes on a line replaced by near ones, in the manner of D3PM's discretised Gaussian; no mask, `[K, K]`."""
    distance = torch.arange(codes)[:, None] - torch.arange(codes)
    weight = torch.exp(-((distance / width) ** 2).double())
    return weight / weight.sum(0)


def with_mask(codes: int, kept: float, masked: float) -> Tensor:
    """Mask and replace, the rest spread over all codes, `[K + 1, K + 1]`."""
    matrix = torch.zeros(codes + 1, codes + 1, dtype=torch.float64)
    matrix[:codes, :codes] = (1 - kept - masked) / codes + kept * torch.eye(codes)
    matrix[codes, :codes], matrix[codes, codes] = masked, 1.0
    return matrix


def kernels() -> list[KernelCase]:
    """Masks alone, where zeros abound; mask and replace; neighbours without a mask, in float32."""
    generator, cases = torch.Generator().manual_seed(0), []
    for matrix_s, step, codes, shape, dtype in (
        (with_mask(3, 0.6, 0.4), with_mask(3, 0.5, 0.5), 3, (1, 4), torch.float64),
        (with_mask(2, 0.5, 0.3), with_mask(2, 0.6, 0.3), 2, (3, 2), torch.float64),
        (neighbours(5, 0.8), neighbours(5, 1.3), 5, (2, 3), torch.float32),
    ):
        x_t = torch.arange(shape[0] * shape[1]).view(shape) % len(step)
        log_p = torch.randn(*shape, codes, dtype=torch.float64, generator=generator).log_softmax(-1)
        cases.append((log_p.to(dtype), x_t, matrix_s[:, :codes].log().to(dtype), step.log().to(dtype)))
    return cases


def other_kernel(case: Case, generator: Generator) -> Case:
    log_p_x0, x_t, log_bar_s, log_step = case
    columns = [redistributed(log.exp().T, generator).T.log().to(log) for log in (log_bar_s, log_step)]
    return redistributed(log_p_x0.exp(), generator).log().to(log_p_x0), x_t, *columns


kernel_posterior = Check(
    name="kernel_posterior",
    question="log p(x_s | x_t) for a kernel given by its matrices, `[B, L, K] -> [B, L, C]`",
    solution=by_bayes,
    cases=kernels(),
    mistakes=[
        (
            "some entries are nan: where x_0 cannot have become x_t the quotient is 0 / 0; leave such an x_0 out "
            "before you divide",
            not_a_number,
        ),
        (
            "each q(x_s | x_t, x_0) has to sum to 1 before it is weighted with the prediction: divide by q(x_t | x_0)",
            not_divided,
        ),
        ("what remains after leaving out an impossible x_0 does not sum to 1: normalise", mass_lost),
        ("that is the column of x_t, what x_t becomes; the likelihood of x_t is its row", column),
        ("x_t is forgotten: that is q(x_s | x_0), averaged over the prediction", forgotten),
        ("that is the likelihood alone: the prediction and q(x_s | x_0) are missing", likelihood),
        ("sum over all x_0 with their probabilities, do not take the likeliest", largest),
        ("the answer is asked for in logs", then(by_bayes, lambda log_p: log_p.exp())),
    ],
    praise="Bayes' rule for every x_0, and then the average: any kernel can be sampled with it.",
    vary=other_kernel,
)
