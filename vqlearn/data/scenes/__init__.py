"""The offline toy world: small captioned scenes that a program draws and reads back.

A scene holds one to three objects on a plain background. Objects sit on a grid of four pixels, the
size of the patch that one token of the shipped codec describes, and keep one patch of distance.
`draw` renders a scene with anti-aliased edges, `read` recovers it from pixels alone, and
`agreement` compares a picture with a caption, so text-image agreement is measured, not guessed.
"""

from vqlearn.data.scenes.captions import OPENINGS, VOCABULARY, Claim, Mention, parse
from vqlearn.data.scenes.drawing import draw, sprite, to_tensor
from vqlearn.data.scenes.parsing import Agreement, agreement, read
from vqlearn.data.scenes.splits import SAID, SPLITS, TEST_SHARE, UNSEEN_PAIRS, held_out, held_out_pair, sample
from vqlearn.data.scenes.world import (
    BACKGROUNDS,
    COLORS,
    COUNTS,
    GRID,
    INVERSE,
    RELATIONS,
    SHAPES,
    SIDES,
    SIZE,
    Scene,
    SceneObject,
    Thing,
    apart,
    positions_per_side,
    relation_between,
)

__all__ = [
    "BACKGROUNDS",
    "COLORS",
    "COUNTS",
    "GRID",
    "INVERSE",
    "OPENINGS",
    "RELATIONS",
    "SAID",
    "SHAPES",
    "SIDES",
    "SIZE",
    "SPLITS",
    "TEST_SHARE",
    "UNSEEN_PAIRS",
    "VOCABULARY",
    "Agreement",
    "Claim",
    "Mention",
    "Scene",
    "SceneObject",
    "Thing",
    "agreement",
    "apart",
    "draw",
    "held_out",
    "held_out_pair",
    "parse",
    "positions_per_side",
    "read",
    "relation_between",
    "sample",
    "sprite",
    "to_tensor",
]
