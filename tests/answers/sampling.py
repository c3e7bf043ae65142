"""Answers to the exercises of notebook 07: the library's, and wrong ones with what names them."""

import itertools

import torch

import vqlearn
from vqlearn.transition import q_log_probs, transition_matrix
from vqlearn.unmasking import entropy


def touched(mask, factor):
    rows, columns = mask.shape[0] // factor, mask.shape[1] // factor
    return mask.unflatten(1, (columns, factor)).unflatten(0, (rows, factor)).any(3).any(1).flatten()


def strided(num_steps, count):
    return torch.tensor(vqlearn.strided_times(num_steps, count))


def left(times, schedule):
    """By the library's posterior of a masked token, whose mask entry does not depend on the prediction."""
    flat = torch.zeros(1, 1, schedule.num_codes).double().log_softmax(-1)
    masked, share = torch.tensor([[schedule.mask_id]]), schedule.gamma_bar[times[0]]
    for s in times[1:]:
        share = share * vqlearn.q_posterior(flat, masked, s + 1, schedule)[0, 0, -1].exp()
    return share


def step(x_0, x_t, s, t, schedule):
    sure = torch.full((1, 1, schedule.num_codes), -torch.inf).double()
    sure[..., x_0] = 0.0
    return vqlearn.q_posterior(sure, torch.tensor([[x_t]]), t, schedule, s=s)[0, 0].exp()


def forward(x_0, t, schedule):
    return q_log_probs(torch.tensor([[x_0]]), t, schedule, dtype=torch.float64)[0, 0].exp()


def corrected(x_0, x_t, renew, s, t, schedule):
    return (1 - renew) * step(x_0, x_t, s, t, schedule) + renew * forward(x_0, s, schedule)


def blocks(mask, factor):
    return torch.nn.functional.avg_pool2d(mask.double()[None, None], factor)[0, 0]


def exact_stride(times, schedule):
    share = schedule.gamma_bar[times[0]]
    for t, s in itertools.pairwise(times):
        share = share * schedule.gamma_bar[s] / schedule.gamma_bar[t]
    return share


def without_start(times, schedule):
    share = 1.0
    for s in times[1:]:
        share = share * schedule.gamma_bar[s] / schedule.gamma_bar[s + 1]
    return share


def small_step_at_t(times, schedule):
    share = schedule.gamma_bar[times[0]]
    for t in times[:-1]:
        share = share * schedule.gamma_bar[t - 1] / schedule.gamma_bar[t]
    return share


def renoised_x_t(x_0, x_t, renew, s, t, schedule):
    fresh = transition_matrix(schedule, s, 0)[:, x_t]
    return (1 - renew) * step(x_0, x_t, s, t, schedule) + renew * fresh


def surest(log_p, x_t, count, mask_id):
    """By the library's entropy, and one grid and one position after the other."""
    states = torch.nn.functional.one_hot(x_t, mask_id + 1).to(log_p)
    for row, grid in enumerate(x_t.tolist()):
        order = sorted((i for i in range(len(grid)) if grid[i] == mask_id), key=lambda i: entropy(log_p[row])[i])
        for i in order[:count]:
            states[row, i] = torch.cat([log_p[row, i].exp(), torch.zeros(1).to(log_p)])
    return states


def surest_by_probability(log_p, x_t, count, mask_id):
    order = log_p.max(-1)[0].masked_fill(x_t != mask_id, -torch.inf).argsort(-1, descending=True).argsort(-1)
    one_hot = torch.nn.functional.one_hot(x_t, mask_id + 1).to(log_p)
    written = (order < count) & (x_t == mask_id)
    return torch.where(written[..., None], torch.nn.functional.pad(log_p.exp(), (0, 1)), one_hot)


def surest_of_all(log_p, x_t, count, mask_id):
    written = (entropy(log_p).argsort(-1).argsort(-1) < count) & (x_t == mask_id)
    one_hot = torch.nn.functional.one_hot(x_t, mask_id + 1).to(log_p)
    return torch.where(written[..., None], torch.nn.functional.pad(log_p.exp(), (0, 1)), one_hot)


LIBRARY = {
    "touched_tokens": touched,
    "even_times": strided,
    "masks_left": left,
    "corrected_law": corrected,
    "surest_first": surest,
}
WRONG = [
    ("touched_tokens", lambda mask, factor: (blocks(mask, factor) == 1).flatten(), "not only if it covers all"),
    ("touched_tokens", lambda mask, factor: (blocks(mask, factor) >= 0.5).flatten(), "half of the patch"),
    ("touched_tokens", lambda mask, factor: mask[::factor, ::factor].flatten(), "one pixel of each patch"),
    ("touched_tokens", lambda mask, factor: (blocks(mask, factor) > 0).T.flatten(), "rows and columns are swapped"),
    ("touched_tokens", lambda mask, factor: ~touched(mask, factor), "the tokens that are kept"),
    ("touched_tokens", lambda mask, factor: mask.reshape(-1, factor**2).any(1), "cuts the flat mask"),
    ("even_times", lambda n, count: [round(n * k / count) for k in range(count, -1, -1)], "Python's round"),
    ("even_times", lambda n, count: [n * k // count for k in range(count, -1, -1)], "rounds down"),
    ("even_times", lambda n, count: [-(-n * k // count) for k in range(count, -1, -1)], "rounds up"),
    ("even_times", lambda n, count: torch.arange(count, -1, -1), "the last steps of the reverse process"),
    ("even_times", lambda n, count: strided(n, count).flip(0), "time goes down"),
    ("even_times", lambda n, count: [n - k * (n // count) for k in range(count)] + [0], "fixed whole stride"),
    ("masks_left", exact_stride, "the exact stride"),
    ("masks_left", without_start, "does not begin with masks alone"),
    ("masks_left", small_step_at_t, "taken at s + 1"),
    ("masks_left", lambda *case: 1 - left(*case), "has been uncovered"),
    ("masks_left", lambda times, schedule: left([times[0], times[-1]], schedule), "one jump"),
    ("corrected_law", renoised_x_t, "not x_t"),
    ("corrected_law", lambda a, b, renew, *rest: corrected(a, b, 1 - renew, *rest), "chances are swapped"),
    ("corrected_law", lambda a, b, renew, *rest: step(a, b, *rest), "posterior alone"),
    ("corrected_law", lambda a, b, renew, s, t, schedule: forward(a, s, schedule), "the average over x_t"),
    ("corrected_law", lambda a, b, renew, s, t, one: corrected(a, b, renew, t - 1, t, one), "t - 1 for s"),
    ("surest_first", surest_by_probability, "another order than the entropy"),
    ("surest_first", surest_of_all, "visible positions must not be ranked"),
    ("surest_first", lambda log_p, x_t, count, mask: surest(log_p, x_t, 99, mask), "every masked position, not"),
]
