"""The emoji: drawn, captioned, split and read back."""

import itertools
from collections import Counter
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from vqlearn import assets
from vqlearn.__main__ import main
from vqlearn.data import emoji, scenes
from vqlearn.data.emoji import Arrangement, Placed, agreement, by_name, read, sample
from vqlearn.evaluation import emoji as evaluation
from vqlearn.evaluation.verdict import verdict
from vqlearn.networks.text import clip_tokenizer, learned_merges, tokenize, word_merges
from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.training import emoji as training
from vqlearn.training import shipped

PEAR = by_name()["pear"]


def on(background, *names, side=32):
    cells = [(0, 0), (0, 1)]
    placed = tuple(Placed(by_name()[name], *cell) for name, cell in zip(names, cells, strict=False))
    return Arrangement(background, placed, side)


def test_a_picture_is_the_sprite_over_its_background():
    background = Image.new("RGBA", (32, 32), emoji.BACKGROUNDS["pink"])
    background.alpha_composite(Image.fromarray(emoji.sprites()[PEAR.number]), (2, 2))
    picture = emoji.draw(on("pink", "pear"))
    assert picture.dtype == np.uint8 and picture.shape == (32, 32, 3)
    assert np.abs(picture.astype(int) - np.asarray(background.convert("RGB"))).max() <= 1


def test_the_sheet_is_small_and_whole_and_keeps_its_notices():
    assert (assets.FOLDER / "emoji.webp").stat().st_size < 3e6
    assert len(emoji.catalogue()) == len(by_name()) == len(emoji.sprites()) == 1911
    assert (emoji.sprites()[..., 3] > 0).any((1, 2)).all()  # none is empty
    assert sum(one.category in emoji.EVERYDAY for one in emoji.catalogue()) == 857
    notice = " ".join((assets.FOLDER / "README.md").read_text(encoding="utf-8").replace("\n> ", " ").split())
    for part in ("Noto Emoji (Apache-2.0", "Copyright (c) 2013 Cal Henderson", "Copyright (c) 2014 Mu-An Chiou",
                 "The above copyright notice and this permission notice shall be included in all copies"):  # fmt: skip
        assert part in notice


def test_what_looks_alike_is_known_and_nothing_else_is_nearly_equal():
    sprites = emoji.sprites().astype(np.float32) / 255
    colours, cover = sprites[..., :3], sprites[..., 3:]
    seen = np.concatenate([(colours * cover + (1 - cover) * behind).reshape(1911, -1) for behind in (0, 1)], axis=1)
    first = np.array([one.looks_like for one in emoji.catalogue()])
    assert (first[first] == first).all() and (first != np.arange(1911)).sum() == 18
    some = np.flatnonzero([one.category == "Flags" for one in emoji.catalogue()])
    for number in some[::30]:  # flags are the likest
        distance = np.sqrt(((seen[some] - seen[number]) ** 2).mean(1))
        assert ((distance < 0.03) == (first[some] == first[number])).all(), by_name()[emoji.catalogue()[number].name]
    assert by_name()["norway flag"].looks_like == by_name()["svalbard & jan mayen flag"].looks_like


def test_samples_are_those_of_every_machine():
    assert [sample("train", index)[1] for index in (0, 1, 4)] == [
        "a link symbol", "female, bad", "stopwatch on a pink background",
    ]  # fmt: skip
    assert sample("test", 0)[1] == "a picture of a fingerprint on a yellow background"
    picture, _ = sample("train", 4)
    assert (picture == emoji.draw(on("pink", "stopwatch"))).all()
    assert sample("train", 1, side=64)[0].shape == (64, 64, 3)


def test_no_emoji_and_no_combination_is_in_two_splits():
    shown = {split: set() for split in emoji.SPLITS}
    for split in emoji.SPLITS:
        for index in range(300):
            arrangement, _ = emoji.arranged(split, index, side=(32, 64)[index % 2])
            shown[split] |= {(one.emoji.looks_like, arrangement.background) for one in arrangement.emoji}
    assert not shown["train"] & shown["test"]
    unseen = {number for number, _ in shown["unseen"]}
    assert unseen and not unseen & {number for split in ("train", "test") for number, _ in shown[split]}
    for one in emoji.pool("train"):  # a held-out combination is one of parts that training has shown
        assert not all(emoji.held_out(one, background) for background in emoji.BACKGROUNDS)
    pairs = itertools.product(emoji.pool("train"), emoji.BACKGROUNDS)
    test_share = np.mean([emoji.held_out(*pair) for pair in pairs])
    assert test_share == pytest.approx(1 / 8, abs=0.01)


