import csv
import functools
import math

import pytest
import torch
import torch.nn.functional as F

from vqlearn import (
    AutoregressivePipeline,
    AutoregressiveTransformer,
    LearnedClassifierFreeSamplingEmbeddings,
    MaskReplaceSchedule,
    Transformer2DModel,
    VQDiffusionPipeline,
    VQDiffusionScheduler,
    VQModel,
    scenes,
)
from vqlearn.data import layouts
from vqlearn.exactness.ideal import ideal_denoiser
from vqlearn.networks.text import clip_tokenizer, tokenize, word_merges
from vqlearn.training import (
    CodecRecipe,
    CodecStage,
    SceneRecipe,
    WorldRecipe,
    autoregressive_scene_stage,
    fit,
    initialise,
    learning_rate,
    scene_stage,
)
from vqlearn.training.objectives import Batch, Conditions, low_variance_times, soft_cross_entropy
from vqlearn.training.relations import RelationTask
from vqlearn.training.scenes import ScenePictures
from vqlearn.training.shipped import networks, train


@functools.cache
def tokenizer():
    return clip_tokenizer(word_merges((*scenes.VOCABULARY, ",")), max_length=32)


def small(seed=0):
    """A pipeline of the toy world in sizes at which an update takes milliseconds: 32 codes, one layer of width 16."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = VQModel(
            down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
            block_out_channels=(4, 4, 8), latent_channels=8, num_vq_embeddings=32, norm_num_groups=2, vq_embed_dim=4,
            mid_block_add_attention=False, encoder_context="patch",
        )  # fmt: skip
        transformer = Transformer2DModel(2, 8, 1, 16, 33, 8, feed_forward="convolution", feed_forward_mult=1)
        text_encoder = CLIPTextModel(CLIPTextConfig(
            vocab_size=len(tokenizer()), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=32, bos_token_id=tokenizer().bos_token_id,
            eos_token_id=tokenizer().eos_token_id, pad_token_id=tokenizer().pad_token_id,
        ))  # fmt: skip
        null_text = LearnedClassifierFreeSamplingEmbeddings(True, 16, 32)
        torch.nn.init.normal_(null_text.embeddings)
        with torch.no_grad():  # codes that stand for something: some patches of pictures
            drawn = layouts.draw("train", 32, generator=torch.Generator().manual_seed(seed))
            patches = codec.latents(layouts.pictures(drawn)).permute(0, 2, 3, 1).flatten(0, 2).unique(dim=0)
            codec.quantize.embedding.weight.copy_(patches[torch.linspace(0, len(patches) - 1, 32).long()])
    initialise(transformer, codec)
    scheduler = VQDiffusionScheduler(33, gamma_cum_end=0.9)
    return VQDiffusionPipeline(codec, text_encoder, tokenizer(), transformer, scheduler, null_text)


def _codec(steps=6, **recipe):
    return CodecStage(small().vqvae, ScenePictures(), CodecRecipe(**{"steps": steps, "batch": 2, **recipe}))


def _denoiser(steps=6, *, dtype=None, **recipe):
    """A stage on trajectories of its own from the third update on."""
    return scene_stage(small(), SceneRecipe(steps=steps, **{"batch": 2, "own_from": 2, **recipe}), dtype=dtype)


def _rival(steps=6):
    """The autoregressive rival's stage, on the same codec and text."""
    parts = {name: part for name, part in small().components.items() if name != "scheduler"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoregressiveTransformer(32, 64, 2, 8, 1, 16)
    initialise(network, parts["vqvae"])
    pipe = AutoregressivePipeline(**{**parts, "transformer": network})
    return autoregressive_scene_stage(pipe, WorldRecipe(steps=steps, batch=2))


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
    "continuous": lambda steps=6: _denoiser(steps, objective="continuous"),
    "autoregressive": _rival,
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


def test_a_gradient_that_is_not_finite_changes_nothing(monkeypatch):
    stage = _codec()
    before = {name: value.clone() for name, value in stage.codec.state_dict().items()}
    monkeypatch.setattr(F, "mse_loss", lambda a, b: (a - b).pow(2).mean() * math.inf)
    with pytest.raises(FloatingPointError, match=r"the loss of step 1 is (inf|nan), its gradient's norm nan"):
        stage.step(0)
    assert all(torch.equal(value, before[name]) for name, value in stage.codec.state_dict().items())


@pytest.mark.parametrize("make", [_codec, functools.partial(_denoiser, own_from=1000, learning_rate=1e-2)])
def test_the_loss_falls(make):
    """One batch over and over, at the full rate of learning."""
    stage = make(steps=2000, batch=4)
    losses = [stage.step(199)["loss"] for _ in range(10)]
    assert losses[-1] < 0.7 * losses[0] and losses[-1] < losses[5] < losses[0]


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
    value, mean = (next(model.parameters()) for model in (stage.model, stage.average.module))
    assert not torch.equal(mean, value)
    assert stage.averaged() is stage.pipe and torch.equal(value, mean)
    assert not stage.pipe.transformer.training


def test_the_average_forgets_the_start_faster():
    """1/10 of the start is kept in the first update, 2/11 in the second, and from then on what the recipe says."""
    stage = _denoiser(ema=0.2)
    value, mean = (next(model.parameters()) for model in (stage.model, stage.average.module))
    expected = value.detach().double().clone()
    for number, kept in enumerate((1 / 10, 2 / 11, 0.2, 0.2)):
        stage.step(number)
        expected = kept * expected + (1 - kept) * value.detach().double()
    torch.testing.assert_close(mean, expected.float())


# The first losses of the shipped sizes, as they were when the data and the objective were still part of the stage.
RECORDED = {
    "codec": {
        "loss": [1.46939, 1.31158, 0.983953, 1.61782, 1.27951],
        "commitment": [0.0130557, 8.37467e-05, 6.155e-06, 3.84377e-06, 5.80986e-06],
    },
    "ideal": {
        "loss": [6.82814, 6.89026, 6.78708, 6.69693, 6.66324],
        "relation": [2.59444, 1.80034, 1.62479, 1.2473, 1.2039],
        "gradient": [14.6445, 9.98494, 10.8509, 9.28392, 10.6178],
    },
    "cross_entropy": {
        "loss": [6.82949, 6.8946, 6.86166, 6.62543, 6.59319],
        "relation": [2.59444, 1.80034, 2.31631, 1.36553, 1.54659],
        "gradient": [14.6384, 9.98422, 9.77223, 8.60365, 7.66987],
    },
    "bound": {
        "loss": [11.2504, 10.2835, 8.7799, 11.6001, 166.822],
        "relation": [2.59444, 1.80032, 2.3164, 1.36681, 1.54556],
        "gradient": [14.4096, 9.36312, 9.19749, 9.41512, 151.215],
    },
}


@pytest.mark.parametrize("name", RECORDED)
def test_the_first_updates_are_those_that_were_recorded(name):
    """What is drawn for which update, and every detail of an update, decide these numbers."""
    pipe = VQDiffusionPipeline(**networks())
    if name == "codec":
        stage = CodecStage(pipe.vqvae, ScenePictures(), CodecRecipe(steps=8, batch=4))
    else:
        pipe.transformer.transformer_blocks = pipe.transformer.transformer_blocks[:1]
        initialise(pipe.transformer, pipe.vqvae)
        stage = scene_stage(pipe, SceneRecipe(steps=8, batch=8, own_from=2, objective=name))
    found = [stage.step(number) for number in range(8)]
    for column in RECORDED[name]:
        ours = [found[number][column] for number in (0, 1, 2, 5, 7)]
        assert ours == pytest.approx(RECORDED[name][column], rel=2e-3)


def test_learning_rate_warms_up_stays_and_falls_to_zero():
    rates = [learning_rate(step, 1000, warmup=100, decay=0.3) for step in (0, 99, 500, 700, 850, 1000)]
    assert rates == pytest.approx([0.01, 1.0, 1.0, 1.0, 0.5, 0.0])


def test_networks_are_the_same_for_the_same_seed():
    first, second = networks(), networks()
    for name in ("vqvae", "transformer", "text_encoder"):
        assert _equal(dict(first[name].state_dict()), dict(second[name].state_dict()))


def test_both_stages_end_in_a_folder_that_loads(tmp_path):
    train(tmp_path, codec=CodecRecipe(steps=1, batch=1), denoiser=SceneRecipe(steps=1, batch=1), progress=False)
    pipe = VQDiffusionPipeline.from_pretrained(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    assert len(pipe("a red circle", num_inference_steps=1).images) == 1


def test_a_model_learns_on_with_its_own_codec(tmp_path, shipped):
    """From the shipped weights, after one step at a rate of next to nothing, they are still the shipped weights."""
    start = VQDiffusionPipeline.from_pretrained()
    recipe = SceneRecipe(steps=1, batch=2, learning_rate=1e-12)
    pipe = train(tmp_path, denoiser=recipe, start_from=start, progress=False)
    assert not (tmp_path / "codec").exists()
    for part in ("vqvae", "transformer", "text_encoder"):
        ours, theirs = (getattr(each, part).state_dict() for each in (pipe, shipped))
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], atol=1e-6, rtol=1e-3)


