import functools

import numpy as np
import pytest
import torch
from together import together

from vqlearn import scenes
from vqlearn.checkpoints.loading import load_text_encoder, load_text_tokenizer
from vqlearn.checkpoints.saving import save_tokenizer
from vqlearn.networks.text import (
    LearnedClassifierFreeSamplingEmbeddings,
    _byte_alphabet,
    clip_tokenizer,
    encode_ids,
    plain,
    sentence,
    signs,
    tokenize,
    word_merges,
)

PROMPTS = ["a teddy bear playing in the pool", "red circle on the left!"]


@torch.no_grad()
def test_agrees_with_diffusers(data):
    golden = np.load(data / "golden_tiny_pipeline.npz")
    tokenizer = load_text_tokenizer(data / "tiny_pipeline" / "tokenizer")
    encoder = load_text_encoder(data / "tiny_pipeline" / "text_encoder")
    ids, cut = tokenize(tokenizer, PROMPTS)
    assert ids.tolist() == golden["input_ids"].tolist() and cut == ["", ""]
    hidden = encode_ids(encoder, ids)
    torch.testing.assert_close(hidden, torch.tensor(golden["prompt_embeds_cfg"][2:]), atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden.norm(dim=-1), torch.ones(2, 16))


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(clip_tokenizer(word_merges(scenes.VOCABULARY | {","}), max_length=12), folder)
    return load_text_tokenizer(folder)


def test_every_word_of_the_toy_world_is_one_token(words):
    for word in scenes.VOCABULARY:
        assert len(words(word)["input_ids"]) == 3, word  # start, word, end


def test_other_text_still_encodes_and_decodes(words):
    ids = words("zebra 7 über")["input_ids"]
    assert len(ids) > 5
    assert words.decode(ids[1:-1]).replace(" ", "") == "zebra7über"


def test_a_long_prompt_keeps_its_end_token_and_says_what_was_cut(words):
    ids, cut = tokenize(words, ["a small red circle left of a small blue square and above a star", "a star"])
    assert ids.shape == (2, 12)
    assert ids[0, 0] == words.bos_token_id and ids[0, -1] == words.eos_token_id
    assert cut == ["and above a star", ""]
    assert (ids[1, 4:] == words.pad_token_id).all() and words.pad_token_id == 0


def test_null_text_without_learning_has_no_tensor():
    assert not list(LearnedClassifierFreeSamplingEmbeddings(False).parameters())
    with pytest.raises(ValueError, match="need hidden_size and length"):
        LearnedClassifierFreeSamplingEmbeddings(True)


def test_the_byte_alphabet_is_that_of_gpt_2():
    """Every byte has one printable character; 188 bytes are their own, the others follow from U+0100."""
    alphabet = _byte_alphabet()
    assert len(alphabet) == len(set(alphabet)) == 256
    assert sum(ord(sign) < 256 for sign in alphabet) == 188 and max(map(ord, alphabet)) == 256 + 67
    assert {"!", "~", "¡", "¬", "®", "ÿ"} <= set(alphabet) and "\xad" not in alphabet


# ------------------------------------------------------------------------------------------ prompts as people have them

NOTHING = {
    "no-break space": "a\u00a0red\u202fcircle",
    "ideographic space": "\u3000a red\u3000circle",
    "newline, tab": "a\r\nred\tcircle\n",
    "repeated": "  a   red circle ",
    "zero width": "a\u200b red cir\u200dcle\u2060",
    "byte order mark": "\ufeffa red circle",
    "soft hyphen": "a red cir\u00adcle",
    "direction": "\u202ea red circle\u202c\u200f",
    "variation selector": "a red\ufe0f circle\ufe0e",
    "control": "a\x00red\x1bcircle\x7f",
    "hangul filler": "a red\u3164 circle\u115f",
    "tag": "a red circle\U000e0041",
    "separators": "a\u2028red\u2029\x85circle\x1c",
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_means_nothing_changes_no_token(words, name):
    assert plain(NOTHING[name]) == "a red circle"
    assert torch.equal(tokenize(words, [plain(NOTHING[name])])[0], tokenize(words, ["a red circle"])[0])


@pytest.mark.parametrize(
    "text",
    ["a red circle!", "👨\u200d👩\u200d👧", "❤\ufe0f", "می\u200cخواهم", "naïve 图 über", "<|endoftext|>", "½ № ①"],
)
def test_what_means_something_stays(words, text):
    assert plain(text) == text
    assert torch.equal(tokenize(words, [plain(text)])[0], tokenize(words, [text])[0])


def test_composed_and_decomposed_are_one():
    assert plain("cafe\u0301") == "caf\u00e9"


@pytest.mark.parametrize(
    "text", ["", " ", "\u00a0\u3000", "\u200b\u2060\ufeff", "\n\t\x00", "\u200d\ufe0f", "\u202e\u202c"]
)
def test_what_says_nothing_is_empty_whatever_it_is_made_of(text):
    with pytest.raises(ValueError, match="prompt must not be empty"):
        sentence(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a \ud800 b", r"U\+D800, which is half a character"), (b"a", "must be a string, got b'a'"), (None, "got None")],
)
def test_what_is_no_text_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        plain(text)


def test_every_sign_counts_once():
    assert signs("A red circle ♥♥♥, a RED_square…") == ["a", "red", "circle", "♥", ",", "_", "square", "…"]
    assert signs("👨\u200d👩 ❤\ufe0f") == ["👨", "👩", "❤"]


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("a red circle ♥♥♥", ["♥"]),
        ("a red circle.", ["."]),
        ("a \u200bred\u00a0circle", []),
        ("a red circle: a 3 \u2800", [":", "3", "\u2800"]),
        ("a red-circle", ["-"]),
        ("a red circle (large)", ["(", ")"]),
    ],
)
def test_signs_that_a_closed_vocabulary_lacks_are_noted(shipped, text, unknown):
    assert shipped.conditions.unknown(shipped.conditions.prompts(text)) == unknown


# ------------------------------------------------------------------------------------------ a shared tokenizer


def _settings(tokenizer):
    return tokenizer.backend_tokenizer.truncation, tokenizer.backend_tokenizer.padding


def test_a_tokenizer_keeps_its_settings_and_they_change_nothing(words):
    """Somebody else may have set the shared tokenizer to cut and to pad, as every script for diffusers does."""
    long = "a small red circle left of a small blue square and above a star"
    before = tokenize(words, [long, "a star"])
    assert _settings(words) == (None, None)
    words("a", padding="max_length", truncation=True, max_length=5)
    theirs = _settings(words)
    ids, cut = tokenize(words, [long, "a star"])
    assert torch.equal(ids, before[0]) and cut == before[1] and _settings(words) == theirs
    words.backend_tokenizer.no_truncation()
    words.backend_tokenizer.no_padding()


def test_threads_that_share_a_tokenizer_get_their_own_ids(words):
    """Long and short prompts at the same moment, each thread its own, over and over."""
    prompts = ["a star", "a small red circle left of a small blue square and above a star", "red", "a " * 40]
    alone = [tokenize(words, [text]) for text in prompts]
    found = together(*(functools.partial(tokenize, words, [text]) for text in prompts), times=50)
    for (ids, cut), runs in zip(alone, found, strict=True):
        assert all(torch.equal(ids, some) and cut == left for some, left in runs)
