"""The ideal denoiser against brute force, and against how often the world draws what.

Brute force weighs every scene that a caption allows by Bayes' rule. What each scene's prior weight is, frequencies of
`scenes.sample` decide: it knows nothing of the code that is tested.
"""

import functools
import itertools
import math

import pytest
import torch

from vqlearn import MaskReplaceSchedule, ancestral, q_sample, scenes, strided_times
from vqlearn.data import layouts
from vqlearn.exactness.ideal import ROW, code_table, ideal_denoiser
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
    "a red circle left of a blue square",  # sizes unsaid: some of the four pairs are held out
    "a circle above a small blue star on a gray background",  # a colour unsaid
    "a large star and a large star on a black background",  # of two colours, for no two objects are of one kind
    "a red cross and a large red cross on a white background",
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
            scenes.SceneObject(size, color, said.shape, row, col)
            for size in scenes.SIDES
            if said.size in (None, size)
            for color in scenes.COLORS
            if said.color in (None, color) and (color, said.shape) not in scenes.UNSEEN_PAIRS
            for row, col in itertools.product(range(0, scenes.SIZE - scenes.SIDES[size] + 1, scenes.GRID), repeat=2)
        ]
        for said in claim.objects
    ]
    for background in scenes.BACKGROUNDS if claim.background is None else [claim.background]:
        for objects in itertools.product(*choices):
            kinds = {(one.size, one.color, one.shape) for one in objects}
            if len(kinds) < len(objects) or not all(scenes.apart(a, b) for a, b in itertools.combinations(objects, 2)):
                continue
            scene = scenes.Scene(background, objects)
            links = [scenes.relation_between(objects[0], other) for other in objects[1:]]
            if claim.relations:
                weight = float(links == [name for _, name, _ in claim.relations])
            else:
                weight = 1 - scenes.SAID["relation"] if links and all(links) else 1.0
            weight /= math.prod(scenes.positions_per_side(one.size) ** 2 for one in objects)  # sizes are equally likely
            if weight:
                yield scene, weight


def tokens_of(scene, table):
    """The scene's tokens, from the table."""
    grid = torch.full((ROW, ROW), int(table.backgrounds[list(scenes.BACKGROUNDS).index(scene.background)]))
    for one in scene.objects:
        n = scenes.SIDES[one.size] // scenes.GRID
        codes = table.objects[
            list(scenes.SIDES).index(one.size), scenes.SHAPES.index(one.shape),
            list(scenes.BACKGROUNDS).index(scene.background), list(scenes.COLORS).index(one.color), : n * n
        ]  # fmt: skip
        row, col = one.row // scenes.GRID, one.col // scenes.GRID
        grid[row : row + n, col : col + n] = codes.view(n, n)
    return grid.flatten()


def test_the_table_is_what_the_codec_says(world):
    codec, table, _ = world
    for index in range(40):
        scene, _ = scenes.sample("train", index)
        assert torch.equal(codec.encode(scenes.to_tensor([scenes.draw(scene)]))[0], tokens_of(scene, table))


@pytest.fixture(scope="module")
def every(world):
    """All scenes of a caption: their tokens, the logarithm of their weight, and which of them are of each split."""

    @functools.cache
    def found(caption):
        pairs = list(allowed(caption))
        x_0 = torch.stack([tokens_of(scene, world[1]) for scene, _ in pairs])  # [N, L]
        prior = torch.tensor([weight for _, weight in pairs], dtype=torch.float64).log()
        single = torch.tensor([len(scene.objects) == 1 for scene, _ in pairs])  # in both splits
        held = torch.tensor([len(scene.objects) > 1 and scenes.held_out(scene) for scene, _ in pairs])
        return x_0, prior, {None: torch.ones_like(held), "train": single | ~held, "test": single | held}

    return found


