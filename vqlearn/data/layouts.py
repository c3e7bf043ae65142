"""Scenes as tensors: many at a time are drawn, captioned and looked up as tokens, on any device.

The distribution and the splits are those of `scenes.sample`, whose scenes and captions are Python objects, one at a
time. Here a batch of B scenes is a handful of integer tensors, and neither pictures nor strings are made: a patch-wise
codec gives every patch of the world one token (`CodeTable`), and every word of the vocabulary is one token of the text.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from vqlearn.data import scenes
from vqlearn.data.scenes import (
    BACKGROUNDS,
    COLORS,
    GRID,
    OPENINGS,
    RELATIONS,
    SAID,
    SHAPES,
    SIDES,
    SIZE,
    Scene,
    SceneObject,
)
from vqlearn.draws import uniform

ROW = SIZE // GRID  # tokens per row
MOST = max(scenes.COUNTS)  # objects in a scene
SPAN = tuple(side // GRID for side in SIDES.values())  # tokens per side of an object, by size
WORDS = (*sorted(scenes.VOCABULARY), ",")


class Claims(NamedTuple):
    """What captions say, int64, 0 for what is unsaid and else 1 more than the index in the world's lists."""

    objects: Tensor  # [B], how many are named
    size: Tensor  # [B, 3]
    color: Tensor  # [B, 3]
    shape: Tensor  # [B, 3], the index itself: a shape is always said; 0 beyond `objects`
    relation: Tensor  # [B, 3], of the first object to each one
    background: Tensor  # [B]

    def to(self, device: torch.device | str) -> Claims:
        return Claims(*(part.to(device) for part in self))


class Layouts(NamedTuple):
    """Scenes and the choices of their captions. Of the objects beyond `objects` the entries mean nothing."""

    objects: Tensor  # int64 [B], how many there are, 1 to 3
    background: Tensor  # int64 [B]
    size: Tensor  # int64 [B, 3]
    color: Tensor  # int64 [B, 3]
    shape: Tensor  # int64 [B, 3]
    row: Tensor  # int64 [B, 3], of the top-left token
    col: Tensor  # int64 [B, 3]
    says_size: Tensor  # bool [B, 3]
    says_color: Tensor  # bool [B, 3]
    says_relation: Tensor  # bool [B]
    says_background: Tensor  # bool [B]
    wording: Tensor  # int64 [B, 3], which of a relation's phrases
    opening: Tensor  # int64 [B]

    def claims(self) -> Claims:
        """What the captions say."""
        there = _there(self.objects)
        relation = self.relations()[:, 0] * (self.says_relation[:, None] & there)
        size, color = (self.size + 1) * (self.says_size & there), (self.color + 1) * (self.says_color & there)
        background = (self.background + 1) * self.says_background
        return Claims(self.objects, size, color, self.shape * there, relation, background)

    def relations(self) -> Tensor:
        """Of each object to each, int64 `[B, 3, 3]`: 0 for none, else 1 more than the index in `RELATIONS`."""
        parts = self.size, self.row, self.col
        return relation_index(*(part[:, :, None] for part in parts), *(part[:, None] for part in parts))

    def scenes(self) -> list[Scene]:
        """The scenes as `scenes.draw` takes them."""
        found = []
        for count, background, *columns in zip(*(part.tolist() for part in self[:7]), strict=True):
            objects = [
                SceneObject(tuple(SIDES)[size], tuple(COLORS)[color], SHAPES[shape], row * GRID, col * GRID)
                for size, color, shape, row, col in zip(*columns, strict=True)
            ]
            found.append(Scene(tuple(BACKGROUNDS)[background], tuple(objects[:count])))
        return found

    def captions(self) -> list[str]:
        """The captions as text."""
        rows = self.words().tolist()
        return [" ".join(WORDS[word] for word in row if word >= 0).replace(" ,", ",") for row in rows]

    def words(self) -> Tensor:
        """The captions as indices in `WORDS`, int64 `[B, S]`, -1 after the last word."""
        nothing = torch.full_like(self.objects, -1)
        slots = [*_table(OPENINGS, self.objects)[self.opening].unbind(1)]
        for i in range(MOST):
            noun = self._noun(i)
            slots += [torch.where(i < self.objects, word, nothing) for word in [*(self._link(i) if i else []), *noun]]
        background = _index(BACKGROUNDS, self.objects)[self.background]
        tail: list[Any] = [_word("on"), _word("a"), background, _word("background")]
        slots += [torch.where(self.says_background, word, nothing) for word in tail]
        words = torch.stack(slots, 1)
        return words.gather(1, (words < 0).long().argsort(dim=1, stable=True))

    def _noun(self, i: int) -> list[Tensor]:
        """Article, size, colour and shape of object `i`, each `[B]` or one for all, -1 where it is unsaid."""
        shape = _index(SHAPES, self.objects)[self.shape[:, i]]
        color = torch.where(self.says_color[:, i], _index(COLORS, self.objects)[self.color[:, i]], -1)
        size = torch.where(self.says_size[:, i], _index(SIDES, self.objects)[self.size[:, i]], -1)
        first = torch.where(size >= 0, size, torch.where(color >= 0, color, shape))
        vowel = torch.tensor([word[0] in "aeiou" for word in WORDS], device=first.device)[first]
        return [torch.where(vowel, _word("an"), _word("a")), size, color, shape]

    def _link(self, i: int) -> list[Tensor]:
        """What stands before object `i` > 0: ",", "and", or a phrase of its relation to the first."""
        last = self.objects == i + 1
        phrases = _table(tuple(itertools.chain(*RELATIONS.values())), self.objects)
        phrase = phrases[2 * (self.relations()[:, 0, i] - 1).clamp(min=0) + self.wording[:, i]]
        joint = torch.where(last, _word("and"), _word(","))
        said = self.says_relation
        return [
            torch.where(said, _word("and") if i > 1 else -1, joint),
            *torch.where(said[:, None], phrase, -1).unbind(1),
        ]


