"""The toy world itself: what objects, colours, backgrounds and relations there are, and where objects may be."""

from __future__ import annotations

from dataclasses import dataclass

SIZE = 32  # pixels per side
GRID = 4  # objects start at multiples of this many pixels
SIDES = {"small": 8, "large": 12}
SHAPES = ("circle", "square", "triangle", "star", "cross")
COLORS = {
    "red": (222, 38, 38),
    "green": (34, 160, 60),
    "blue": (38, 74, 222),
    "yellow": (248, 220, 40),
    "orange": (246, 132, 20),
    "purple": (140, 44, 180),
    "cyan": (40, 200, 222),
    "pink": (250, 140, 196),
}
BACKGROUNDS = {"white": (244, 244, 244), "gray": (128, 128, 128), "black": (18, 18, 18)}
RELATIONS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
INVERSE = {"right of": "left of", "below": "above"}
COUNTS = {1: 0.35, 2: 0.45, 3: 0.2}  # of scenes, by the number of their objects


@dataclass(frozen=True, order=True)
class SceneObject:
    """One object; `row` and `col` are its top-left pixel. `read` calls a shape or colour it cannot name "unknown"."""

    size: str
    color: str
    shape: str
    row: int
    col: int

    @property
    def center(self) -> tuple[float, float]:
        """Row and column in pixels."""
        half = SIDES[self.size] / 2
        return self.row + half, self.col + half


Thing = SceneObject  # the name that the notebooks use


@dataclass(frozen=True)
class Scene:
    """A background and one to three objects (zero to many when it was read from a picture)."""

    background: str
    objects: tuple[SceneObject, ...]

    def __str__(self) -> str:
        if not self.objects:
            return f"nothing on a {self.background} background"
        words = [f"a {one.size} {one.color} {one.shape}" for one in self.objects]
        text = ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]
        if len(self.objects) == 2 and (relation := relation_between(*self.objects)):
            text = f"{words[0]} {relation} {words[1]}"
        return f"{text} on a {self.background} background"

    @property
    def things(self) -> tuple[SceneObject, ...]:
        """The objects, by the name that the notebooks use."""
        return self.objects


def relation_between(a: SceneObject, b: SceneObject) -> str | None:
    """Which of the four relations a has to b: the axis of the larger distance decides, a tie is no relation."""
    d_row, d_col = b.center[0] - a.center[0], b.center[1] - a.center[1]
    if abs(d_row) == abs(d_col):
        return None
    if abs(d_col) > abs(d_row):
        return "left of" if d_col > 0 else "right of"
    return "above" if d_row > 0 else "below"


def positions_per_side(size: str) -> int:
    """How many rows (and columns) an object of this size can start at."""
    return (SIZE - SIDES[size]) // GRID + 1


def apart(a: SceneObject, b: SceneObject) -> bool:
    """Whether there is at least one patch of background between two objects."""
    gap_row = max(a.row - b.row - SIDES[b.size], b.row - a.row - SIDES[a.size])
    gap_col = max(a.col - b.col - SIDES[b.size], b.col - a.col - SIDES[a.size])
    return max(gap_row, gap_col) >= GRID
