import numpy as np
import pytest
import torch

from vqlearn import scenes
from vqlearn.checkpoints.loading import load_text_encoder, load_text_tokenizer
from vqlearn.checkpoints.saving import save_tokenizer
from vqlearn.networks.text import (
    LearnedClassifierFreeSamplingEmbeddings,
    _byte_alphabet,
    clip_tokenizer,
    encode_ids,
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