def relation_index(
    size_a: Tensor, row_a: Tensor, col_a: Tensor, size_b: Tensor, row_b: Tensor, col_b: Tensor
) -> Tensor:
    """`scenes.relation_between` in tensors: 0 for none, else 1 more than the index in `RELATIONS`."""
    span = torch.tensor(SPAN, device=size_a.device)
    d_row = 2 * (row_b - row_a) + span[size_b] - span[size_a]
    d_col = 2 * (col_b - col_a) + span[size_b] - span[size_a]
    across = torch.where(d_col > 0, 1, 2)
    down = torch.where(d_row > 0, 3, 4)
    return torch.where(d_col.abs() > d_row.abs(), across, torch.where(d_row.abs() > d_col.abs(), down, 0))


# ------------------------------------------------------------------------------------------ drawing at random


def draw(
    split: str,
    batch: int,
    *,
    shares: Sequence[float] = tuple(scenes.COUNTS.values()),
    generator: Generator | None = None,
    device: torch.device | str = "cpu",
) -> Layouts:
    """`batch` scenes with captions, independent draws from the distribution of `scenes.sample(split, index)`.

    `shares` are those of scenes with one, two and three objects. Draws on the generator's device, so equal generators
    give equal scenes everywhere. Raises ValueError for a split that there is not.
    """
    if split not in scenes.SPLITS:
        raise ValueError(f"split must be one of {', '.join(scenes.SPLITS)}, got {split!r}")
    bounds = torch.tensor(shares, dtype=torch.float64, device=device).cumsum(0)[:-1]
    count = 1 + (uniform((batch, 1), generator, device) >= bounds).sum(1)
    parts = [_accepted(split, n, int((count == n).sum()), generator, device) for n in scenes.COUNTS]
    order = torch.empty_like(count)
    order[count.argsort(stable=True)] = torch.arange(batch, device=count.device)
    return Layouts(*(torch.cat(both)[order] for both in zip(*parts, strict=True)))


