"""An independent oracle: dense matrices multiplied up one step at a time, and Bayes' rule, in 60-digit decimals.

Written from the definition of the process alone and slow on purpose. Matrices are `[to, from]`, the mask is last.
"""

from decimal import Decimal, getcontext

import numpy as np
import torch

from vqlearn.schedule import MaskReplaceSchedule

getcontext().prec = 60
FALSE_ALARM = 1e-6  # with which a statistical test rejects a right distribution (its seed is fixed, though)


def decimals(values):
    """Floats taken as the exact numbers they are."""
    return [Decimal(float(v)) for v in values]


def one_step_matrices(alpha_bar, gamma_bar, num_codes):
    """Q_1 ... Q_T from two cumulative curves; what each step must keep, mask and so replace follows from them."""
    a, g = decimals(alpha_bar), decimals(gamma_bar)
    steps = []
    for t in range(1, len(a)):
        keep, mask = a[t] / a[t - 1], (g[t] - g[t - 1]) / (1 - g[t - 1])
        steps.append(dense(keep, (1 - keep - mask) / num_codes, mask, num_codes))
    return steps


def dense(alpha, beta, gamma, num_codes):
    zero = alpha * 0
    matrix = np.full((num_codes + 1, num_codes + 1), beta + zero, dtype=object)
    matrix[np.arange(num_codes), np.arange(num_codes)] = alpha + beta
    matrix[num_codes], matrix[:, num_codes] = gamma, zero
    matrix[num_codes, num_codes] = zero + 1
    return matrix


def all_pairs(steps):
    """{(s, t): Q_t ... Q_{s+1}} for every s <= t, by multiplying one step after the other."""
    eye = steps[0] * 0 + np.array([[Decimal(int(i == j)) for j in range(len(steps[0]))] for i in range(len(steps[0]))])
    products = {}
    for s in range(len(steps) + 1):
        products[s, s] = eye
        for t in range(s + 1, len(steps) + 1):
            products[s, t] = steps[t - 1] @ products[s, t - 1]
    return products


def bayes(products, s, t):
    """q(x_s | x_t, x_0) as float64 `[x_s, x_t, x_0]`; every x_t must be possible from every code x_0."""
    likelihood, prior = products[s, t], products[0, s][:, :-1]  # [x_t, x_s], [x_s, x_0]
    joint = likelihood.T[:, :, None] * prior[:, None, :]  # [x_s, x_t, x_0]
    return floats(joint / joint.sum(0))


def floats(array):
    return torch.from_numpy(np.asarray(array, dtype=object).astype(float))


def well_conditioned(seed, num_codes=4, num_steps=6):
    """A random schedule and the one-step shares `[T, 3]` that made it; each cumulative share is at least 1e-3."""
    generator = torch.Generator().manual_seed(seed)
    replace, mask = 0.02 + 0.4 * torch.rand(2, num_steps, generator=generator, dtype=torch.float64)
    steps = torch.stack([1 - replace - mask, replace, mask], dim=-1)
    start = torch.ones(1, dtype=torch.float64)
    alpha_bar, seen = torch.cat([start, 1 - mask - replace]).cumprod(0), torch.cat([start, 1 - mask]).cumprod(0)
    schedule = MaskReplaceSchedule(alpha_bar, 1 - seen, num_codes=num_codes)
    shares = torch.stack([schedule.alpha_bar, num_codes * schedule.beta_bar, schedule.gamma_bar])[:, 1:]
    assert shares.min() >= 1e-3
    return schedule, steps


def ramp(num_steps, end=None):
    """0, ..., 1 in equal steps, reaching 1 at `end` (T if not given) and staying there."""
    return (torch.arange(num_steps + 1, dtype=torch.float64) / (end or num_steps)).clamp(max=1)


def edge_schedules(num_codes=3, num_steps=5):
    """Schedules on the border of what is allowed: single noises, curves that hit 0 and 1 exactly, early or at T."""
    r, early = ramp(num_steps), ramp(num_steps, 3)
    cosine, early_cosine = torch.cos(r * torch.pi / 2), torch.cos(early * torch.pi / 2)
    make = MaskReplaceSchedule
    return {
        "mask only": make(1 - r, r, num_codes=num_codes),
        "mask only, done early": make(1 - early, early, num_codes=num_codes),
        "mask only, half way": make(1 - r / 2, r / 2, num_codes=num_codes),
        "uniform only": make(1 - r, 0 * r, num_codes=num_codes),
        "uniform only, done early": make(1 - early, 0 * r, num_codes=num_codes),
        "cosine mask": make(cosine, 1 - cosine, num_codes=num_codes),
        "cosine mask, done early": make(early_cosine, 1 - early_cosine, num_codes=num_codes),
        "cosine uniform": make(cosine, 0 * cosine, num_codes=num_codes),
        "nothing kept, then all masked": make(1 - early, r**2 / 2 + early**2 / 2, num_codes=num_codes),
        "replace first, mask later": make([1, 0.6, 0.6, 0.3, 0.3, 0.1], [0, 0, 0, 0.5, 0.5, 0.8], num_codes=num_codes),
        "no noise": make(0 * r + 1, 0 * r, num_codes=num_codes),
        "one step": make([1, 0], [0, 1], num_codes=num_codes),
        "one code": make(1 - r, r / 2, num_codes=1),
        "one code, mask only": make(1 - r, r, num_codes=1),
    }


def random_prediction(*shape, seed=0, scale=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).log_softmax(-1).to(dtype)


def chi_square_p_value(draws, p):
    """The p-value of draws `[N]` under a distribution `[C]`, 0 for an impossible draw. States too rare are pooled."""
    counts = torch.bincount(draws.flatten(), minlength=len(p)).double()
    if counts[p == 0].sum() > 0:
        return 0.0
    expected = p.double() / p.sum() * counts.sum()
    rare = expected < 10
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    counts, expected = counts[expected > 0], expected[expected > 0]
    if len(expected) == 1:
        return 1.0
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = torch.tensor((len(expected) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2))