def test_wrong_recipe_is_named():
    with pytest.raises(ValueError, match="objective must be one of ideal, cross_entropy, bound, continuous, got 'mse'"):
        _denoiser(objective="mse")


def test_the_task_asks_for_the_relation_at_the_right_noun():
    task, same = (RelationTask(layouts.text_table(tokenizer()), 96, **seed) for seed in ({}, {"seed": 0}))
    assert torch.equal(task.head.weight, same.head.weight)
    assert {*task.state_dict()} == {"head.weight", "head.bias"}, "what is no weight is not kept with a model"
    captions = [
        "a red circle left of a blue square and above a star",
        "a cross, a star and a circle",
        "a star under a cross",
    ]
    ids, claims = tokenize(tokenizer(), captions)[0], layouts.claims_of([scenes.parse(c) for c in captions])
    hidden = torch.zeros(3, 32, 96)
    with torch.no_grad():
        task.head.weight.zero_()
        task.head.weight[:, :4] = 50 * torch.eye(4)
    relations = list(scenes.RELATIONS)
    for row, noun, relation in ((0, "square", "left of"), (0, "star", "above"), (2, "cross", "below")):
        (column,) = (ids[row] == tokenizer()(noun)["input_ids"][1]).nonzero()[:, 0].tolist()
        hidden[row, column, relations.index(relation)] = 1.0
    with torch.no_grad():
        some = Conditions(ids, torch.zeros(3, dtype=torch.bool), claims)
        assert float(task(hidden, some)) < 1e-6
        assert float(task(torch.zeros(3, 32, 96), some)) == pytest.approx(math.log(4))
        one = layouts.Claims(*(part[1:2] for part in claims))
        assert float(task(hidden, Conditions(ids[1:2], some.is_null[:1], one))) == 0


