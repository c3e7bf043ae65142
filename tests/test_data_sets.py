"""Training on any data set and by any objective: texts, classes or nothing, pictures or tokens."""

import contextlib
import gc
import math
import multiprocessing
import os
import re
import signal
import weakref
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shallow import small_codec
from torch.utils.data import Dataset, TensorDataset

from vqlearn import (
    MaskReplaceSchedule,
    Transformer2DModel,
    VQDiffusionPipeline,
    VQDiffusionScheduler,
    q_sample,
    scenes,
)
from vqlearn.evaluation.bound import pipeline_bound
from vqlearn.networks.text import clip_tokenizer, word_merges
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
from vqlearn.training.batches import RowError, Rows, Shuffled, Source, as_source, rows_of
from vqlearn.training.conditioned import condition_reader
from vqlearn.training.objectives import Conditions


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


@pytest.fixture
def codec():
    return small_codec()


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


@pytest.mark.parametrize("broken", [False, True])
def test_a_loader_ends_with_its_source(broken):
    """In a cycle of references, collected later, it would wait for its processes in vain, for seconds."""

    class Some(Counting):
        def __getitem__(self, index):
            return super().__getitem__("nowhere" if broken else index)

    source = Shuffled(Some(10), torch.tensor, batch=4, workers=1)
    with pytest.raises(TypeError) if broken else contextlib.nullcontext():
        source.rows(0, 4, torch.Generator())
    gc.disable()
    try:
        loader = weakref.ref(source._loaded)
        del source
        assert loader() is None
    finally:
        gc.enable()


def test_after_an_error_of_a_row_its_batch_is_loaded_again():
    class Once(Counting):
        def __getitem__(self, index):
            if len(self.asked) == 5:
                self.asked.append(index)
                raise KeyError("this row is broken")
            return super().__getitem__(index)

    source, whole = (Shuffled(kind(10), torch.tensor, batch=4, seed=3) for kind in (Once, Counting))
    generator = torch.Generator()
    source.rows(0, 4, generator)
    with pytest.raises(KeyError):
        source.rows(1, 4, generator)
    assert torch.equal(source.rows(1, 4, generator).x, whole.rows(1, 4, generator).x)


def test_rows_of_whatever_has_rows():
    x, some = torch.arange(6).view(3, 2), slice(None, None, 2)
    named = Rows(x, None, {"names": ["a", "b", "c"], "pair": (x, [1, 2, 3])})
    found = rows_of(named, some)
    assert isinstance(found, Rows) and found.x.tolist() == [[0, 1], [4, 5]] and found.condition is None
    assert found.notes["names"] == ["a", "c"] and type(found.notes["pair"]) is tuple
    assert found.notes["pair"][0].tolist() == [[0, 1], [4, 5]] and found.notes["pair"][1] == [1, 3]
    with pytest.raises(
        TypeError, match="notes to share out must be tensors, lists, or tuples and dicts of them, got 5"
    ):
        rows_of({"count": 5}, some)


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


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["memory", "stop"])
def test_when_processes_that_load_data_die_no_step_is_lost(tmp_path, number):
    """Of want of memory, or of the signal to stop that the run itself heeds, as where a whole group is sent one."""

    class Interrupted(DenoiserStage):
        def step(self, at):
            if at == 3:
                assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL  # torch's would raise somewhere in the step
                for process in multiprocessing.active_children():
                    os.kill(process.pid, number)
                if number == signal.SIGTERM:
                    signal.raise_signal(number)
            return super().step(at)

    def stage(kind=DenoiserStage, workers=0):
        torch.manual_seed(0)
        return kind(pipeline(), Counting(), DenoiserRecipe(steps=12, batch=2), workers=workers)

    before = signal.getsignal(signal.SIGCHLD), signal.signal(signal.SIGTERM, signal.default_int_handler)
    error = KeyboardInterrupt if number == signal.SIGTERM else ChildProcessError
    try:
        with pytest.raises(error, match=r"the checkpoint of step [3-9] is kept in"):
            fit(stage(Interrupted, 1), tmp_path / "a", save_every=100, progress=False)
    finally:
        signal.signal(signal.SIGTERM, before[1])
    assert signal.getsignal(signal.SIGCHLD) == before[0]
    resumed, whole = stage(), stage()
    fit(resumed, tmp_path / "a", progress=False)
    fit(whole, tmp_path / "b", progress=False)
    assert all(torch.equal(*both) for both in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))
    assert (tmp_path / "a" / "log.csv").read_text() == (tmp_path / "b" / "log.csv").read_text()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [RuntimeError, FileNotFoundError, EOFError, KeyError])
