"""Checks for the exercises: each takes the reader's function and prints one verdict. A room for each notebook.

`not attempted yet` for a stub, a line of praise for a right answer, and for a wrong one the likely mistake: the answer
is compared with what each common mistake would give. A check never raises, so an unsolved notebook runs to its end.
"""

from vqlearn.course.checks.bayes import apply_in_logs, likelihood_row, posterior, repair_rate
from vqlearn.course.checks.codes import compression, nearest_code, perplexity
from vqlearn.course.checks.family import masked_term, pattern_weight, uncover_chance
from vqlearn.course.checks.forward import corrupt, visible_law, wrong_tokens
from vqlearn.course.checks.laws import next_law, one_call, told_and_seen, variation
from vqlearn.course.checks.matrices import apply_shares, cumulative_shares, one_step
from vqlearn.course.checks.objective import jump_weight, step_cost, time_odds
from vqlearn.course.checks.page import mask_only_step, repaired
from vqlearn.course.checks.published import fit_prompt, visible_changes
from vqlearn.course.checks.schedules import final_mask_rate, jump_gamma, one_step_alpha
from vqlearn.course.checks.start import fates, visible_share
from vqlearn.course.checks.steering import guided, guided_law, rows_asked, truncated
from vqlearn.course.checks.walks import corrected_law, even_times, masks_left, touched_tokens

__all__ = [
    "apply_in_logs",
    "apply_shares",
    "compression",
    "corrected_law",
    "corrupt",
    "cumulative_shares",
    "even_times",
    "fates",
    "final_mask_rate",
    "fit_prompt",
    "guided",
    "guided_law",
    "jump_gamma",
    "jump_weight",
    "likelihood_row",
    "mask_only_step",
    "masked_term",
    "masks_left",
    "nearest_code",
    "next_law",
    "one_call",
    "one_step",
    "one_step_alpha",
    "pattern_weight",
    "perplexity",
    "posterior",
    "repair_rate",
    "repaired",
    "rows_asked",
    "step_cost",
    "time_odds",
    "told_and_seen",
    "touched_tokens",
    "truncated",
    "uncover_chance",
    "variation",
    "visible_changes",
    "visible_law",
    "visible_share",
    "wrong_tokens",
]