# ------------------------------------------------------------------------------- one update, by independent code


def test_soft_cross_entropy_and_its_gradient():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 7, generator=generator, requires_grad=True)
    target = torch.rand(3, 4, 7, generator=generator).softmax(-1)
    expected = -(target * logits.log_softmax(-1)).sum(-1).mean()
    found = soft_cross_entropy(logits, target)
    torch.testing.assert_close(found, expected)
    (ours,), (theirs,) = (torch.autograd.grad(3 * loss, logits, retain_graph=True) for loss in (found, expected))
    torch.testing.assert_close(ours, theirs)


def _loss_by_hand(stage, x_0, noisy, times, is_null, captions):
    """The loss of a batch, row by row: the ideal prediction or the drawn tokens, and the text encoder's task."""
    model, codes, total, asked = stage.model, stage.objective.codes, 0.0, []
    for row, caption in enumerate(captions):
        ids = tokenize(tokenizer(), [caption])[0]
        hidden = model.text_encoder(ids)[0]
        hidden = hidden / hidden.pow(2).sum(-1, keepdim=True).sqrt()
        text = model.null_text.embeddings[None] if is_null[row] else hidden
        x_t, t = noisy[row : row + 1], int(times[row])
        log_p = model.transformer(x_t, text, torch.tensor(t - 1)).log_softmax(-1)  # networks count times from 0
        if is_null[row]:
            total = total - log_p[0].gather(-1, x_0[row][:, None]).mean() / len(captions)
        else:
            ideal = ideal_denoiser([caption], codes, stage.schedule, split="train")(x_t, t).exp()
            total = total - (ideal.float() * log_p).sum(-1).mean() / len(captions)
        nouns = [n for n, word in enumerate(ids[0].tolist()) if word in model.task.shapes.tolist()]
        for _, relation, number in scenes.parse(caption).relations:
            logits = model.task.head(hidden[0, nouns[number]] * math.sqrt(hidden.shape[-1]))
            asked.append(logits.log_softmax(-1)[list(scenes.RELATIONS).index(relation)])
    return total, -sum(asked) / max(1, len(asked))


