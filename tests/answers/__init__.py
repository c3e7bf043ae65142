"""Right and wrong answers to every exercise of the course, by the room of its check."""

from answers import bayes, published, start

ROOMS = (start, bayes, published)
LIBRARY = {name: answer for room in ROOMS for name, answer in room.LIBRARY.items()}
WRONG = [case for room in ROOMS for case in room.WRONG]
