"""Checks for the exercises: each takes the reader's function and prints one verdict. A room for each notebook.

`not attempted yet` for a stub, a line of praise for a right answer, and for a wrong one the likely mistake: the answer
is compared with what each common mistake would give. A check never raises, so an unsolved notebook runs to its end.
"""

from vqlearn.checks.bayes import apply_in_logs, likelihood_row, posterior, repair_rate
from vqlearn.checks.codes import compression, nearest_code, perplexity
from vqlearn.checks.forward import corrupt, visible_law, wrong_tokens
from vqlearn.checks.matrices import apply_shares, cumulative_shares, one_step
from vqlearn.checks.published import fit_prompt, visible_changes
from vqlearn.checks.schedules import final_mask_rate, jump_gamma, one_step_alpha
from vqlearn.checks.start import fates, visible_share

__all__ = [
    "apply_in_logs",
    "apply_shares",
    "compression",
    "corrupt",
    "cumulative_shares",
    "fates",
    "final_mask_rate",
    "fit_prompt",
    "jump_gamma",
    "likelihood_row",
    "nearest_code",
    "one_step",
    "one_step_alpha",
    "perplexity",
    "posterior",
    "repair_rate",
    "visible_changes",
    "visible_law",
    "visible_share",
    "wrong_tokens",
]