def _accepted(split: str, count: int, wanted: int, generator: Generator | None, device: Any) -> Layouts:
    """`wanted` scenes of `count` objects: proposals, and of these, in their order, the ones that the world allows."""
    found: list[Layouts] = []
    have, tried = 0, 0
    while have < wanted or not found:
        share = max(have, 1) / max(tried, 8)
        some = _proposed(count, min(2**17, int(1.1 * (wanted - have) / share) + 16), generator, device)
        keep = _allowed(split, count, some).nonzero()[:, 0]
        found.append(Layouts(*(part[keep] for part in some)))
        tried, have = tried + len(some.objects), have + len(keep)
    return Layouts(*(torch.cat(parts)[:wanted] for parts in zip(*found, strict=True)))


def _proposed(count: int, number: int, generator: Generator | None, device: Any) -> Layouts:
    u = uniform((16 + 3, number, MOST), generator, device)  # one uniform number for each choice

    def pick(which: int, options: int | Tensor) -> Tensor:
        return (u[which] * options).long()

    size = pick(0, len(SIDES))
    sides = torch.tensor([scenes.positions_per_side(name) for name in SIDES], device=u.device)[size]
    says_relation = u[7, :, 0] < SAID["relation"]
    some = Layouts(
        torch.full((number,), count, device=u.device), pick(1, len(BACKGROUNDS))[:, 0], size, pick(2, len(COLORS)),
        pick(3, len(SHAPES)), pick(4, sides), pick(5, sides), u[6] < SAID["size"], u[8] < SAID["color"], says_relation,
        u[9, :, 0] < SAID["background"], pick(10, 2), pick(11, len(OPENINGS))[:, 0],
    )  # fmt: skip
    linked = (some.relations()[:, 0, 1:count] > 0).all(1)
    return some._replace(says_relation=says_relation & linked & (count > 1))


def _allowed(split: str, count: int, some: Layouts) -> Tensor:
    """Which proposals are scenes of the world, with captions of the split; bool `[B]`."""
    names = torch.tensor([[(c, s) in scenes.UNSEEN_PAIRS for s in SHAPES] for c in COLORS], device=some.size.device)
    rare = names[some.color, some.shape][:, :count]
    kind = mention_index(some.size + 1, some.color + 1, some.shape)
    said = mention_index((some.size + 1) * some.says_size, (some.color + 1) * some.says_color, some.shape)
    span = torch.tensor(SPAN, device=kind.device)[some.size]
    relations, held = some.relations(), held_out_pairs().to(kind.device)
    fine, scene_held, said_held = (
        torch.ones_like(some.says_relation),
        *torch.zeros(2, len(kind), device=kind.device).bool(),
    )
    for i, j in itertools.combinations(range(count), 2):
        gaps = [
            torch.maximum(at[:, i] - at[:, j] - span[:, j], at[:, j] - at[:, i] - span[:, i])
            for at in (some.row, some.col)
        ]
        fine &= (torch.maximum(*gaps) >= 1) & (kind[:, i] != kind[:, j])
        scene_held |= held[kind[:, i], relations[:, i, j], kind[:, j]]
        stated = relations[:, i, j] * some.says_relation * (i == 0)
        said_held |= held[said[:, i], stated, said[:, j]]
    if split == "unseen":
        return fine & rare.any(1) & (rare & some.says_color[:, :count]).any(1)
    if count > 1:
        fine &= (scene_held == (split == "test")) & (said_held == (split == "test"))
    return fine & ~rare.any(1)


def mention_index(size: Tensor, color: Tensor, shape: Tensor) -> Tensor:
    """The index of a mention in `held_out_pairs`, of a size and a colour as in `Claims` (0 where it is unsaid)."""
    return (size * (len(COLORS) + 1) + color) * len(SHAPES) + shape


