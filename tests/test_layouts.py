"""Scenes as tensors are the scenes of `scenes.sample`: the same rules and frequencies, the same tokens and words."""

import itertools
import math
from collections import Counter

import pytest
import torch

from vqlearn import scenes
from vqlearn.data import layouts
from vqlearn.networks.text import tokenize


@pytest.fixture(scope="module", params=scenes.SPLITS)
def drawn(request):
    return request.param, layouts.draw(request.param, 3000, generator=torch.Generator().manual_seed(1))


def test_every_drawn_scene_belongs_to_its_split(drawn):
    split, many = drawn
    for scene, caption in zip(many.scenes(), many.captions(), strict=True):
        claim = scenes.parse(caption)
        assert scenes.agreement(scene, claim).all
        assert len({(one.size, one.color, one.shape) for one in scene.objects}) == len(scene.objects)
        assert all(scenes.apart(a, b) for a, b in itertools.combinations(scene.objects, 2))
        rare = [(one.color, one.shape) in scenes.UNSEEN_PAIRS for one in scene.objects]
        if split == "unseen":
            assert any((one.color, one.shape) in scenes.UNSEEN_PAIRS for one in claim.objects)
        else:
            assert not any(rare)
            expected = split == "test" and len(scene.objects) > 1
            assert scenes.held_out(scene) == scenes.held_out(claim) == expected


def features(scene, caption):
    """What can be counted of a scene and its caption."""
    claim = scenes.parse(caption)
    yield "objects", len(scene.objects)
    yield "background", scene.background
    yield "background said", claim.background is not None
    yield "opening", caption.split(" of ")[0] if " of " in caption[:14] else ""
    for number, (one, mention) in enumerate(zip(scene.objects, claim.objects, strict=True)):
        yield f"kind of object {number} of {len(scene.objects)}", (one.size, one.color, one.shape)
        yield f"place of object {number} of {len(scene.objects)}", (one.size, one.row, one.col)
        yield f"said of object {number} of {len(scene.objects)}", (mention.size is None, mention.color is None)
    if len(scene.objects) > 1:
        yield "relation", scenes.relation_between(scene.objects[0], scene.objects[1])
        yield "relation said", bool(claim.relations)
        words = f" {caption} "
        yield "wording", tuple(f" {phrase} " in words for phrase in itertools.chain(*scenes.RELATIONS.values()))


def test_frequencies_are_those_of_sample(drawn):
    """Two counts of one distribution: each difference within 6 standard errors (one false alarm in 5 * 10^8)."""
    split, many = drawn
    ours, theirs = Counter(), Counter()
    for scene, caption in zip(many.scenes(), many.captions(), strict=True):
        ours.update(features(scene, caption))
    for index in range(3000):
        theirs.update(features(*scenes.sample(split, index)))
    assert len(ours | theirs) > 300
    for what in ours | theirs:
        assert abs(ours[what] - theirs[what]) <= 6 * math.sqrt(ours[what] + theirs[what] + 1), (what, ours, theirs)


def test_a_layout_is_the_tokens_words_and_claims_of_its_picture_and_caption(drawn, shipped):
    _, many = drawn
    some = layouts.Layouts(*(part[:300] for part in many))
    captions, table = some.captions(), layouts.code_table(shipped.encode)
    pictures = scenes.to_tensor([scenes.draw(scene) for scene in some.scenes()])
    assert torch.equal(layouts.pictures(some), pictures)
    assert torch.equal(layouts.tokens(some, table), shipped.encode(pictures))
    ids = layouts.token_ids(some, layouts.text_table(shipped.tokenizer))
    assert torch.equal(ids, tokenize(shipped.tokenizer, captions)[0])
    for ours, theirs in zip(some.claims(), layouts.claims_of([scenes.parse(c) for c in captions]), strict=True):
        assert torch.equal(ours, theirs)


def test_relations_are_those_of_the_scenes(drawn):
    _, many = drawn
    names = [None, *scenes.RELATIONS]
    for scene, index in zip(many.scenes()[:300], many.relations(), strict=False):
        for i, j in itertools.permutations(range(len(scene.objects)), 2):
            assert names[index[i, j]] == scenes.relation_between(scene.objects[i], scene.objects[j])


def test_the_same_generator_draws_the_same(seeded):
    first, second = (layouts.draw("test", 50, generator=seeded(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other = layouts.draw("test", 50, generator=seeded(4))
    assert not torch.equal(first.row, other.row)


def test_shares_of_scenes_by_their_objects_can_be_chosen(seeded):
    assert layouts.draw("train", 40, shares=(0, 1, 0), generator=seeded(0)).objects.unique().tolist() == [2]
    count = layouts.draw("train", 3000, generator=seeded(0)).objects
    for number, share in scenes.COUNTS.items():
        assert abs(int((count == number).sum()) - 3000 * share) < 6 * math.sqrt(3000 * share * (1 - share))


def test_none_at_all_can_be_drawn(seeded):
    assert [len(part) for part in layouts.draw("train", 0, generator=seeded(0))] == [0] * len(layouts.Layouts._fields)


def test_wrong_split_is_named():
    with pytest.raises(ValueError, match="split must be one of train, test, unseen, got 'valid'"):
        layouts.draw("valid", 1)


def test_a_tokenizer_that_splits_a_word_is_named():
    from vqlearn.networks.text import clip_tokenizer, word_merges

    tokenizer = clip_tokenizer(word_merges(scenes.VOCABULARY - {"purple"} | {","}), max_length=32)
    with pytest.raises(ValueError, match="one token for each word of the world, not for 'purple'"):
        layouts.text_table(tokenizer)