@pytest.mark.parametrize("number", [0, 3])
def test_one_update_is_what_independent_code_makes_of_it(number):
    """Loss, gradient, AdamW with its two rates and the moving average, written out."""
    recipe = {"batch": 6, "own_from": 3, "null_share": 0.4, "relation_weight": 0.7, "clip": 0.01, "weight_decay": 1e3}
    stage, twin = _denoiser(**recipe), _denoiser(**recipe)
    batch = stage._batch(number)
    x_t, t, conditions = stage.objective.noised(batch)
    captions = _captions(conditions.values)
    loss, relation = _loss_by_hand(twin, batch.x_0, x_t, t, conditions.is_null, captions)
    assert conditions.is_null.any() and conditions.notes.relation.any()
    named = dict(twin.model.named_parameters())
    gradients = torch.autograd.grad(loss + 0.7 * relation, list(named.values()), allow_unused=True)
    gradients = [g if g is not None else torch.zeros_like(p) for g, p in zip(gradients, named.values(), strict=True)]
    norm = math.sqrt(sum(float(g.double().pow(2).sum()) for g in gradients))
    expected = {"loss": float(loss.detach()), "relation": float(relation.detach()), "gradient": norm}
    assert stage.step(number) == pytest.approx(expected, rel=2e-4, abs=1e-6)
    kept = 1 / 10  # the first update of this stage
    ours, means = (dict(model.named_parameters()) for model in (stage.model, stage.average.module))
    for (name, before), gradient in zip(named.items(), gradients, strict=True):
        gradient = gradient * min(1.0, 0.01 / norm)
        reads_text = name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
        rate = 1e-3 * (number + 1) / 200 * (math.sqrt(16) if reads_text else 1.0)  # 200 updates warm up
        moved = before * (1 - rate * 1e3) - rate * gradient / (gradient.abs() + 1e-8)  # Adam's first step
        large = gradient.abs() > 1e-6  # where the sign of the gradient is not rounding
        torch.testing.assert_close(ours[name][large], moved[large], rtol=1e-3, atol=1e-6)
        mean = kept * before + (1 - kept) * ours[name]
        torch.testing.assert_close(means[name], mean.detach(), rtol=1e-5, atol=1e-7)


def _captions(ids):
    """Captions of token ids, by the tokenizer's own decoder."""
    one = tokenizer()
    rows = [[i for i in row if i not in (one.bos_token_id, one.eos_token_id, 0)] for row in ids.tolist()]
    return [one.decode(row).replace(" ,", ",").strip() for row in rows]


