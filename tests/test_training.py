import csv
import math
import signal
from dataclasses import replace

import pytest
import torch

from vqlearn import VQDiffusionPipeline, scenes, tiny
from vqlearn.conditioning import tokenize
from vqlearn.runs import fit
from vqlearn.training import (
    CodecRecipe,
    CodecStage,
    DenoiserRecipe,
    DenoiserStage,
    RelationReader,
    initialise,
    learning_rate,
)


def _codec(steps=6, **recipe):
    return CodecStage(tiny.networks()["vqvae"], CodecRecipe(steps=steps, batch=2, **recipe))


def _denoiser(steps=6, **recipe):
    parts = tiny.networks()
    transformer = parts["transformer"]
    transformer.transformer_blocks = transformer.transformer_blocks[:1]
    initialise(transformer, parts["vqvae"].quantize.embedding.weight.detach())
    null_text = parts["learned_classifier_free_sampling_embeddings"]
    return DenoiserStage(parts["vqvae"], transformer, parts["text_encoder"], null_text, parts["tokenizer"],
                         parts["scheduler"].schedule, DenoiserRecipe(steps=steps, batch=2, **recipe))  # fmt: skip


def _log(folder):
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.reader(file))


class Killed(Exception):
    """Stands for a kill signal: nothing of the run's own clean-up may be needed."""