def test_captions_are_true_of_their_pictures():
    forms = set()
    for split, side in (("train", 32), ("test", 32), ("unseen", 32), ("train", 64), ("test", 64)):
        for index in range(300):
            arrangement, caption = emoji.arranged(split, index, side=side)
            assert agreement(arrangement, caption).all, caption
            claim = emoji.parse(caption)
            forms.add((len(claim.emoji), len(claim.emoji[0]) > 1, claim.relation, claim.background is None))
            assert split == "train" or claim.background == arrangement.background
    assert {(1, True, None, True), (1, False, None, False), (2, False, None, True)} <= forms
    assert {relation for _, _, relation, _ in forms} == {None, "left of", "right of", "above", "below"}


FORMS = ("pear", "A pear.", "a picture of a pear", "an emoji of pear on a pink background", "pear, pink background",
         "fruit, plant", "plant, fruit, pink background")  # fmt: skip


@pytest.mark.parametrize("caption", FORMS)
def test_a_caption_in_any_form_means_the_pear(caption):
    assert set(PEAR.keywords) >= {"fruit", "plant"}
    assert agreement(on("pink", "pear"), caption).all
    assert not agreement(on("pink", "giraffe face"), caption).emoji


def test_agreement_says_what_is_wrong():
    two = on("blue", "pear", "tulip", side=64)
    assert agreement(two, "a pear left of a tulip on a blue background").all
    assert agreement(two, "a tulip right of a pear").all and agreement(two, "tulip and pear").all
    assert vars(agreement(two, "a pear right of a tulip")) == {"emoji": True, "relation": False, "background": True}
    assert not agreement(two, "a pear").emoji  # and no others
    assert vars(agreement(two, "a pear and a banana on a pink background")) == {
        "emoji": False, "relation": True, "background": False,
    }  # fmt: skip
    with pytest.raises(ValueError, match="no emoji agrees with 'a quux on a pink background'"):
        emoji.parse("a quux on a pink background")


