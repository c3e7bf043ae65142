"""One picture and its sentence: what is read in the picture, and whether the sentence is true of it."""

from __future__ import annotations

from typing import Any

from PIL import Image

from vqlearn.arguments import shown
from vqlearn.data import emoji, scenes

WORLDS: dict[str, tuple[Any, str]] = {"scenes": (scenes, "the toy world"), "emoji": (emoji, "those of emoji")}


def is_known(prompt: str, data: str) -> bool:
    """Whether a sentence is one of "scenes" or "emoji"."""
    try:
        WORLDS[data][0].parse(prompt)
    except ValueError:
        return False
    return True


def verdict(image: Image.Image, prompt: str, data: str = "scenes") -> str:
    """What a picture shows and whether it is as asked, in words; "" for a picture of another size than the data's.

    `data` is "scenes" or "emoji". Raises TypeError for what is no PIL image and for a prompt that is no string.

    >>> scene, caption = scenes.sample("test", 0)
    >>> verdict(Image.fromarray(scenes.draw(scene)), caption).endswith("(as asked)")
    True
    """
    if not isinstance(image, Image.Image) or not isinstance(prompt, str):
        raise TypeError(f"verdict takes a PIL image and a prompt, got {shown(image)} and {shown(prompt)}")
    world, name = WORLDS[data]
    try:
        seen = world.read(image)
    except ValueError:  # of another size
        return ""
    try:
        found = vars(world.agreement(seen, prompt))
    except ValueError:
        return f"{seen} (the sentence is not one of {name}, so it was not checked)"
    wrong = [name for name, right in found.items() if not right]
    return f"{seen} ({'as asked' if not wrong else 'not as asked: ' + ', '.join(wrong)})"
