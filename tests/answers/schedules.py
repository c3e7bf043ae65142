"""Answers to the exercises of notebook 04: the library's, and wrong ones with what names them."""

import torch

from vqlearn.schedule import MaskReplaceSchedule


def alphas(alpha_bar):
    return MaskReplaceSchedule(alpha_bar, 1 - alpha_bar, num_codes=4).alpha


def masked_in_jump(s, t, gamma_bar):
    return MaskReplaceSchedule(1 - gamma_bar, gamma_bar, num_codes=4).between(s, t).gamma


def fixed_part(alpha_bar, rate):
    curve = rate / (1 - alpha_bar[-1]) * (1 - alpha_bar)
    return MaskReplaceSchedule(alpha_bar, curve, num_codes=4).gamma_bar


def begun(first, steps):
    return torch.cat([torch.tensor([first]).double(), steps])


LIBRARY = {"one_step_alpha": alphas, "jump_gamma": masked_in_jump, "final_mask_rate": fixed_part}
WRONG = [
    ("one_step_alpha", lambda bar: begun(1.0, -bar.diff()), "how much the curve falls"),
    ("one_step_alpha", lambda bar: begun(1.0, 1 + bar.diff()), "take that from 1"),
    ("one_step_alpha", lambda bar: 1 - alphas(bar), "lost in the step"),
    ("one_step_alpha", lambda bar: begun(1.0, 1 - alphas(bar)[1:]), "lost in the step"),
    ("one_step_alpha", lambda bar: 1 / alphas(bar), "upside down"),
    ("one_step_alpha", lambda bar: bar, "the bar is from clean data"),
    ("one_step_alpha", lambda bar: torch.cat([alphas(bar)[1:], torch.ones(1)]), "shifted by one"),
    ("one_step_alpha", lambda bar: begun(0.0, alphas(bar)[1:]), "entry 0 is 1"),
    ("jump_gamma", lambda s, t, bar: bar[t] - bar[s], "unmasked at s"),
    ("jump_gamma", lambda s, t, bar: bar[t] / bar[s], "the ratio of 1 - gamma_bar"),
    ("jump_gamma", lambda s, t, bar: 1 - bar[s] / bar[t], "the ratio of 1 - gamma_bar"),
    ("jump_gamma", lambda *case: 1 - masked_in_jump(*case), "stay unmasked"),
    ("jump_gamma", lambda s, t, bar: bar[t], "from clean data"),
    ("jump_gamma", lambda s, t, bar: bar[t - s], "equal strides"),
    ("jump_gamma", lambda s, t, bar: masked_in_jump(t - 1, t, bar), "the last step"),
    ("jump_gamma", lambda s, t, bar: bar[t] / bar[s] - 1, "masked there"),
    ("jump_gamma", lambda s, t, bar: (1 - bar[s]) / (1 - bar[t]) - 1, "not at t"),
    ("final_mask_rate", lambda bar, rate: rate * (1 - bar), "rescale"),
    ("final_mask_rate", lambda bar, rate: rate * torch.arange(len(bar)) / (len(bar) - 1), "a straight line"),
    ("final_mask_rate", lambda bar, rate: 1 - bar, "masks everything"),
    ("final_mask_rate", lambda bar, rate: 1 - bar - fixed_part(bar, rate), "the replaced share"),
    ("final_mask_rate", lambda bar, rate: rate * bar, "that falls"),
    ("final_mask_rate", lambda bar, rate: torch.full_like(bar, rate), "at t = 0 nothing is masked"),
    ("final_mask_rate", lambda bar, rate: rate * (1 - bar) / bar[-1], "not alpha_bar[-1]"),
    ("jump_gamma", lambda s, t, g: sum(1 - (1 - g[i]) / (1 - g[i - 1]) for i in range(s + 1, t + 1)), "do not add"),
    ("jump_gamma", lambda s, t, g: masked_in_jump(t - 3, t, g), "no common mistake"),
    ("one_step_alpha", lambda bar: torch.cat([torch.ones(1), bar.log().diff()]), "take exp"),
]
