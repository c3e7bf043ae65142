"""Training on any data set and by any objective: texts, classes or nothing, pictures or tokens."""

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset, TensorDataset

from vqlearn import MaskReplaceSchedule, Transformer2DModel, VQDiffusionPipeline, VQDiffusionScheduler, q_sample, scenes
from vqlearn.evaluation.bound import pipeline_bound
from vqlearn.training import (
    Batch,
    CodecRecipe,
    CodecStage,
    ContinuousTime,
    CrossEntropy,
    DenoiserRecipe,
    DenoiserStage,
    PublishedBound,
    fit,
    initialise,
    networks,
)
from vqlearn.training.batches import Shuffled, as_source


def pipeline(length=6, codes=5, steps=10, classes=None):
    """A pipeline of sequences, without a codec and a text."""
    torch.manual_seed(1)
    network = Transformer2DModel(
        2, 8, 1, None, codes + 1, length, num_embeds_ada_norm=steps, feed_forward_mult=2, num_classes=classes,
        positions="sequence",
    )  # fmt: skip
    initialise(network)
    line = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    pipe = VQDiffusionPipeline(None, None, None, network, VQDiffusionScheduler(codes + 1, steps))
    pipe.schedule = MaskReplaceSchedule(1 - line, 0.9 * line, num_codes=codes)
    return pipe


class Counting(Dataset):
    """Row i is six times the code i modulo 5, and its class is i modulo 3; what was asked for is counted."""

    def __init__(self, rows=10, length=6):
        self.rows, self.length, self.asked = rows, length, []

    def __len__(self):
        return self.rows

    def __getitem__(self, index):
        self.asked.append(index)
        return torch.full((self.length,), index % 5), index % 3


OBJECTIVES = {"cross-entropy": CrossEntropy, "bound": lambda: PublishedBound(10), "continuous": ContinuousTime}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("classes", [None, 3])
def test_sequences_are_learned_without_a_codec_with_classes_or_without(objective, classes):
    """Six equal tokens of five codes: the bound falls far below log2(5) bits per token, towards log2(5) / 6."""
    pipe = pipeline(classes=classes)
    recipe = DenoiserRecipe(steps=150, batch=32, learning_rate=1e-2, ema=0.9)
    stage = DenoiserStage(pipe, Counting(15), recipe, OBJECTIVES[objective]())
    for number in range(150):
        stage.step(number)
    assert stage.averaged() is pipe
    found = pipeline_bound(pipe, Counting(150), batch=150, generator=torch.Generator().manual_seed(0))
    assert found.bits_per_token + 4 * found.standard_error < 0.6 * math.log2(5)