@functools.cache
def held_out_pairs() -> Tensor:
    """`scenes.held_out_pair` for any two mentions and a relation, bool `[mentions, 1 + relations, mentions]`."""
    mentions = [scenes.Mention(*m) for m in itertools.product([None, *SIDES], [None, *COLORS], SHAPES)]
    links = [None, *RELATIONS]
    held = [[[scenes.held_out_pair(a, link, b) for b in mentions] for link in links] for a in mentions]
    return torch.tensor(held)


def _there(count: Tensor) -> Tensor:
    """Which of the three objects there are, bool `[B, 3]`."""
    return torch.arange(MOST, device=count.device) < count[:, None]


# ------------------------------------------------------------------------------------------ tokens of pictures


class CodeTable(NamedTuple):
    """The token of every patch of the world under a patch-wise codec."""

    backgrounds: Tensor  # int64 [backgrounds]
    objects: Tensor  # int64 [sizes, shapes, backgrounds, colors, 9], of a small object the first 4

    @property
    def ground(self) -> Tensor:
        """The tokens of the backgrounds, by the name that the notebooks use."""
        return self.backgrounds

    def to(self, device: torch.device | str) -> CodeTable:
        return CodeTable(self.backgrounds.to(device), self.objects.to(device))


def _alone(size: str, shape: str, background: str, color: str) -> Scene:
    """One object in the second row and column of patches."""
    return Scene(background, (SceneObject(size, color, shape, GRID, GRID),))


def code_table(encode: Callable[[Tensor], Tensor]) -> CodeTable:
    """Ask a codec, `encode(images) -> tokens`, for the token of every patch of the world."""
    tables = torch.zeros(len(SIDES), len(SHAPES), len(BACKGROUNDS), len(COLORS), max(SPAN) ** 2, dtype=torch.int64)
    for table, size, n in zip(tables, SIDES, SPAN, strict=True):
        kinds = list(itertools.product(SHAPES, BACKGROUNDS, COLORS))
        drawn = [scenes.draw(_alone(size, *kind)) for kind in kinds]
        grid = encode(scenes.to_tensor(drawn)).cpu().unflatten(1, (ROW, ROW))[:, 1 : 1 + n, 1 : 1 + n]
        table[..., : n * n] = grid.reshape(*table.shape[:3], n * n)
    empty = [scenes.draw(Scene(background, ())) for background in BACKGROUNDS]
    return CodeTable(encode(scenes.to_tensor(empty)).cpu()[:, 0], tables)


@functools.cache
def patches() -> tuple[Tensor, CodeTable]:
    """Every patch of the world, float `[patches, 3, 4, 4]` in [-1, 1], and where each is, as a codec's table."""
    known: dict[tuple[float, ...], int] = {}

    def encode(images: Tensor) -> Tensor:
        parts = images.unfold(2, GRID, GRID).unfold(3, GRID, GRID).permute(0, 2, 3, 1, 4, 5)  # [B, 8, 8, 3, 4, 4]
        rows = [known.setdefault(tuple(patch), len(known)) for patch in parts.flatten(3).flatten(0, 2).tolist()]
        return torch.tensor(rows).view(len(images), -1)

    table = code_table(encode)
    return torch.tensor(list(known)).view(-1, 3, GRID, GRID), table


def pictures(layouts: Layouts) -> Tensor:
    """The scenes drawn, float `[B, 3, 32, 32]` in [-1, 1]: what `scenes.to_tensor` makes of `scenes.draw`."""
    book, table = patches()
    grid: Tensor = book.to(layouts.objects.device)[tokens(layouts, table)]  # [B, L, 3, 4, 4]
    grid = grid.unflatten(1, (ROW, ROW))
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, SIZE, SIZE)


