"""Right and wrong answers to every exercise of the course, in a module for each notebook as the checks are."""

from answers import (
    bayes,
    codes,
    distributions,
    forward,
    full_model,
    guidance,
    matrices,
    objective,
    one_page,
    sampling,
    schedules,
    since_then,
    start,
)

MODULES = (
    *(start, codes, matrices, forward, schedules, bayes, objective),
    *(sampling, guidance, distributions, full_model, one_page, since_then),
)
LIBRARY = {name: answer for module in MODULES for name, answer in module.LIBRARY.items()}
WRONG = [case for module in MODULES for case in module.WRONG]