@pytest.mark.parametrize("side", [32, 64])
def test_drawings_are_read_back_and_shuffled_captions_are_not(side):
    pictures, captions = zip(*(sample("test", index, side=side) for index in range(640 // side)), strict=True)
    found = [read(picture) for picture in pictures]
    assert all(agreement(one, caption).all for one, caption in zip(found, captions, strict=True))
    others = [agreement(one, caption) for one, caption in zip(found, captions[1:] + captions[:1], strict=True)]
    assert sum(one.emoji for one in others) <= 1
    assert sum(one.background for one in others) < len(others) / 2  # one in seven by chance


def test_what_looks_alike_is_read_as_the_first_of_its_kind():
    assert by_name()["france flag"].looks_like != by_name()["france flag"].number
    for name in ("france flag", "clipperton island flag", "st. martin flag"):
        found = read(emoji.draw(on("green", name)))
        assert found.emoji[0].emoji.number == by_name()["france flag"].looks_like
        assert agreement(found, f"a {name} on a green background").all


def test_reading_bears_noise_a_shift_and_every_kind_of_picture():
    picture = emoji.draw(on("yellow", "giraffe face"))
    noisy = picture + np.random.default_rng(0).normal(0, 20, picture.shape)
    shifted = np.full_like(picture, emoji.BACKGROUNDS["yellow"])
    shifted[1:, :-1] = picture[:-1, 1:]
    tensor = scenes.to_tensor([picture])[0]
    for one in (noisy.clip(0, 255).astype(np.uint8), shifted, Image.fromarray(picture), tensor, 1.02 * tensor):
        assert read(one) == on("yellow", "giraffe face")
    assert read(picture).emoji[0].error < 0.005 < 0.04 < read(noisy.clip(0, 255).astype(np.uint8)).emoji[0].error
    assert read(np.full((32, 32, 3), emoji.BACKGROUNDS["blue"], np.uint8)) == Arrangement("blue", ())


def test_what_is_out_of_range_is_named():
    with pytest.raises(ValueError, match="split must be one of train, test, unseen, got 'dev'"):
        sample("dev", 0)
    with pytest.raises(ValueError, match="index must be a whole number of at least 0, got -1"):
        sample("train", -1)
    for side in (48, 32.0, "64"):
        with pytest.raises(ValueError, match=f"side must be 32 or 64, got {side!r}"):
            sample("train", 0, side=side)
    for categories in (["Fruit"], "Flags", ["Flags", 5], [["Flags"]], [], 5):
        with pytest.raises(ValueError, match=r"categories must be some of Activities, .*, got .*"):
            sample("train", 0, categories=categories)
    with pytest.raises(ValueError, match="no emoji of the categories Component is in 'unseen'; choose more of them"):
        sample("unseen", 0, categories=["Component"])
    for wrong in (np.zeros((48, 48, 3), np.uint8), np.zeros((32, 64, 3), np.uint8), "pear", np.zeros(32)):
        with pytest.raises(ValueError, match=r"picture must be"):
            read(wrong)
    with pytest.raises(TypeError, match="caption must be a string, got 5"):
        agreement(np.zeros((32, 32, 3), np.uint8), 5)
    with pytest.raises(ValueError, match="image"):
        read(torch.full((3, 32, 32), torch.nan))


# ------------------------------------------------------------------------------------------ text


def bytes_of(tokenizer, ids):
    """Token ids as text, by GPT-2's table of bytes and without the tokenizer's own decoder."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    pieces = "".join(tokenizer.convert_ids_to_tokens(ids)).split("</w>")
    return [bytes(table[letter] for letter in piece).decode() for piece in pieces if piece]


@pytest.mark.parametrize("word", ["naïve", "’", "Straße", "梨", "🍐", "pear"])
def test_any_word_can_be_one_token(word):
    tokenizer = clip_tokenizer(word_merges([word, "red"]), max_length=16)
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    assert len(ids) == 1 and bytes_of(tokenizer, ids) == [word.lower()]


def test_merges_are_learned_from_texts_and_everything_else_is_spelled():
    captions = [emoji.arranged("train", index)[1] for index in range(300)]
    merges = learned_merges(captions, 100)
    assert merges == learned_merges(iter(captions), 100) and len(merges) == 100
    tokenizer = clip_tokenizer(merges, max_length=77)
    assert len(tokenizer) == 512 + 100 + 2
    assert len(tokenizer("background", add_special_tokens=False)["input_ids"]) == 1
    for text in ("naïve ’", "🍐🍐", "日本 の 梨", "antidisestablishmentarianism", "zażółć"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert bytes_of(tokenizer, ids) == text.split() and tokenizer.unk_token_id not in ids


def test_the_first_merge_is_the_most_frequent_pair():
    words = " ".join(["pear", "bear", "rear", "red", "bed", "rod"]).split()
    counts = Counter(pair for word in words for pair in itertools.pairwise([*word[:-1], word[-1] + "</w>"]))
    assert counts.most_common(1)[0][1] == counts[learned_merges(words, 1)[0]]
    with pytest.raises(ValueError, match="count must be a whole number of at least 1, got 0"):
        learned_merges(words, 0)


# ------------------------------------------------------------------------------------------ learning


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The pipeline that `vqlearn train --data emoji` makes in one update of each stage, of five emoji."""
    out = tmp_path_factory.mktemp("emoji")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "CATEGORIES", ["Component"])
        patch.setattr(training, "training_captions", lambda: ["emoji modifier on a pink background"])
        patch.setattr(training, "CODEC", replace(training.CODEC, batch=2))
        patch.setattr(training.EmojiRecipe, "__init__", partialmethod(training.EmojiRecipe.__init__, batch=2))
        patch.setattr(evaluation, "evaluate", lambda pipe, **_: evaluation.Report(200, 0.0, 0.1, 0.0))
        patch.setattr("vqlearn.course.plots.loss_curve", lambda _: SimpleNamespace(savefig=lambda *_, **__: None))
        assert main(["train", "--data", "emoji", "--codec-steps", "1", "--steps", "1", "--out", str(out)]) == 0
    return VQDiffusionPipeline.from_pretrained(out / "model")


def test_the_model_is_small_enough_to_ship_and_draws(small):
    size = sum(file.stat().st_size for file in Path(small.name_or_path).rglob("*") if file.is_file())
    assert 5e6 < size + 2000 * 500 < 15e6  # with the merges that it learned none of here, some 500 bytes each
    drawn = small(["an emoji"], num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images
    assert drawn[0].size == (32, 32)


def test_a_model_learns_on_with_its_codec(small, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CATEGORIES", ["Component"])
    recipe = replace(training.recipes("cpu", from_nothing=False)[1], steps=1, batch=2)
    assert (recipe.learning_rate, recipe.seed) == (training.EmojiRecipe().learning_rate / 2, 1)
    start = VQDiffusionPipeline.from_pretrained(small.name_or_path)
    learned = training.train(tmp_path, denoiser=recipe, start_from=start, progress=False)
    for part, same in (("vqvae", True), ("transformer", False)):
        one, other = (getattr(pipe, part).state_dict() for pipe in (small, learned))
        assert all(torch.equal(one[name], other[name]) for name in one) == same, part
    assert not (tmp_path / "codec").exists()


@pytest.mark.parametrize("option", [["--objective", "bound"], ["--autoregressive"], ["--size", "32"]])
def test_options_of_the_scenes_are_refused(option, tmp_path, capsys):
    assert main(["train", "--data", "emoji", "--out", str(tmp_path / "run"), *option]) == 2
    assert f"{option[0]} means nothing with --data emoji, leave it out" in capsys.readouterr().err


def test_a_model_that_cannot_learn_emoji_is_refused_before_the_work():
    pipe = SimpleNamespace(transformer=SimpleNamespace(reads="class", num_positions=64), vqvae=None)
    with pytest.raises(ValueError, match="the world of emoji takes a model that reads text and draws 32 x 32 pixels"):
        training.emoji_stage(pipe)


def test_data_that_there_is_not_is_refused(tmp_path, capsys):
    assert main(["train", "--data", "cats", "--out", str(tmp_path / "run")]) == 2
    assert "there is no folder 'cats'; make it and put pictures into it" in capsys.readouterr().err


def test_a_verdict_says_what_is_wrong():
    image = Image.fromarray(emoji.draw(on("pink", "pear")))
    assert verdict(image, "a pear on a pink background", "emoji") == "pear on a pink background (as asked)"
    assert verdict(image, "a pear on a blue background", "emoji").endswith("(not as asked: background)")
    assert verdict(image, "a quux", "emoji").endswith(
        "(the sentence is not one of those of emoji, so it was not checked)"
    )
    assert verdict(image.resize((48, 48)), "a pear", "emoji") == ""


def test_what_the_codec_learns_from_are_pictures_of_the_training_split():
    source = training.EmojiPictures()
    images = source.rows(3, 20, torch.Generator().manual_seed(3)).x
    assert images.shape == (20, 3, 32, 32)
    for image in images:
        found = read(image)
        shown = found.emoji[0].emoji
        assert (scenes.to_tensor([emoji.draw(found)])[0] == image).all()
        assert not emoji.held_out(shown, found.background) and not emoji.is_unseen(shown)
    assert (images == source.rows(3, 20, torch.Generator().manual_seed(3)).x).all()


def test_what_the_denoiser_learns_from_are_tokens_with_a_caption_that_is_true_of_them(small, monkeypatch):
    said = []
    monkeypatch.setattr(training, "tokenize", lambda tokenizer, texts: said.extend(texts) or tokenize(tokenizer, texts))
    source = training.EmojiTokens(small, ["Component"])
    rows = source.rows(0, 40, torch.Generator().manual_seed(0))
    known = training.combinations("train", ["Component"])
    tokens = small.encode(scenes.to_tensor(emoji.draw(one) for one in known))
    for x, caption in zip(rows.x, said, strict=True):
        assert any(agreement(known[i], caption).all for i in (tokens == x).all(1).nonzero()[:, 0]), caption
    assert len(set(said)) > 10
    assert (rows.condition == tokenize(small.tokenizer, said)[0]).all()
    assert (source.rows(0, 40, torch.Generator().manual_seed(0)).condition == rows.condition).all()


def test_the_evaluation_counts_what_is_read(small, monkeypatch):
    """A pipeline whose pictures are right for every other caption, and a codec that keeps everything."""
    captions = [emoji.arranged("test", index)[1] for index in range(8)]

    def drawn(pipe, captions, **call):
        for number, caption in enumerate(captions):
            name, background = emoji.parse(caption).emoji[0], emoji.parse(caption).background
            shown = emoji.catalogue()[min(name)] if number % 2 else PEAR
            yield scenes.to_tensor([emoji.draw(Arrangement(background, (Placed(shown),)))])[0]

    monkeypatch.setattr(evaluation, "pictures_of", drawn)
    found = evaluation.evaluate(small, count=8)
    assert not any("pear" in caption for caption in captions)
    assert (found.pictures, found.emoji, found.background, found.all) == (8, 0.5, 1.0, 0.5)
    monkeypatch.setattr(small, "encode", lambda images: images)
    monkeypatch.setattr(small, "decode", lambda images: images + 0.02)
    kept = evaluation.reconstruction(small, count=6)
    assert kept.read == 1 and kept.psnr == pytest.approx(40, abs=1)  # 0.02 of 2, but for what is clamped
    with pytest.raises(ValueError, match="the world of emoji takes a model that reads text and draws 32 x 32 pixels"):
        evaluation.evaluate(VQDiffusionPipeline(**shipped.networks(words=["a"], side=16)), count=1)


def test_a_model_of_many_words_counts_them_and_names_those_that_it_does_not_know(small):
    words = training.defaults()["words"]
    assert words == sorted(set(words)) and {"pear", "pink", "background", ",", "an"} <= set(words)
    small.defaults = {"words": words}
    with pytest.warns(UserWarning, match=r"never seen 'zyzzyva'; it knows [45]\d\d\d others$"):
        small.denoiser(["a zyzzyva on a pink background"])
