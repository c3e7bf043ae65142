"""One picture and its sentence: what the scene parser reads in the picture, and whether the sentence is true of it."""

from __future__ import annotations

from PIL import Image

from vqlearn.arguments import shown
from vqlearn.data import scenes


def verdict(image: Image.Image, prompt: str) -> str:
    """What a picture shows and whether it is as asked, in words; "" for a picture of another size than the toy world's.

    Raises TypeError for what is no PIL image and for a prompt that is no string.

    >>> scene, caption = scenes.sample("test", 0)
    >>> verdict(Image.fromarray(scenes.draw(scene)), caption).endswith("(as asked)")
    True
    """
    if not isinstance(image, Image.Image) or not isinstance(prompt, str):
        raise TypeError(f"verdict takes a PIL image and a prompt, got {shown(image)} and {shown(prompt)}")
    if image.size != (scenes.SIZE, scenes.SIZE):
        return ""
    scene = scenes.read(image)
    try:
        found = vars(scenes.agreement(scene, prompt))
    except ValueError:
        return f"{scene} (the sentence is not one of the toy world, so it was not checked)"
    wrong = [name for name, right in found.items() if not right]
    return f"{scene} ({'as asked' if not wrong else 'not as asked: ' + ', '.join(wrong)})"