def test_the_target_leaves_out_what_is_held_out():
    """Where a caption leaves the sizes of two objects unsaid, their held-out pairs are no part of what is learned."""
    stage = _denoiser()
    captions = [
        f"a red {a} left of a blue {b}" for a in ("cross", "circle", "star") for b in ("cross", "square", "star")
    ]
    claims = [scenes.parse(caption) for caption in captions]
    x_t = torch.full((len(captions), 64), stage.schedule.mask_id)
    t, nobody = torch.full((len(captions),), 100), torch.zeros(len(captions), dtype=torch.bool)
    batch = Batch(0, x_t, None, None, stage.schedule, torch.Generator(), 0.0)
    found = stage.objective.target(batch, x_t, t, Conditions(None, nobody, layouts.claims_of(claims)))
    for split, same in (("train", True), (None, False)):
        expected = ideal_denoiser(captions, stage.objective.codes, stage.schedule, split=split)(x_t, 100).exp().float()
        assert torch.allclose(found, expected, atol=1e-6) == same


def test_only_the_training_split_is_learned_from_and_objects_come_in_the_recipes_shares():
    stage = _denoiser(batch=1200, counts=(0.2, 0.3, 0.5), own_from=1, own_share=0.2)
    batch, own = stage._batch(0), stage.objective.own
    for row in range(20):
        own.advance(torch.zeros(len(own.x_t), 64, 32), torch.Generator().manual_seed(row))
    claims = [scenes.parse(caption) for caption in _captions(torch.cat([batch.condition, own.ids]))]
    assert not any(map(scenes.held_out, claims))
    assert sum(scenes.held_out(scenes.parse(scenes.sample("test", i)[1])) for i in range(100)) > 40
    for number, share in zip((1, 2, 3), (0.2, 0.3, 0.5), strict=True):
        found = sum(len(claim.objects) == number for claim in claims[:1200]) / 1200
        assert abs(found - share) < 6 * (share * (1 - share) / 1200) ** 0.5


def test_pictures_to_learn_from_are_training_scenes(monkeypatch):
    asked = []
    draw = layouts.draw
    monkeypatch.setattr(layouts, "draw", lambda split, *a, **k: asked.append(split) or draw(split, *a, **k))
    _codec().step(0)
    stage = _denoiser()
    for number in range(4):
        stage.step(number)
    assert set(asked) == {"train"}


def test_times_are_drawn_as_the_recipe_says():
    """A third uniform, the rest with P(t <= u T) = u^power: one from each of equal shares, so exact to 1 / count."""
    clean, generator = torch.zeros(3000, 1, dtype=torch.int64), torch.Generator().manual_seed(0)
    batch = Batch(0, clean, None, None, MaskReplaceSchedule.paper(4), generator, 0.0)
    t = low_variance_times(batch, 1 / 3, 3.0)
    assert t.min() >= 1 and t.max() == 100
    for u in (0.1, 0.3, 0.5, 0.8, 0.95):
        assert abs(float((t <= 100 * u).double().mean()) - (u / 3 + 2 * u**3 / 3)) < 2 / 1000


def test_the_share_of_null_texts():
    clean, generator = torch.zeros(2000, 1, dtype=torch.int64), torch.Generator().manual_seed(0)
    batch = Batch(0, clean, None, None, MaskReplaceSchedule.paper(4), generator, 0.25)
    assert abs(float(batch.conditions().is_null.double().mean()) - 0.25) < 6 * (0.25 * 0.75 / 2000) ** 0.5


def test_another_seed_draws_another_run():
    first, again, other = (_denoiser(seed=seed, batch=4) for seed in (0, 0, 1))
    a, b, c = (stage.step(0) for stage in (first, again, other))
    assert a == b and a["loss"] != c["loss"]


def test_half_precision_gives_nearly_the_same_gradient():
    """The networks compute in bfloat16, of which three digits are right; the weights themselves stay float32."""
    norms, directions = [], []
    for dtype in (None, torch.bfloat16):
        stage = _denoiser(batch=8, dtype=dtype)
        norms.append(stage.step(0)["gradient"])
        directions.append(torch.cat([p.grad.flatten() for p in stage.model.parameters() if p.grad is not None]))
        assert all(p.dtype == torch.float32 for p in stage.model.parameters())
    assert norms[0] == pytest.approx(norms[1], rel=0.05)
    assert float(torch.cosine_similarity(*directions, dim=0)) > 0.99
