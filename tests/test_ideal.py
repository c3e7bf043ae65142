"""The ideal denoiser against brute force: every scene that a caption allows, weighed by Bayes' rule."""

import itertools

import pytest
import torch

from vqlearn import MaskReplaceSchedule, ancestral, q_sample, scenes, strided_times
from vqlearn.ideal import ROW, code_table, ideal_denoiser
from vqlearn.sampling import prior_sample

CAPTIONS = [
    "a large red circle",
    "a small star on a white background",  # colour unsaid: a green star is one of the unseen pairs
    "a triangle",  # colour and size unsaid
    "a large red circle left of a small blue square on a gray background",
    "a small red circle under a small blue cross",
    "a large red circle and a large pink star on a black background",  # the relation unsaid
    "a large red circle left of a large blue square and above a large pink star on a black background",
    "a large red circle, a large blue square and a large pink star on a white background",
]


class Patches:
    """A codec without loss or network: every patch that the world knows is a code."""

    def __init__(self):
        self.codes = {}

    def encode(self, images):
        patches = images.unfold(2, scenes.GRID, scenes.GRID).unfold(3, scenes.GRID, scenes.GRID)
        flat = patches.permute(0, 2, 3, 1, 4, 5).flatten(1, 2).flatten(2)  # [B, L, pixels]
        rows = [[self.codes.setdefault(tuple(p.tolist()), len(self.codes)) for p in picture] for picture in flat]
        return torch.tensor(rows)

    def decode(self, tokens):
        book = torch.tensor(list(self.codes))[tokens].unflatten(-1, (3, scenes.GRID, scenes.GRID))
        return book.unflatten(1, (ROW, ROW)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


@pytest.fixture(scope="module")
def world():
    codec = Patches()
    table = code_table(codec.encode)
    return codec, table, MaskReplaceSchedule.paper(num_codes=len(codec.codes))


def allowed(caption):
    """Every scene that the caption may have been given for, and its weight."""
    claim = scenes.parse(caption)
    choices = [
        [
            scenes.Thing(size, color, said.shape, row, col)
            for size in scenes.SIDES
            if said.size in (None, size)
            for color in scenes.COLORS
            if said.color in (None, color) and (color, said.shape) not in scenes.UNSEEN_PAIRS
            for row, col in itertools.product(range(0, scenes.SIZE - scenes.SIDES[size] + 1, scenes.GRID), repeat=2)
        ]
        for said in claim.things
    ]
    for ground in scenes.BACKGROUNDS if claim.background is None else [claim.background]:
        for things in itertools.product(*choices):
            if not all(scenes.apart(a, b) for a, b in itertools.combinations(things, 2)):
                continue
            links = [scenes.relation_between(things[0], other) for other in things[1:]]
            if claim.relations:
                weight = float(links == [name for _, name, _ in claim.relations])
            else:
                weight = 1 - scenes.RELATION_SHARE if links and all(links) else 1.0
            if weight:
                yield scenes.Scene(ground, things), weight


def tokens_of(scene, table):
    """The scene's tokens, from the table."""
    grid = torch.full((ROW, ROW), int(table.ground[list(scenes.BACKGROUNDS).index(scene.background)]))
    for thing in scene.things:
        n = scenes.SIDES[thing.size] // scenes.GRID
        codes = table.things[list(scenes.SIDES).index(thing.size)][
            scenes.SHAPES.index(thing.shape), list(scenes.BACKGROUNDS).index(scene.background),
            list(scenes.COLORS).index(thing.color),
        ]  # fmt: skip
        row, col = thing.row // scenes.GRID, thing.col // scenes.GRID
        grid[row : row + n, col : col + n] = codes.view(n, n)
    return grid.flatten()


def test_the_table_is_what_the_codec_says(world):
    codec, table, _ = world
    for index in range(40):
        scene, _ = scenes.sample("train", index)
        assert torch.equal(codec.encode(scenes.to_tensor([scenes.draw(scene)]))[0], tokens_of(scene, table))


@pytest.mark.parametrize("caption", CAPTIONS)
def test_equals_brute_force(caption, world):
    _, table, schedule = world
    every = list(allowed(caption))
    x_0 = torch.stack([tokens_of(scene, table) for scene, _ in every])  # [N, L]
    prior = torch.tensor([weight for _, weight in every], dtype=torch.float64).log()
    generator = torch.Generator().manual_seed(0)
    for t in (100, 96, 80, 40):
        start = x_0[torch.multinomial(prior.exp(), 1, generator=generator)]
        x_t = q_sample(start, t, schedule, generator=generator)
        gain = torch.log1p(schedule.alpha_bar[t] / schedule.beta_bar[t])
        weight = (prior + gain * (x_0 == x_t).sum(-1)).softmax(0)  # q(x_t | x_0) without what is equal for all
        expected = torch.zeros(x_0.shape[1], schedule.num_codes, dtype=torch.float64)
        expected.scatter_add_(1, x_0.T, weight.expand(x_0.shape[1], -1))
        found = ideal_denoiser([caption], table, schedule)(x_t, t)[0].exp()
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_rows_of_a_batch_do_not_know_each_other(world):
    _, table, schedule = world
    x_0 = torch.stack([tokens_of(next(allowed(caption))[0], table) for caption in CAPTIONS])
    t = torch.tensor([100, 95, 90, 80, 70, 60, 40, 10])
    x_t = q_sample(x_0, t, schedule, generator=torch.Generator().manual_seed(0))
    together = ideal_denoiser(CAPTIONS, table, schedule)(x_t, t)
    assert not together.isnan().any()
    torch.testing.assert_close(together.logsumexp(-1), torch.zeros(len(t), 64, dtype=torch.float64), atol=1e-12, rtol=0)
    for row, caption in enumerate(CAPTIONS):
        alone = ideal_denoiser([caption], table, schedule)(x_t[row : row + 1], int(t[row]))
        torch.testing.assert_close(alone[0], together[row])


def right(world, steps, schedule, seeded):
    """How many of 24 held-out captions are drawn right by the ideal denoiser."""
    codec, table, _ = world
    captions = [scenes.sample("test", index)[1] for index in range(24)]
    generator = seeded(0)
    x_t = prior_sample(schedule, len(captions), ROW * ROW, generator=generator)
    denoise = ideal_denoiser(captions, table, schedule)
    tokens = ancestral(denoise, x_t, schedule, strided_times(100, steps), generator=generator)
    pictures = zip(codec.decode(tokens), captions, strict=True)
    return sum(scenes.agreement(image, caption).all for image, caption in pictures)


@pytest.mark.parametrize("steps", [10, 25])
def test_with_it_ten_steps_draw_every_picture_right(world, steps, seeded):
    """What a network falls short of: neither few steps nor replacement stand in the way of 100 %."""
    assert right(world, steps, world[2], seeded) == 24


def test_without_replacement_what_contradicts_itself_stays(world, seeded):
    """Two things begun in one step cannot both stay, but under masking alone nothing is ever taken back."""
    ramp = torch.linspace(0, 1, 101, dtype=torch.float64)
    mask_only = MaskReplaceSchedule(1 - ramp, ramp, num_codes=world[2].num_codes)
    assert right(world, 10, mask_only, seeded) <= 12


@pytest.mark.parametrize("t", [100, 90, 50, 10, 1])
def test_masking_alone_gives_beliefs_too(world, t):
    """Without replacement a visible token is a proof; what contradicts itself still gives numbers, and not NaN."""
    _, table, paper = world
    ramp = torch.linspace(0, 1, 101, dtype=torch.float64)
    schedule = MaskReplaceSchedule(1 - ramp, ramp, num_codes=paper.num_codes)
    captions = [scenes.sample("test", index)[1] for index in range(16)]
    generator = torch.Generator().manual_seed(t)
    possible = torch.stack([tokens_of(next(allowed(caption))[0], table) for caption in captions])
    for x_0 in (possible, torch.randint(paper.num_codes, (16, 64), generator=generator)):
        belief = ideal_denoiser(captions, table, schedule)(q_sample(x_0, t, schedule, generator=generator), t)
        torch.testing.assert_close(belief.logsumexp(-1), torch.zeros(16, 64, dtype=torch.float64), atol=1e-9, rtol=0)