def test_an_error_of_a_row_is_its_own_in_another_process_too(workers, kind):
    class Broken(Counting):
        def __getitem__(self, index):
            raise kind("this row is broken")

    stage = DenoiserStage(pipeline(), Broken(), DenoiserRecipe(steps=2, batch=2), workers=workers)
    with pytest.raises(kind, match="this row is broken"):
        stage.step(0)


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


TOKENS = torch.zeros(6, dtype=torch.int64)


class Wrong(Counting):
    """Eight rows, of which number 5 is another."""

    def __init__(self, row):
        super().__init__(8)
        self.row = row

    def __getitem__(self, index):
        return self.row if index == 5 else super().__getitem__(index)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (TOKENS, r"must be (tensor, condition), got tensor([0, 0, 0, 0, 0, 0])"),
        ((TOKENS, 0, 0), "must be (tensor, condition), got (tensor([0, 0, 0, 0, 0, 0]), 0, 0)"),
        (([0] * 6, 0), "must be (tensor, condition), got ([0, 0, 0, 0, 0, 0], 0)"),
        ((TOKENS.int(), 0), "tokens, int64 [L], of one shape with the others, got torch.int32 [6] beside"),
        ((TOKENS + 5, 0), "must hold tokens in 0 ... 4, got values from 5 to 5"),
        ((TOKENS - 1, 0), "must hold tokens in 0 ... 4, got values from -1 to -1"),
        ((TOKENS, 3), "does not fit this network: its class must be a whole number from 0 to 2, got 3"),
        ((TOKENS, -1), "must be a whole number from 0 to 2, got -1"),
        ((TOKENS, True), "must be a whole number from 0 to 2, got True"),
        ((TOKENS, 1.0), "must be a whole number from 0 to 2, got 1.0"),
        ((TOKENS, "cat"), "must be a whole number from 0 to 2, got 'cat'"),
        ((TOKENS, None), "must be a whole number from 0 to 2, got None"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_named_by_its_number(row, message):
    stage = DenoiserStage(pipeline(classes=3), Wrong(row), DenoiserRecipe(steps=2, batch=8))
    with pytest.raises(ValueError) as caught:
        stage.step(0)
    assert str(caught.value).startswith("item 5 of the data set ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_row_that_does_not_fit_is_named_out_of_another_process():
    stage = DenoiserStage(pipeline(), Wrong(([0] * 6, 0)), DenoiserRecipe(steps=2, batch=8), workers=1)
    with pytest.raises(ValueError) as caught:
        stage.step(0)
    assert str(caught.value) == "item 5 of the data set must be (tensor, condition), got ([0, 0, 0, 0, 0, 0], 0)"


def test_rows_of_several_shapes_are_named():
    stage = DenoiserStage(pipeline(), Wrong((TOKENS[:5], 0)), DenoiserRecipe(steps=2, batch=8))
    with pytest.raises(ValueError, match=r"item \d of the data set .* got torch.int64 \[[56]\] beside torch.int64 \["):
        stage.step(0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the data set is empty"),
        ([(torch.zeros(3, 4, 4), 0)], "has no codec, so the data set must hold tokens"),
        ([(TOKENS[:5], 0)], r"item 0 .* has torch.int64 tokens \[5\], the network has 6 positions"),
        ([(TOKENS[None], 0)], r"item 0 .* has torch.int64 tokens \[1, 6\], the network has 6 positions"),
    ],
)
def test_data_of_another_kind_is_named(data, message):
    with pytest.raises(ValueError, match=message):
        DenoiserStage(pipeline(), data, DenoiserRecipe(steps=2, batch=4)).step(0)


@pytest.mark.parametrize("data", [5, None, iter([(TOKENS, 0)])])
def test_what_is_no_data_set_is_named(data):
    with pytest.raises(TypeError, match="data must be a data set with a length and rows by number, or a Source, got"):
        DenoiserStage(pipeline(), data)


def test_classes_of_numpy_are_classes():
    data = [(TOKENS, np.int64(2)), (TOKENS, 1)]
    stage = DenoiserStage(pipeline(classes=3), data, DenoiserRecipe(steps=2, batch=2))
    assert sorted(stage._batch(0).condition.tolist()) == [1, 2]


@pytest.mark.parametrize("caption", ["", "  ", None, 3])
def test_a_caption_that_is_none_is_named(caption):
    read = condition_reader(SimpleNamespace(transformer=SimpleNamespace(reads="text"), tokenizer=None))
    with pytest.raises(RowError) as caught:
        read(["a star", caption])
    assert caught.value.row == 1
    assert caught.value.problem == f"must have a caption, which this network reads, got {caption!r}"


def test_a_caption_that_is_too_long_is_cut_with_a_warning():
    tokenizer = clip_tokenizer(word_merges(["a", "red", "circle"]), max_length=32)
    read = condition_reader(SimpleNamespace(transformer=SimpleNamespace(reads="text"), tokenizer=tokenizer))
    with pytest.warns(UserWarning, match="a caption is longer than 32 tokens; this part is not read: 'a red circle"):
        read(["a red circle " * 20])


class Pictures(Source):
    """Batches of black pictures, of which row 1 is another."""

    def __init__(self, images):
        self.images = images

    def rows(self, number, count, generator):
        return Rows(self.images)


@pytest.mark.parametrize("shape", [(3, 30, 32), (1, 32, 32), (3, 32), (3, 0, 32), (6,)])
def test_pictures_that_the_codec_cannot_encode_are_named(codec, shape):
    stage = CodecStage(codec, Pictures(torch.zeros(2, *shape)), CodecRecipe(steps=2, batch=2))
    expected = "row 0 of batch 1 must be an image, float [3, H, W] with sides divisible by 4, got torch.float32 "
    with pytest.raises(ValueError, match=re.escape(expected + str(list(shape)))):
        stage.step(1)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(255.0, "0 to 255"), (1.01, "0 to 1.01"), (-2.0, "-2 to 0"), (math.inf, "0 to inf"), (math.nan, "nan to nan")],
)
def test_pictures_out_of_range_are_named(codec, value, shown):
    images = torch.zeros(2, 3, 8, 8)
    images[1, 2, 7, 3] = value
    for stage in (
        CodecStage(codec, Pictures(images), CodecRecipe(steps=2, batch=2)),
        CodecStage(codec, [(images[1], None)], CodecRecipe(steps=2, batch=1)),
    ):
        with pytest.raises(
            ValueError, match=rf"(row 1 of batch 0|item 0 .*) must hold an image in .*, got values from {shown}"
        ):
            stage.step(0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_pictures_of_any_precision_are_learned(codec, dtype):
    stage = CodecStage(codec, [(torch.zeros(3, 8, 8, dtype=dtype), None)], CodecRecipe(steps=2, batch=2))
    assert stage.step(0)["loss"] > 0


@pytest.mark.parametrize(
    "found", [None, torch.zeros(()), (torch.zeros((), requires_grad=True),), (torch.zeros(()), {}),
              (torch.zeros(3, requires_grad=True), {}), (0.5, {}), (torch.zeros((), requires_grad=True), None)]
)  # fmt: skip
def test_an_objective_that_returns_something_else_is_named(found):
    stage = DenoiserStage(pipeline(), Counting(), DenoiserRecipe(steps=2, batch=2), lambda batch, network: found)
    with pytest.raises(TypeError, match=r"an objective must return \(loss, figures\), a scalar tensor with a gradient"):
        stage.step(0)


@pytest.mark.parametrize("figure", ["x", None, torch.ones(2)])
def test_a_figure_that_is_no_number_is_named(figure):
    def mine(batch, network):
        return network(batch.x_0, torch.ones(2, dtype=torch.int64)).square().mean(), {"mine": figure}

    with pytest.raises(TypeError, match="the figure 'mine' of an objective must be a number, got "):
        DenoiserStage(pipeline(), Counting(), DenoiserRecipe(steps=2, batch=2), mine).step(0)


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_reported_with_its_step_and_changes_nothing(factor):
    def mine(batch, network):
        return factor * network(batch.x_0, torch.ones(2, dtype=torch.int64)).square().mean(), {}

    stage = DenoiserStage(pipeline(), Counting(), DenoiserRecipe(steps=9, batch=2), mine)
    before = [weight.clone() for weight in stage.model.parameters()]
    with pytest.raises(FloatingPointError, match=f"the loss of step 4 is {factor}, its gradient's norm nan"):
        stage.step(3)
    assert all(torch.equal(*both) for both in zip(before, stage.model.parameters(), strict=True))


ASKED = {
    "times 1 ... 10, got 0 to 0": {"t": torch.zeros(2, dtype=torch.int64)},
    "times 1 ... 10, got 1 to 11": {"t": torch.tensor([1, 11])},
    "times 1 ... 10, got -3 to 2": {"t": torch.tensor([2, -3])},
    r"times int64 \[2\], got torch.float32": {"t": torch.ones(2)},
    r"times int64 \[2\], got torch.int64 \[3\]": {"t": torch.ones(3, dtype=torch.int64)},
    r"times int64 \[2\], got 1": {"t": 1},
    r"x_t must lie in 0 ... 5 .* from 6 to 6": {"x_t": torch.full((2, 6), 6)},
    r"x_t must be int64 \[B, L\], got torch.float32": {"x_t": torch.zeros(2, 6)},
    r"x_t must be of 6 tokens a row, got 7": {"x_t": torch.zeros(2, 7, dtype=torch.int64)},
    r"a condition for each of 2 rows, got 3": {"conditions": Conditions(None, torch.ones(3, dtype=torch.bool), None)},
    r"times int64 \[1\]": {"x_t": torch.zeros(1, 6, dtype=torch.int64)},
    r"a condition for each of 1 rows, got 2": {"x_t": torch.zeros(1, 6, dtype=torch.int64), "t": torch.ones(1).long()},
}


@pytest.mark.parametrize("message", ASKED)
def test_what_an_objective_cannot_ask_the_network_is_named(message):
    def mine(batch, network):
        good = {"x_t": batch.x_0, "t": torch.ones(2, dtype=torch.int64)}
        network(**good)
        return network(**good | ASKED[message]).square().mean(), {}

    with pytest.raises(ValueError, match=message):
        DenoiserStage(pipeline(), Counting(), DenoiserRecipe(steps=2, batch=2), mine).step(0)


def test_an_objective_that_is_none_is_named():
    with pytest.raises(ValueError, match=r"objective must be a function .* -> loss, figures, got 'mse'"):
        DenoiserStage(pipeline(), Counting(), DenoiserRecipe(), "mse")


def test_a_source_is_taken_as_it_is():
    source = Shuffled(Counting(), lambda _: None, batch=2)
    assert as_source(source, lambda _: None, batch=7, seed=1) is source
    assert Counter(source.indices(0) + source.indices(1)).most_common(1)[0][1] == 1
