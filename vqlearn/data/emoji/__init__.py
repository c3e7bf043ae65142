"""Real pictures that need no network: 1 911 emoji with names, drawn on plain backgrounds and read back.

A picture of 32 pixels shows one emoji, one of 64 one or two. `sample` draws a picture with its caption, `read` finds
the nearest emoji, and `agreement` compares a picture with a caption, as in the toy world (`vqlearn.data.scenes`). The
pictures are Google's Noto Emoji; see `vqlearn/assets/README.md`.
"""

from vqlearn.data.emoji.captions import OPENINGS, SAID, Claim, any_caption, parse
from vqlearn.data.emoji.drawing import draw
from vqlearn.data.emoji.reading import Agreement, agreement, read
from vqlearn.data.emoji.sheet import EVERYDAY, SPRITE, Emoji, by_name, catalogue, sprites
from vqlearn.data.emoji.splits import SPLITS, TEST_SHARE, UNSEEN_SHARE, arranged, held_out, is_unseen, pool, sample
from vqlearn.data.emoji.world import BACKGROUNDS, CELL, RELATIONS, SIDES, Arrangement, Placed, relation_between

__all__ = [
    "BACKGROUNDS",
    "CELL",
    "EVERYDAY",
    "OPENINGS",
    "RELATIONS",
    "SAID",
    "SIDES",
    "SPLITS",
    "SPRITE",
    "TEST_SHARE",
    "UNSEEN_SHARE",
    "Agreement",
    "Arrangement",
    "Claim",
    "Emoji",
    "Placed",
    "agreement",
    "any_caption",
    "arranged",
    "by_name",
    "catalogue",
    "draw",
    "held_out",
    "is_unseen",
    "parse",
    "pool",
    "read",
    "relation_between",
    "sample",
    "sprites",
]