def tokens(layouts: Layouts, table: CodeTable) -> Tensor:
    """The tokens of scenes, int64 `[B, L]`, looked up: what the codec makes of their pictures."""
    device = layouts.objects.device
    table = table.to(device)
    out = table.backgrounds[layouts.background][:, None].repeat(1, ROW * ROW + 1)  # the last one is thrown away
    for size, n in enumerate(SPAN):
        code = table.objects[size, layouts.shape, layouts.background[:, None], layouts.color, : n * n]  # [B, 3, n n]
        inside = torch.arange(n, device=device)
        rows, cols = layouts.row[..., None, None] + inside[:, None], layouts.col[..., None, None] + inside
        here = (layouts.size == size) & _there(layouts.objects)
        cell = torch.where(here[..., None], (rows * ROW + cols).flatten(-2), ROW * ROW)
        out.scatter_(1, cell.flatten(1), code.flatten(1))
    return out[:, :-1]


# ------------------------------------------------------------------------------------------ words


class TextTable(NamedTuple):
    """What a CLIP tokenizer that knows every word of the world does with its captions."""

    words: Tensor  # int64 [words], the id of each of WORDS
    start: int
    end: int
    padding: int
    length: int


def text_table(tokenizer: Any) -> TextTable:
    """Raises ValueError for a tokenizer that splits a word of the world."""
    ids = tokenizer(list(WORDS))["input_ids"]
    if longer := [word for word, row in zip(WORDS, ids, strict=True) if len(row) != 3]:
        raise ValueError(f"the tokenizer must have one token for each word of the world, not for {longer[0]!r}")
    ends = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    return TextTable(torch.tensor([row[1] for row in ids]), *ends, tokenizer.model_max_length)


def token_ids(layouts: Layouts, table: TextTable) -> Tensor:
    """The captions as token ids, int64 `[B, S]`, as `conditioning.tokenize` gives them for `layouts.captions()`."""
    words = layouts.words()
    known = torch.where(words < 0, table.padding, table.words.to(words.device)[words])
    ids = torch.full((len(words), table.length + words.shape[1]), table.padding, device=words.device)
    ids[:, 0], ids[:, 1 : words.shape[1] + 1] = table.start, known
    last = 1 + (words >= 0).sum(1, keepdim=True).clamp(max=table.length - 2)
    return ids.scatter_(1, last, table.end)[:, : table.length]


def claims_of(captions: list[scenes.Claim]) -> Claims:
    """What parsed captions say, as tensors."""
    rows = []
    for claim in captions:
        mentions: list[scenes.Mention | None] = [*claim.objects, *[None] * (MOST - len(claim.objects))]
        links = {j: name for _, name, j in claim.relations}
        rows.append(
            (
                len(claim.objects),
                [1 + list(SIDES).index(m.size) if m and m.size else 0 for m in mentions],
                [1 + list(COLORS).index(m.color) if m and m.color else 0 for m in mentions],
                [SHAPES.index(m.shape) if m else 0 for m in mentions],
                [1 + list(RELATIONS).index(links[j]) if j in links else 0 for j in range(MOST)],
                1 + list(BACKGROUNDS).index(claim.background) if claim.background else 0,
            )
        )
    return Claims(*(torch.tensor(part) for part in zip(*rows, strict=True)))


def _word(word: str) -> int:
    return WORDS.index(word)


def _index(words: Iterable[str], like: Tensor) -> Tensor:
    """Words as indices in `WORDS`, on the device of `like`."""
    return torch.tensor([WORDS.index(word) for word in words], device=like.device)


def _table(phrases: tuple[str, ...], like: Tensor) -> Tensor:
    """Phrases as indices in `WORDS`, `[phrases, longest]`, -1 after the last word."""
    split = [phrase.split() for phrase in phrases]
    longest = max(map(len, split))
    rows = [[WORDS.index(word) for word in words] + [-1] * (longest - len(words)) for words in split]
    return torch.tensor(rows, device=like.device)
