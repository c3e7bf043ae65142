"""Checks for the exercises: each is a value that takes the learner's function and prints one verdict.

`not attempted yet` for a stub, a line of praise for a right answer, and for a wrong one the likely mistake: the answer
is compared with what each common mistake would give. A check never raises, so an unsolved notebook runs to its end.
One's own check is a `Check` as well; `check.judge(function)` returns the `Verdict` that calling it prints.
"""

from vqlearn.course.checks.autoregression import cached_step, causal_attention, prefix_work
from vqlearn.course.checks.bayes import apply_in_logs, likelihood_row, posterior, repair_rate
from vqlearn.course.checks.check import Check, Verdict
from vqlearn.course.checks.claims import any_fluke, paired_half_width, seeds_needed
from vqlearn.course.checks.codes import compression, learned_codebook, nearest_code, perplexity
from vqlearn.course.checks.distributions import next_law, one_call, told_and_seen, variation
from vqlearn.course.checks.forward import corrupt, visible_distribution, wrong_tokens
from vqlearn.course.checks.full_model import evaluation_work, fit_prompt, visible_changes
from vqlearn.course.checks.guidance import guided, guided_law, rows_asked, truncated
from vqlearn.course.checks.guided_sampling import token_by_token
from vqlearn.course.checks.kernels import kernel_posterior
from vqlearn.course.checks.matrices import apply_shares, cumulative_shares, one_step
from vqlearn.course.checks.network import adaptive_norm, attention, block, embed, parameter_count
from vqlearn.course.checks.objective import jump_weight, step_cost, time_odds
from vqlearn.course.checks.one_page import mask_only_step, repaired
from vqlearn.course.checks.own_pictures import edge_loss, image_of, kernel_distance
from vqlearn.course.checks.sampling import corrected_law, even_times, masks_left, surest_first, touched_tokens
from vqlearn.course.checks.schedules import final_mask_rate, jump_gamma, one_step_alpha
from vqlearn.course.checks.since_then import masked_term, pattern_weight, uncover_chance
from vqlearn.course.checks.start import token_counts, visible_share

EXERCISES: dict[str, Check] = {
    check.name: check
    for check in (
        *(visible_share, token_counts),
        *(nearest_code, perplexity, compression, learned_codebook),
        *(one_step, cumulative_shares, apply_shares),
        *(wrong_tokens, corrupt, visible_distribution),
        *(one_step_alpha, jump_gamma, final_mask_rate),
        *(likelihood_row, apply_in_logs, posterior, repair_rate),
        *(embed, adaptive_norm, attention, block, parameter_count),
        *(step_cost, jump_weight, time_odds),
        *(touched_tokens, even_times, masks_left, corrected_law, surest_first),
        *(guided, truncated, rows_asked, guided_law, token_by_token),
        *(variation, one_call, next_law, told_and_seen, kernel_posterior),
        *(visible_changes, fit_prompt, evaluation_work),
        *(prefix_work, causal_attention, cached_step),
        *(mask_only_step, repaired),
        *(masked_term, uncover_chance, pattern_weight),
        *(image_of, edge_loss, kernel_distance),
        *(paired_half_width, seeds_needed, any_fluke),
    )
}
"""All checks by name, in the order of the notebooks."""

__all__ = ["EXERCISES", "Check", "Verdict", *EXERCISES]