@pytest.mark.parametrize("split", [None, "train", "test"])
@pytest.mark.parametrize("caption", CAPTIONS)
def test_equals_brute_force(caption, split, world, every):
    _, table, schedule = world
    x_0, prior, chosen = every(caption)
    x_0, prior = x_0[chosen[split]], prior[chosen[split]]
    if not len(x_0):
        whose = "the world" if split is None else repr(split)
        with pytest.raises(ValueError, match=f"caption 0 is one that no scene of {whose} fulfils"):
            ideal_denoiser([caption], table, schedule, split=split)(torch.full((1, 64), schedule.mask_id), 100)
        return
    generator = torch.Generator().manual_seed(0)
    for t in (100, 96, 80, 40):
        start = x_0[torch.multinomial(prior.exp(), 1, generator=generator)]
        x_t = q_sample(start, t, schedule, generator=generator)
        gain = torch.log1p(schedule.alpha_bar[t] / schedule.beta_bar[t])
        weight = (prior + gain * (x_0 == x_t).sum(-1)).softmax(0)  # q(x_t | x_0) without what is equal for all
        expected = torch.zeros(x_0.shape[1], schedule.num_codes, dtype=torch.float64)
        expected.scatter_add_(1, x_0.T, weight.expand(x_0.shape[1], -1))
        found = ideal_denoiser([caption], table, schedule, split=split)(x_t, t)[0].exp()
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("split", ["train", "test"])
def test_equals_how_often_the_world_draws_what(world, split):
    """At t = T with nothing visible the prediction is p(x_0 | caption): the mean of x_0 over scenes of that caption.

    Captions of one object by what they leave unsaid, of two and three by their relation; the sum over all positions of
    the tokens of a kind (a size's, a colour's, a background's) has mean zero when the prediction is subtracted, and
    6 standard errors bound it: one false alarm in 10^8 for each.
    """
    _, table, schedule = world
    drawn = [scenes.sample(split, index) for index in range(700)]
    x_0 = torch.stack([tokens_of(scene, table) for scene, _ in drawn])
    masks = torch.full_like(x_0, schedule.mask_id)
    denoise = [
        ideal_denoiser([caption for _, caption in drawn[begin : begin + 50]], table, schedule, split=split)
        for begin in range(0, len(drawn), 50)
    ]
    claims = [scenes.parse(caption) for _, caption in drawn]
    small = torch.zeros(schedule.num_codes, dtype=torch.float64)
    small[table.objects[0, ..., :4].unique()] = 1.0
    kinds = {
        "small": small,
        "white": (torch.arange(schedule.num_codes) == table.backgrounds[0]).double(),
        "red": torch.zeros(schedule.num_codes, dtype=torch.float64).index_fill(
            0, table.objects[:, :, :, 0].unique(), 1.0
        ),
    }
    each = torch.stack(list(kinds.values()), 1)  # [K, kinds]
    rows = torch.cat([one(x_t, 100).exp() @ each for one, x_t in zip(denoise, masks.split(50), strict=True)])
    groups = {(len(claim.objects), bool(claim.relations), all(one.size for one in claim.objects)) for claim in claims}
    for group in groups:
        chosen = [
            row for row, claim in enumerate(claims)
            if (len(claim.objects), bool(claim.relations), all(one.size for one in claim.objects)) == group
        ]  # fmt: skip
        if len(chosen) < 20:  # too few for a standard error
            continue
        for number, (name, kind) in enumerate(kinds.items()):
            for half in (slice(0, 32), slice(32, 64), slice(0, 64)):
                gap = (kind[x_0[chosen, half]] - rows[chosen, half, number]).sum(-1)
                error = float(gap.std() / math.sqrt(len(gap))) + 1e-9
                assert abs(float(gap.mean())) < 6 * error, (group, name, half)


def test_both_sizes_are_equally_likely(world):
    """Although a small object has more places than a large one: the world draws the size first.

    `layouts.draw` draws from the distribution of `scenes.sample` (test_layouts.py), and faster.
    """
    _, table, schedule = world
    drawn = layouts.draw("train", 60000, shares=(1.0, 0.0, 0.0), generator=torch.Generator().manual_seed(0))
    unsaid = drawn.size[:, 0][~drawn.says_size[:, 0]]
    number = len(unsaid)
    assert number > 8000 and abs(int((unsaid == 0).sum()) - number / 2) < 2.5 * math.sqrt(number)  # 5 standard errors
    found = ideal_denoiser(["a red square"], table, schedule)(torch.full((1, 64), schedule.mask_id), 100)[0].exp()
    bare = float(found[:, table.backgrounds].sum())  # of 64 positions those without an object, of 4 or of 9 tokens
    assert 64 - bare == pytest.approx((4 + 9) / 2, abs=1e-9)


def test_rows_of_a_batch_do_not_know_each_other(world):
    _, table, schedule = world
    x_0 = torch.stack([tokens_of(next(allowed(caption))[0], table) for caption in CAPTIONS])
    t = torch.tensor([100, 95, 90, 80, 70, 60, 40, 10, 100, 90, 50, 1])
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
    """Two objects begun in one step cannot both stay, but under masking alone nothing is ever taken back."""
    ramp = torch.linspace(0, 1, 101, dtype=torch.float64)
    mask_only = MaskReplaceSchedule(1 - ramp, ramp, num_codes=world[2].num_codes)
    assert right(world, 10, mask_only, seeded) <= 12


@pytest.mark.parametrize("t", [100, 90, 50, 10, 1])
def test_masking_alone_gives_predictions_too(world, t):
    """Without replacement a visible token is a proof; what contradicts itself still gives numbers, and not NaN."""
    _, table, paper = world
    ramp = torch.linspace(0, 1, 101, dtype=torch.float64)
    schedule = MaskReplaceSchedule(1 - ramp, ramp, num_codes=paper.num_codes)
    captions = [scenes.sample("test", index)[1] for index in range(16)]
    generator = torch.Generator().manual_seed(t)
    possible = torch.stack([tokens_of(next(allowed(caption))[0], table) for caption in captions])
    for x_0 in (possible, torch.randint(paper.num_codes, (16, 64), generator=generator)):
        log_p = ideal_denoiser(captions, table, schedule)(q_sample(x_0, t, schedule, generator=generator), t)
        torch.testing.assert_close(log_p.logsumexp(-1), torch.zeros(16, 64, dtype=torch.float64), atol=1e-9, rtol=0)