STAGES = {
    "codec": _codec,
    "denoiser": _denoiser,
    "bound": lambda steps=6: _denoiser(steps, objective="bound"),
    "cross_entropy": lambda steps=6: _denoiser(steps, objective="cross_entropy"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, stage):
    make = STAGES[stage]
    fit(make(), tmp_path / "whole", save_every=2, progress=False)
    killed = make()
    step = killed.step

    def fragile(number):
        if number == 5:
            raise Killed
        return step(number)

    killed.step = fragile
    with pytest.raises(Killed):
        fit(killed, tmp_path / "parts", save_every=2, progress=False)
    fit(make(), tmp_path / "parts", save_every=2, progress=False)
    assert _log(tmp_path / "parts") == _log(tmp_path / "whole")
    assert len(_log(tmp_path / "whole")) == 7
    whole, parts = (torch.load(tmp_path / name / "checkpoint.pt")["state"] for name in ("whole", "parts"))
    assert _equal(whole, parts)


def _equal(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize(
    ("poisoned_at", "kept"), [(5, "the checkpoint of step 4 is kept"), (0, "no checkpoint had been")]
)
def test_weights_that_are_not_finite_stop_and_keep_the_checkpoint(tmp_path, poisoned_at, kept):
    stage = _codec()
    step = stage.step

    def poisoned(number):
        figures = step(number)
        if number == poisoned_at:  # after the update, so that the next checkpoint would hold it
            with torch.no_grad():
                stage.codec.decoder.conv_out.bias.fill_(torch.nan)
        return figures

    stage.step = poisoned
    with pytest.raises(FloatingPointError, match=kept):
        fit(stage, tmp_path, save_every=2, progress=False)
    if poisoned_at:
        saved = torch.load(tmp_path / "checkpoint.pt")
        assert saved["step"] == 4 and all(torch.isfinite(value).all() for value in saved["state"]["codec"].values())


def test_a_gradient_that_is_not_finite_changes_nothing():
    stage = _codec()
    before = {name: value.clone() for name, value in stage.codec.state_dict().items()}
    stage.recipe = replace(stage.recipe, commitment=math.inf)
    with pytest.raises(FloatingPointError, match="at step 0"):
        stage.step(0)
    assert all(torch.equal(value, before[name]) for name, value in stage.codec.state_dict().items())


def test_ctrl_c_in_the_middle_of_a_step_loses_nothing(tmp_path):
    fit(_codec(), tmp_path / "whole", progress=False)
    stage = _codec()
    step = stage.step

    def interrupted(number):
        if number == 3:
            signal.raise_signal(signal.SIGINT)
        return step(number)

    stage.step = interrupted
    with pytest.raises(KeyboardInterrupt):
        fit(stage, tmp_path / "parts", progress=False)
    assert torch.load(tmp_path / "parts" / "checkpoint.pt")["step"] == 4
    assert not list(tmp_path.rglob("*.part"))
    fit(_codec(), tmp_path / "parts", progress=False)
    assert _log(tmp_path / "parts") == _log(tmp_path / "whole")


def test_a_torn_log_is_mended(tmp_path):
    fit(_codec(), tmp_path / "whole", progress=False)
    killed = _codec(6)
    step = killed.step
    killed.step = lambda number: step(number) if number < 4 else (_ for _ in ()).throw(Killed)
    with pytest.raises(Killed):
        fit(killed, tmp_path / "parts", save_every=2, progress=False)
    with (tmp_path / "parts" / "log.csv").open("a") as file:
        file.write("5,0.1\n6")
    fit(_codec(), tmp_path / "parts", save_every=2, progress=False)
    assert _log(tmp_path / "parts") == _log(tmp_path / "whole")


def test_a_checkpoint_that_does_not_fit_is_named(tmp_path):
    fit(_codec(steps=1), tmp_path, progress=False)
    with pytest.raises(ValueError, match="was made with steps = 1, now it is 2; choose another folder"):
        fit(_codec(steps=2), tmp_path, progress=False)
    for content in (b"", b"text", (tmp_path / "checkpoint.pt").read_bytes()[:5000]):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(OSError, match="cannot be read"):
            fit(_codec(steps=1), tmp_path, progress=False)


def test_losses_fall():
    stage = _codec(steps=60)
    stage.recipe = replace(stage.recipe, batch=8)
    losses = [stage.step(number)["loss"] for number in range(60)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    stage = _denoiser(steps=30)
    stage.recipe = replace(stage.recipe, batch=8)
    losses = [stage.step(number)["loss"] for number in range(30)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_polish_moves_the_decoder_alone():
    stage = _codec(steps=4, polish=0.5)
    for number in (0, 1):
        stage.step(number)
    before = {name: value.clone() for name, value in stage.codec.state_dict().items()}
    stage.optimizer.state.clear()
    for number in (2, 3):
        stage.step(number)
    moved = {
        name.split(".")[0] for name, value in stage.codec.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"decoder", "post_quant_conv"}


def test_the_average_follows_the_weights():
    stage = _denoiser()
    stage.step(0)
    name, value = next(iter(stage.model.named_parameters()))
    assert not torch.equal(stage.average[name], value)
    mean = stage.average[name].clone()
    stage.averaged()
    assert torch.equal(value, mean)


def test_learning_rate_warms_up_stays_and_falls_to_zero():
    rates = [learning_rate(step, 1000, warmup=100, decay=0.3) for step in (0, 99, 500, 700, 850, 1000)]
    assert rates == pytest.approx([0.01, 1.0, 1.0, 1.0, 0.5, 0.0])


def test_networks_are_the_same_for_the_same_seed():
    first, second = tiny.networks(), tiny.networks()
    for name in ("vqvae", "transformer", "text_encoder"):
        assert _equal(dict(first[name].state_dict()), dict(second[name].state_dict()))


def test_both_stages_end_in_a_folder_that_loads(tmp_path):
    from vqlearn import VQDiffusionPipeline

    tiny.train(tmp_path, codec=CodecRecipe(steps=1, batch=1), denoiser=DenoiserRecipe(steps=1, batch=1), progress=False)
    pipe = VQDiffusionPipeline.from_pretrained(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    assert len(pipe("a red circle", num_inference_steps=1).images) == 1


def test_a_model_learns_on_with_its_own_codec(tmp_path, shipped):
    """From the shipped weights, after one step at a rate of next to nothing, they are still the shipped weights."""
    start = VQDiffusionPipeline.from_pretrained()
    recipe = DenoiserRecipe(steps=1, batch=2, learning_rate=1e-12)
    pipe = tiny.train(tmp_path, denoiser=recipe, start_from=start, progress=False)
    assert not (tmp_path / "codec").exists()
    for part in ("vqvae", "transformer", "text_encoder"):
        ours, theirs = (getattr(each, part).state_dict() for each in (pipe, shipped))
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], atol=1e-6, rtol=1e-3)


def test_wrong_recipe_is_named():
    with pytest.raises(ValueError, match="objective must be one of ideal, cross_entropy, bound, got 'mse'"):
        _denoiser(objective="mse")


def test_the_reader_asks_for_the_relation_at_the_right_noun():
    parts = tiny.networks()
    reader = RelationReader(parts["tokenizer"], 96)
    captions = [
        "a red circle left of a blue square and above a star",
        "a cross, a star and a circle",
        "a star under a cross",
    ]
    ids, _ = tokenize(parts["tokenizer"], captions)
    hidden = torch.zeros(3, 32, 96)
    with torch.no_grad():
        reader.head.weight.zero_()
        reader.head.weight[:, :4] = 50 * torch.eye(4)
    relations = list(scenes.RELATIONS)
    for row, noun, relation in ((0, "square", "left of"), (0, "star", "above"), (2, "cross", "below")):
        (column,) = (ids[row] == parts["tokenizer"](noun)["input_ids"][1]).nonzero()[:, 0].tolist()
        hidden[row, column, relations.index(relation)] = 1.0
    with torch.no_grad():
        assert float(reader(hidden, ids, captions)) < 1e-6
        assert float(reader(torch.zeros(3, 32, 96), ids, captions)) == pytest.approx(math.log(4))
        assert float(reader(hidden, ids[1:2], captions[1:2])) == 0
