"""Right and wrong answers to every exercise of the course, by the room of its check."""

from answers import (
    bayes,
    codes,
    family,
    forward,
    laws,
    matrices,
    objective,
    page,
    published,
    schedules,
    start,
    steering,
    walks,
)

ROOMS = (start, codes, bayes, published, matrices, schedules, forward, walks, steering, objective, laws, page, family)
LIBRARY = {name: answer for room in ROOMS for name, answer in room.LIBRARY.items()}
WRONG = [case for room in ROOMS for case in room.WRONG]
