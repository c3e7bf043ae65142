"""Right and wrong answers to every exercise of the course, in a module for each notebook as the checks are."""

from answers import (
    autoregression,
    bayes,
    claims,
    codes,
    distributions,
    forward,
    full_model,
    guidance,
    matrices,
    network,
    objective,
    one_page,
    own_pictures,
    sampling,
    schedules,
    since_then,
    start,
)

MODULES = (
    *(start, codes, matrices, forward, schedules, bayes, network, objective),
    *(sampling, guidance, distributions, full_model, autoregression, one_page, since_then, own_pictures, claims),
)
LIBRARY = {name: answer for module in MODULES for name, answer in module.LIBRARY.items()}
WRONG = [case for module in MODULES for case in module.WRONG]