def test_every_row_comes_once_in_each_epoch_in_an_order_of_the_seed_and_epoch():
    first, again, other = (Shuffled(Counting(10), lambda _: None, batch=4, seed=seed) for seed in (0, 0, 1))
    orders = [[index for number in range(10) for index in source.indices(number)] for source in (first, again, other)]
    assert orders[0] == orders[1] != orders[2]
    epochs = [orders[0][start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_batches_are_a_function_of_their_number():
    """Asked for in any order, with processes of their own or without, and never more often than needed."""
    alone, workers = (Shuffled(Counting(10), torch.tensor, batch=4, seed=3, workers=n) for n in (0, 2))
    generator = torch.Generator()
    expected = [alone.rows(number, 4, generator) for number in range(4)]
    assert len(alone.data.asked) == 16
    for number in (0, 1, 3, 2):
        found = workers.rows(number, 4, generator)
        assert torch.equal(found.x, expected[number].x) and torch.equal(found.condition, expected[number].condition)
    assert torch.equal(alone.rows(2, 3, generator).x, expected[2].x[:3])


def test_loading_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Shuffled(Counting(10), lambda _: None, batch=4).rows(0, 4, torch.Generator())
    assert torch.equal(torch.rand(3), expected)


def test_a_run_on_a_data_set_goes_on_bit_for_bit(tmp_path):
    def stage():
        return DenoiserStage(pipeline(classes=3), Counting(7), DenoiserRecipe(steps=6, batch=3), PublishedBound(10))

    whole = stage()
    fit(whole, tmp_path / "whole", progress=False)
    parts = stage()
    step = parts.step

    def killed(number):
        if number == 4:
            raise RuntimeError("killed")
        return step(number)

    parts.step = killed
    with pytest.raises(RuntimeError, match="killed"):
        fit(parts, tmp_path / "parts", save_every=2, progress=False)
    again = stage()
    fit(again, tmp_path / "parts", progress=False)
    for ours, theirs in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(again.average.parameters(), whole.average.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert (tmp_path / "parts" / "log.csv").read_text() == (tmp_path / "whole" / "log.csv").read_text()


def test_another_objective_does_not_go_on_from_the_checkpoint(tmp_path):
    fit(DenoiserStage(pipeline(), Counting(7), DenoiserRecipe(steps=1, batch=3)), tmp_path, progress=False)
    stage = DenoiserStage(pipeline(), Counting(7), DenoiserRecipe(steps=1, batch=3), ContinuousTime())
    with pytest.raises(ValueError, match="was made with objective = 'CrossEntropy', now it is 'ContinuousTime'"):
        fit(stage, tmp_path, progress=False)


def test_a_function_is_an_objective_and_its_figures_are_logged():
    seen = []

    def mine(batch: Batch, network):
        t = torch.full((len(batch.x_0),), 10)
        x_t = q_sample(batch.x_0, t, batch.schedule, generator=batch.generator)
        logits = network(x_t, t)
        seen.append((batch.number, batch.condition.tolist(), tuple(logits.shape)))
        return F.cross_entropy(logits.mT, batch.x_0), {"masked": (x_t == 5).float().mean()}

    figures = DenoiserStage(pipeline(classes=3), Counting(), DenoiserRecipe(steps=5, batch=4), mine).step(2)
    assert list(figures) == ["loss", "masked", "gradient"] and 0 < figures["masked"] <= 1
    ((number, classes, shape),) = seen
    assert number == 2 and shape == (4, 6, 5) and all(0 <= c < 3 for c in classes)


def test_the_null_class_takes_the_place_of_a_share_of_the_classes():
    """With every condition dropped, the loss is that of the null class, whatever the classes are."""
    losses = []
    for shift in (0, 1):
        data = [(x, (c + shift) % 3) for x, c in (Counting()[i] for i in range(10))]
        stage = DenoiserStage(pipeline(classes=3), data, DenoiserRecipe(steps=5, batch=8, null_share=1.0))
        losses.append(stage.step(0)["loss"])
    assert losses[0] == losses[1]
    stage = DenoiserStage(pipeline(classes=3), data, DenoiserRecipe(steps=5, batch=8, null_share=0.0))
    assert stage.step(0)["loss"] != losses[0]


def test_pictures_are_encoded_by_the_codec_and_captions_by_the_tokenizer():
    """The batch of a data set of pictures is what codec and tokenizer make of its rows."""
    pipe = VQDiffusionPipeline(**networks())
    pipe.transformer.transformer_blocks = pipe.transformer.transformer_blocks[:1]
    drawn = [scenes.sample("train", index) for index in range(6)]
    images = scenes.to_tensor([scenes.draw(scene) for scene, _ in drawn])
    data = list(zip(images, [caption for _, caption in drawn], strict=True))
    stage = DenoiserStage(pipe, data, DenoiserRecipe(steps=3, batch=4))
    batch, rows = stage._batch(0), stage.source.indices(0)
    assert torch.equal(batch.x_0, pipe.vqvae.encode(images[rows]))
    for ids, row in zip(batch.condition, rows, strict=True):
        text = pipe.tokenizer.decode(ids, skip_special_tokens=True).replace("!", "").replace(" ,", ",").strip()
        assert text == drawn[row][1]
    assert stage.step(0)["loss"] > 0
    codec = CodecStage(pipe.vqvae, data, CodecRecipe(steps=3, batch=4))
    assert codec.step(0)["loss"] > 0


def test_a_model_without_a_text_of_its_own_learns_too():
    """Pictures and no conditions, by networks that are conditioned on nothing."""
    pipe = VQDiffusionPipeline(**networks(words=None, side=16))
    pipe.transformer.transformer_blocks = pipe.transformer.transformer_blocks[:1]
    initialise(pipe.transformer, pipe.vqvae)
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    stage = DenoiserStage(pipe, TensorDataset(images, torch.zeros(5)), DenoiserRecipe(steps=2, batch=4))
    assert stage.step(0)["loss"] > 0 and stage.averaged().length == 16


def test_an_encoded_empty_prompt_as_the_null_text():
    """Where no null text is learned, the empty prompt takes its place: with all dropped, captions do not matter."""
    from vqlearn import LearnedClassifierFreeSamplingEmbeddings

    losses = []
    for captions in (["a circle", "a star"], ["a star", "a red cross"]):
        parts = networks(words=["a"], side=16)
        parts["learned_classifier_free_sampling_embeddings"] = LearnedClassifierFreeSamplingEmbeddings(False)
        pipe = VQDiffusionPipeline(**parts)
        pipe.transformer.transformer_blocks = pipe.transformer.transformer_blocks[:1]
        data = [(torch.full((16,), number), caption) for number, caption in enumerate(captions)]
        stage = DenoiserStage(pipe, data, DenoiserRecipe(steps=2, batch=2, null_share=1.0))
        losses.append(stage.step(0)["loss"])
    assert losses[0] == losses[1]


# ------------------------------------------------------------------------------------------ what is wrong is named


def row(x, condition=0):
    return [(x, condition)] * 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the data set is empty"),
        (row(torch.zeros(3, 4, 4)), "has no codec, so the data set must hold tokens"),
        (row(torch.zeros(5, dtype=torch.int64)), r"the network has 6 positions, but a row .* has tokens \[5\]"),
        (row(torch.full((6,), 5)), r"x_0 must lie in 0 \.\.\. 4 \(codes, no mask\), got values from 5 to 5"),
        ([torch.zeros(6)] * 4, r"a row of the data set must be \(tensor, condition\)"),
        ([(torch.zeros(n, dtype=torch.int64), 0) for n in (6, 5, 6, 5)], r"of one shape, got .* \[[56]\] beside"),
        (row(torch.zeros(6, dtype=torch.int32)), r"must be images, .* got torch\.int32 \[6\]"),
        (row(torch.zeros(6, dtype=torch.int64), 3), "must be its number, 0 to 2, got 3"),
        (row(torch.zeros(6, dtype=torch.int64), "cat"), "must be its number, 0 to 2, got 'cat'"),
    ],
)  # fmt: skip
def test_data_that_does_not_fit_is_named(data, message):
    with pytest.raises(ValueError, match=message):
        DenoiserStage(pipeline(classes=3), data, DenoiserRecipe(steps=2, batch=4)).step(0)


@pytest.mark.parametrize("caption", ["", "  ", None, 3])
def test_a_caption_that_is_none_is_named(caption):
    pipe = VQDiffusionPipeline(**networks())
    data = row(torch.zeros(64, dtype=torch.int64), caption)
    with pytest.raises(ValueError, match="so the condition must be a caption, got"):
        DenoiserStage(pipe, data, DenoiserRecipe(steps=2, batch=2)).step(0)


def test_a_caption_that_is_too_long_is_cut_with_a_warning():
    pipe = VQDiffusionPipeline(**networks())
    data = row(torch.zeros(64, dtype=torch.int64), "a red circle " * 20)
    stage = DenoiserStage(pipe, data, DenoiserRecipe(steps=2, batch=2))
    with pytest.warns(UserWarning, match="a caption is longer than 32 tokens; this part is not read: 'a red circle"):
        stage.source.rows(0, 2, torch.Generator())


def test_pictures_that_the_codec_cannot_encode_are_named():
    codec = VQDiffusionPipeline(**networks()).vqvae
    for images in (torch.zeros(3, 30, 32), torch.zeros(1, 32, 32), torch.zeros(6, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"must be float \[3, H, W\] with sides divisible by 4, got"):
            CodecStage(codec, row(images), CodecRecipe(steps=2, batch=2)).step(0)


def test_an_objective_that_is_none_is_named():
    with pytest.raises(ValueError, match=r"objective must be a function .* -> loss, figures, got 'mse'"):
        DenoiserStage(pipeline(), Counting(), DenoiserRecipe(), "mse")


def test_a_source_is_taken_as_it_is():
    source = Shuffled(Counting(), lambda _: None, batch=2)
    assert as_source(source, lambda _: None, batch=7, seed=1) is source
    assert Counter(source.indices(0) + source.indices(1)).most_common(1)[0][1] == 1
