"""Checks for the exercises: each takes the reader's function and prints one verdict. A room for each notebook.

`not attempted yet` for a stub, a line of praise for a right answer, and for a wrong one the likely mistake: the answer
is compared with what each common mistake would give. A check never raises, so an unsolved notebook runs to its end.
"""

from vqlearn.checks.bayes import apply_in_logs, likelihood_row, posterior, repair_rate
from vqlearn.checks.published import fit_prompt, visible_changes
from vqlearn.checks.start import fates, visible_share

__all__ = [
    "apply_in_logs",
    "fates",
    "fit_prompt",
    "likelihood_row",
    "posterior",
    "repair_rate",
    "visible_changes",
    "visible_share",
]
