"""One picture and its sentence: what the scene parser reads in the picture, and whether the sentence is true of it."""

from __future__ import annotations

from PIL import Image

from vqlearn.data import scenes


def verdict(image: Image.Image, prompt: str) -> str:
    """What a picture shows and whether it is as asked, in words; "" for a picture of another size than the toy world's.

    >>> scene, caption = scenes.sample("test", 0)
    >>> verdict(Image.fromarray(scenes.draw(scene)), caption).endswith("(as asked)")
    True
    """
    if image.size != (scenes.SIZE, scenes.SIZE):
        return ""
    scene = scenes.read(image)
    try:
        found = vars(scenes.agreement(scene, prompt))
    except ValueError:
        return f"{scene} (the sentence is not one of the toy world, so it was not checked)"
    wrong = [name for name, right in found.items() if not right]
    return f"{scene} ({'as asked' if not wrong else 'not as asked: ' + ', '.join(wrong)})"
