"""The autoregressive rival: its distribution, its draws, its training, its pipeline and its commands."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from oracle import FALSE_ALARM, chi_square_p_value
from torch.utils.data import TensorDataset

from vqlearn import (
    AutoregressivePipeline,
    AutoregressiveTransformer,
    CheckpointError,
    MaskReplaceSchedule,
    VQDiffusionPipeline,
    VQModel,
    ancestral,
    scenes,
)
from vqlearn.__main__ import main
from vqlearn.autoregression import load_pipeline
from vqlearn.checkpoints.description import describe
from vqlearn.data import layouts
from vqlearn.evaluation.bound import pipeline_bound
from vqlearn.exactness import (
    ideal_conditionals,
    markov_chain,
    numbers,
    oracle,
    outcome,
    sequential_outcome,
    total_variation,
)
from vqlearn.exactness.enumeration import grids
from vqlearn.networks import cost
from vqlearn.training import AutoregressiveStage, DenoiserRecipe, fit, initialise, rival_networks

ORDERS = [None, [3, 2, 1, 0], [2, 0, 3, 1]]
TEXT = 6  # numbers per word of a text


def network(order=None, *, codes=3, positions=4, text=TEXT, seed=0, sharp=2.0):
    """A random network whose predictions are far from uniform, the more so the larger `sharp` is."""
    torch.manual_seed(seed)
    made = AutoregressiveTransformer(
        num_codes=codes, num_positions=positions, num_attention_heads=2, attention_head_dim=8, num_layers=2,
        cross_attention_dim=text, feed_forward_mult=2, order=order,
    ).double().eval()  # fmt: skip
    with torch.no_grad():
        made.out.weight.mul_(sharp)
    return made


def text(rows=1, seed=0):
    drawn = torch.randn(1, 5, TEXT, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.expand(rows, -1, -1)


def every(codes=3, length=4):
    return grids(codes, length)


# ------------------------------------------------------------------------------------------ the distribution


@pytest.mark.parametrize("order", ORDERS)
@torch.no_grad()
def test_all_probabilities_sum_to_one(order):
    x = every()
    for own, given in ((order, None), (None, order)):  # the network's order, or that of a call
        given = None if given is None else torch.tensor(given)
        log_p = network(own).log_prob(x, text(len(x)), order=given)
        assert log_p.dtype == torch.float64 and abs(float(log_p.exp().sum()) - 1) < 1e-12
        assert float(log_p.exp().max()) > 5 / len(x)  # far from uniform
    nothing = network(order, text=None)
    assert abs(float(nothing.log_prob(x).exp().sum()) - 1) < 1e-12


@pytest.mark.parametrize("order", ORDERS)
@torch.no_grad()
def test_a_prediction_depends_on_what_comes_before_it_and_on_nothing_else(order):
    net, x, condition = network(order), torch.tensor([[0, 1, 2, 0]]), text()
    positions = order or [0, 1, 2, 3]
    logits = net(x, condition)
    for place, position in enumerate(positions):
        changed = x.clone()
        changed[0, position] = (x[0, position] + 1) % 3
        moved = (net(changed, condition) - logits).abs().amax(-1)[0] > 1e-9  # [L]
        assert moved.tolist() == [positions.index(other) > place for other in range(4)]
    assert bool(((net(x, text(seed=1)) - logits).abs() > 1e-9).any(-1).all())


@torch.no_grad()
def test_an_order_per_row_is_that_order_of_each_row():
    net, x = network(), every()[:3]
    orders = torch.tensor([[0, 1, 2, 3], *ORDERS[1:]])
    apart = [net.log_prob(x[i, None], text(), order=orders[i]) for i in range(3)]
    assert torch.allclose(net.log_prob(x, text(3), order=orders), torch.cat(apart), rtol=0, atol=1e-12)


def test_the_gradient_of_training_is_that_of_the_fused_attention():
    """Under a gradient a CPU computes attention by hand; without one it does not."""
    net, x = network(), every()[:7]
    with_gradient = net(x, text(7))
    assert with_gradient.requires_grad
    with torch.no_grad():
        assert torch.allclose(net(x, text(7)), with_gradient, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------ draws

CHOICES = {
    "plain": {},
    "guided": {"guidance_scale": 2.5},
    "null": {"guidance_scale": 0.0},
    "cold": {"temperature": 0.5},
    "top_k": {"top_k": 2},
    "top_p": {"top_p": 0.7},
    "all": {"guidance_scale": 1.5, "temperature": 1.3, "top_k": 2, "top_p": 0.9},
}


def by_hand(net, x, place, choice, null):
    """log p of one place from the two unguided predictions of one pass, in numpy's plain words."""
    position = net.config.order[place] if net.config.order else place
    p, q = (net(x, one.expand(len(x), -1, -1))[:, position].softmax(-1) for one in (text(), null))
    scale = choice.get("guidance_scale", 1.0)
    p = (q * (p / q) ** scale) ** (1 / choice.get("temperature", 1.0))
    p = p / p.sum(-1, keepdim=True)
    for row in p:
        ranked, mass = row.argsort(descending=True), 0.0
        for rank, code in enumerate(ranked.tolist()):
            keep = (rank == 0 or mass < choice.get("top_p", 1.0)) and rank < choice.get("top_k", 3)
            mass += float(row[code])
            row[code] = row[code] if keep else 0.0
    return p / p.sum(-1, keepdim=True)


@pytest.mark.parametrize("order", [None, [2, 0, 3, 1]])
@pytest.mark.parametrize("choice", CHOICES)
@torch.no_grad()
def test_with_and_without_cache_the_predictions_are_those_by_hand(order, choice):
    net, x, null, chosen = network(order), every()[::7], text(seed=9), CHOICES[choice]
    given = {"condition": text(len(x)), "batch": len(x), "null": null.expand(len(x), -1, -1), **chosen}
    cached, uncached = net.predictor(**given), net.predictor(**given, cache=False)
    for place in range(4):
        expected = by_hand(net, x, place, chosen, null)
        for predict in (cached, uncached):
            assert torch.allclose(predict(x, place).softmax(-1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [None, list(range(63, -1, -1))])
def test_with_and_without_cache_the_tokens_are_equal(order, seeded):
    """In float32, where the two ways round differently: a draw of 8 x 64 tokens near no tie."""
    net = network(order, codes=50, positions=64).float()
    given = {"condition": text(8).float(), "batch": 8, "null": text(8, seed=9).float(), "guidance_scale": 1.5}
    cached = net.generate(**given, generator=seeded(3))
    assert torch.equal(net.generate(**given, cache=False, generator=seeded(3)), cached)
    assert len(cached.unique()) > 25 and not torch.equal(net.generate(**given, generator=seeded(4)), cached)


def test_with_a_generator_each_tokens_do_not_depend_on_the_batch(seeded):
    net = network(codes=20, positions=9)
    whole = net.generate(text(5), 5, generator=[seeded(i) for i in range(5)])
    first, rest = (net.generate(text(len(rows)), len(rows), generator=[seeded(i) for i in rows])
                   for rows in (range(2), range(2, 5)))  # fmt: skip
    assert torch.equal(torch.cat([first, rest]), whole)


def test_what_is_remembered_of_a_text_draws_the_same_tokens(seeded):
    net = network(codes=20, positions=9)
    drawn = net.generate(text(4), 4, generator=seeded(0))
    with torch.no_grad():
        assert torch.equal(net.generate(net.remember(text(4)), 4, generator=seeded(0)), drawn)


@pytest.mark.parametrize("order", [None, [2, 0, 3, 1]])
def test_frequencies_are_the_probabilities(order, seeded):
    """5000 rows, chi-square over all 81: a right distribution fails with probability 1e-6."""
    net, count = network(order), 5000
    drawn = net.generate(text(count), count, generator=seeded(1))
    with torch.no_grad():
        p = net.log_prob(every(), text(81)).exp()
    assert chi_square_p_value(numbers(drawn, 3), p) > FALSE_ALARM


def test_frequencies_under_guidance_and_truncation_are_the_enumerated_distribution(seeded):
    """As above; what is enumerated is the product of the predictions, normalised."""
    net, count, chosen = network(sharp=1.0), 5000, CHOICES["all"]
    drawn = net.generate(text(count), count, null=text(count, seed=9), generator=seeded(2), **chosen)
    with torch.no_grad():
        found = sequential_outcome(net.predictor(text(81), 81, null=text(81, seed=9), **chosen), 3, 4)
    assert abs(float(found.law.sum()) - 1) < 1e-12 and 0 < int((found.law == 0).sum()) < 70
    assert chi_square_p_value(numbers(drawn, 3), found.law) > FALSE_ALARM


# ------------------------------------------------------------------------------------------ exactness


@pytest.mark.parametrize("order", ORDERS)
def test_ideal_conditionals_give_the_joint_back(order):
    torch.manual_seed(0)
    holes = torch.rand(81, dtype=torch.float64) * (torch.rand(81) < 0.3)
    for joint in (markov_chain(3, 4, 0.9), markov_chain(3, 4, 1.0), holes / holes.sum()):
        found = sequential_outcome(ideal_conditionals(joint, 3, order), 3, 4, order)
        assert total_variation(found.law, joint) < 1e-14 and found.calls == 4


def test_diffusion_of_as_many_steps_is_not_exact_and_the_rival_is():
    joint, schedule = markov_chain(2, 4, 0.9), MaskReplaceSchedule.released(num_codes=2)
    diffusion = outcome(ancestral, oracle(joint, schedule), schedule, 4, [100, 75, 50, 25, 0])
    rival = sequential_outcome(ideal_conditionals(joint, 2), 2, 4)
    assert diffusion.calls == rival.calls and total_variation(diffusion.law, joint) > 0.01
    assert total_variation(rival.law, joint) < 1e-14


@torch.no_grad()
def test_the_enumerated_distribution_of_a_network_is_its_log_prob():
    net = network(ORDERS[2])
    for cache in (True, False):
        p = sequential_outcome(net.predictor(text(81), 81, cache=cache), 3, 4, ORDERS[2]).law
        assert torch.allclose(p.log(), net.log_prob(every(), text(81)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ideal_conditionals(markov_chain(2, 3, 0.9), 2, [0, 0, 1]), r"order must hold each of the 3 positions"),
        (lambda: sequential_outcome(lambda x, n: torch.zeros(8, 3), 2, 3), r"\[8, 2\] .* got \[8, 3\]"),
        (lambda: ideal_conditionals(markov_chain(2, 3, 0.9), 2)(torch.zeros(1, 4).long(), 0), "over 3 tokens, got 4"),
    ],
)
def test_what_cannot_be_enumerated_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------------------------------------ the network


def test_it_does_the_denoisers_work(shipped):
    """As many operations per token and layer; the weights that it lacks are the denoiser's tables of times."""
    denoiser, rival = shipped.transformer, rival_networks(words=["a"])["transformer"]
    assert cost.work(rival) == cost.work(denoiser) == 64 * 5_177_344
    tables = sum(p.numel() for name, p in denoiser.named_parameters() if ".norm1." in name or ".norm2." in name)
    assert (denoiser.num_parameters(), rival.num_parameters(), tables) == (3_331_456, 2_792_832, 549_888)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"order": [0, 1, 2]}, r"order must hold each of the 4 positions 0 ... 3 once, got \[0, 1, 2\]"),
        ({"order": [0, 1, 2, 2]}, "order must hold each of the 4 positions"),
        ({"order": 5}, "order must hold each of the 4 positions 0 ... 3 once, got 5"),
        ({"num_codes": 0}, "num_codes must be a whole number from 1"),
        ({"num_positions": 0}, "num_positions must be a whole number from 1"),
        ({"positions": "ring"}, "positions must be 'grid' or 'sequence', got 'ring'"),
        ({"feed_forward_mult": 0}, r"feed_forward_mult must be a number in \(0, 64\], got 0"),
    ],
)
def test_settings_that_are_wrong_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        AutoregressiveTransformer(**{"num_codes": 3, "num_positions": 4, **settings})
    with pytest.raises(TypeError, match="there is no setting 'sample_size'"):
        AutoregressiveTransformer(sample_size=8)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda net: net.log_prob(torch.zeros(1, 5).long(), text()), r"tokens must be int64 \[B, 4\]"),
        (lambda net: net.log_prob(torch.full((1, 4), 3), text()), r"tokens must lie in 0 ... 2"),
        (lambda net: net.log_prob(torch.zeros(1, 4), text()), r"tokens must be int64 \[B, 4\]"),
        (lambda net: net.generate(text(2), 3), r"condition must be a text \[batch, S, D\].* for 3 rows"),
        (lambda net: net.generate(None, 3), "condition must be a text"),
        (lambda net: net.generate(text(), 1, guidance_scale=2.0), "null must be a text"),
        (lambda net: net.generate(text(), 1, guidance_scale=0.0), "null must be a text"),
        (lambda net: net.generate(text(), 1, guidance_scale=-1.0), "guidance_scale must be a number in"),
        (lambda net: net.generate(text(), 0), "batch must be a whole number of at least 1, got 0"),
        (lambda net: net.generate(text(), 1, temperature=0.0), "temperature must be a finite number above 0, got 0.0"),
        (lambda net: net.generate(text(), 1, top_k=0), "top_k must be a whole number of at least 1, got 0"),
        (lambda net: net.generate(text(), 1, top_p=1.5), r"top_p must be a number in \[0, 1\], got 1.5"),
        (lambda net: net.generate(text(), 1, order=torch.tensor([0, 1, 2])), r"order must be int64 \[4\] or \[B, 4\]"),
        (lambda net: net.generate(text(), 1, order=torch.tensor([0, 1, 2, 2])), "order must hold each of the 4"),
        (lambda net: net.generate(text(2), 2, generator=[torch.Generator()]), "generator must be one or a list of 2"),
        (lambda net: net.predictor(text())(torch.zeros(1, 4).long(), 1), "come in turn: number 0 is next, got 1"),
        (lambda net: network(text=None).generate(text(), 1), "this network reads nothing: condition must be None"),
    ],
)
def test_calls_that_are_wrong_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(network())


def test_it_is_saved_with_its_order(tmp_path):
    net = network([2, 0, 3, 1]).float()
    net.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["order"] == [2, 0, 3, 1]
    again = AutoregressiveTransformer.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again.log_prob(every(), text(81).float()), net.log_prob(every(), text(81).float()))
    with pytest.raises(CheckpointError, match="describes a 'AutoregressiveTransformer', not a VQModel"):
        VQModel.from_pretrained(tmp_path)


# ------------------------------------------------------------------------------------------ the pipeline


@pytest.fixture
def rival(shipped):
    """The shipped model's codec and text, and a tiny network."""
    torch.manual_seed(0)
    tiny = AutoregressiveTransformer(
        num_codes=1024, num_positions=64, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=96
    ).eval()
    parts = {name: part for name, part in shipped.components.items() if name != "scheduler"}
    pipe = AutoregressivePipeline(**{**parts, "transformer": tiny})
    pipe.set_progress_bar_config(disable=True)
    return pipe


PROMPTS = ["a small red circle", "a blue square"]


def test_a_call_draws_what_the_network_draws(rival, seeded):
    call = {"guidance_scale": 2.0, "num_images_per_prompt": 2, "output_type": "latent"}
    drawn = rival(PROMPTS, generator=seeded(0), **call).images
    given = rival.encode_prompt(PROMPTS).repeat_interleave(2, 0)
    again = rival.transformer.generate(
        given, 4, null=rival.null_embeds().expand(4, -1, -1), guidance_scale=2.0, generator=seeded(0)
    )
    assert torch.equal(drawn, again) and drawn.shape == (4, 64)
    assert torch.equal(rival(PROMPTS, generator=seeded(0), cache=False, **call).images, drawn)
    pictures = rival(PROMPTS[0], generator=seeded(0)).images
    assert [picture.size for picture in pictures] == [(scenes.SIZE, scenes.SIZE)]
    assert rival(PROMPTS[0], top_k=1, output_type="pt", return_dict=False)[0].shape == (1, 3, 32, 32)


@pytest.mark.parametrize(("scale", "rows"), [(1.0, 3), (0.0, 3), (2.0, 2 * 3)])
@pytest.mark.parametrize(("cache", "times"), [(True, 1), (False, 65 / 2)])
def test_the_announced_cost_counts_the_rows_and_what_is_computed_again(rival, monkeypatch, scale, rows, cache, times):
    """Three pictures of 64 tokens; without a cache token i is computed 64 - i times, 65 / 2 on average."""
    seen = []
    monkeypatch.setattr("vqlearn.autoregression.cost.announce", lambda *given, instead: seen.append(given[1:]))
    rival("a star", num_images_per_prompt=3, guidance_scale=scale, cache=cache, output_type="latent")
    assert seen == [(64, rows * times)]


def test_numbers_that_are_not_given_are_the_models_own(rival, seeded):
    rival.defaults = {"guidance_scale": 1.5, "truncation_rate": 0.5}
    own = rival(PROMPTS, generator=seeded(0), output_type="latent").images
    assert torch.equal(rival(PROMPTS, 1.5, top_p=0.5, generator=seeded(0), output_type="latent").images, own)
    assert not torch.equal(rival(PROMPTS, 1.5, top_p=1.0, generator=seeded(0), output_type="latent").images, own)


def test_bits_are_the_log_probability_of_tokens_and_of_their_pictures(rival):
    image = scenes.to_tensor([scenes.draw(scenes.sample("test", i)[0]) for i in range(3)])
    tokens, prompts = rival.encode(image), [scenes.sample("test", i)[1] for i in range(3)]
    with torch.no_grad():
        nats = -rival.transformer.log_prob(tokens, rival.encode_prompt(prompts))
    bits = rival.bits(image, prompts)
    assert torch.allclose(bits, nats / math.log(2), rtol=1e-6) and torch.equal(rival.bits(tokens, prompts), bits)
    assert torch.equal(rival.bits(tokens[:1], prompts[0]), bits[:1]) and rival.bits(tokens, prompts[0]).shape == (3,)
    found = pipeline_bound(rival, list(zip(image, prompts, strict=True)), batch=2)
    assert math.isclose(found.bits_per_row, float(bits.mean()), rel_tol=1e-6) and found.samples == 3
    with pytest.raises(ValueError, match="times must be None for an autoregressive pipeline"):
        pipeline_bound(rival, list(zip(image, prompts, strict=True)), times=2)
    with pytest.raises(ValueError, match=r"prompt must be one or a list of 3 \(one per picture\), got 2"):
        rival.bits(tokens, prompts[:2])
    with pytest.raises(ValueError, match=r"images must be float \[B, 3, H, W\] or int64 \[B, 64\], got 'a'"):
        rival.bits("a", prompts)


@pytest.mark.parametrize(
    "call, message",
    [
        ({"guidance_scale": -1.0}, r"guidance_scale must be a number in \[0, 1000\], got -1.0"),
        ({"temperature": -1.0}, "temperature must be a finite number above 0"),
        ({"top_p": 2.0}, r"top_p must be a number in \[0, 1\]"),
        ({"output_type": "jpg"}, "output_type must be one of"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt must be"),
        ({"prompt": None}, "prompt must be a string"),
    ],
)
def test_arguments_of_a_call_that_are_wrong_are_named(rival, call, message):
    with pytest.raises(ValueError, match=message):
        rival(**{"prompt": PROMPTS, **call})


def test_a_model_of_nothing_needs_no_text(seeded):
    pipe = AutoregressivePipeline(None, None, None, network(text=None).float())
    pipe.set_progress_bar_config(disable=True)
    drawn = pipe(num_images_per_prompt=3, generator=seeded(0), output_type="latent").images
    assert torch.equal(drawn, pipe.transformer.generate(None, 3, generator=seeded(0)))
    assert pipe.bits(drawn).shape == (3,)


def test_a_folder_is_read_back_whole_and_each_kind_refuses_the_other(rival, tmp_path, seeded):
    rival.defaults = {"guidance_scale": 1.25, "words": ["a"]}
    rival.save_pretrained(tmp_path / "model")
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    assert index["_class_name"] == "AutoregressivePipeline" and "scheduler" not in index
    assert index["transformer"] == ["vqlearn", "AutoregressiveTransformer"]
    assert not (tmp_path / "model" / "scheduler").exists()
    again = load_pipeline(tmp_path / "model")
    assert isinstance(again, AutoregressivePipeline) and again.defaults == rival.defaults
    again.set_progress_bar_config(disable=True)
    one, two = (pipe("a", generator=seeded(0), output_type="latent").images for pipe in (rival, again))
    assert torch.equal(one, two)
    assert "autoregressive, one token after the other, row by row" in describe(again, tmp_path / "model")
    with pytest.raises(CheckpointError, match="describes a AutoregressivePipeline, not a VQDiffusionPipeline"):
        VQDiffusionPipeline.from_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match="describes a VQDiffusionPipeline, not a AutoregressivePipeline"):
        AutoregressivePipeline.from_pretrained("scenes")
    (tmp_path / "model" / "transformer" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_pipeline(tmp_path / "model")


def test_a_codec_in_half_precision_gives_the_same_tokens(shipped):
    """As the rival's folder holds it, to stay below 8 MB: every patch of the toy world keeps its token."""
    codec = copy.deepcopy(shipped.vqvae).half().float()
    own, halved = (layouts.code_table(one.encode) for one in (shipped.vqvae, codec))
    assert all(torch.equal(a, b) for a, b in zip(own, halved, strict=True))


def test_parts_of_different_models_are_refused(rival, shipped):
    with pytest.raises(ValueError, match="transformer must be a AutoregressiveTransformer, got Transformer2DModel"):
        AutoregressivePipeline(**{**rival.components, "transformer": shipped.transformer})
    with pytest.raises(ValueError, match="codes of the transformer and of the codec differ: 2000 and 1024"):
        AutoregressivePipeline(**{**rival.components, "transformer": network(codes=2000, text=96)})


# ------------------------------------------------------------------------------------------ training


def chain_pipeline(order=None):
    net = network(order, codes=3, positions=4, text=None).float()
    initialise(net)
    return AutoregressivePipeline(None, None, None, net)


def rows_of(joint, count=4000):
    drawn = torch.multinomial(joint, count, replacement=True, generator=torch.Generator().manual_seed(0))
    return TensorDataset(every()[drawn], torch.zeros(count))


@pytest.mark.parametrize("order", [None, [2, 0, 3, 1]])
def test_it_learns_a_joint(order):
    """A chain that keeps its code with probability 0.9: its entropy is 0.56 of the uniform distribution's."""
    joint = markov_chain(3, 4, 0.9)
    recipe = DenoiserRecipe(steps=100, batch=64, learning_rate=1e-2, ema=0.9)
    stage = AutoregressiveStage(chain_pipeline(order), rows_of(joint), recipe)
    losses = [stage.step(number)["loss"] for number in range(100)]
    entropy = float(-(joint * joint.log()).sum())
    pipe = stage.averaged()
    with torch.no_grad():
        log_p = pipe.transformer.log_prob(every()).double()
    assert losses[0] > 1.0 and float((joint * (joint.log() - log_p)).sum()) < 0.1 * entropy
    assert 0 <= float(pipe.bits(every()) @ joint.float()) * math.log(2) - entropy < 0.1 * entropy


def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    recipe = DenoiserRecipe(steps=5, batch=4)

    def stage(**more):
        return AutoregressiveStage(chain_pipeline(), rows_of(markov_chain(3, 4, 0.9), 20), replace(recipe, **more))

    fit(stage(), tmp_path / "whole", save_every=2, progress=False)
    fragile = stage()
    step = fragile.step
    fragile.step = lambda number: step(number) if number < 3 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        fit(fragile, tmp_path / "parts", save_every=2, progress=False)
    fit(stage(), tmp_path / "parts", save_every=2, progress=False)
    whole, parts = (torch.load(tmp_path / name / "checkpoint.pt") for name in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 5 and whole["recipe"]["objective"] == "TeacherForcing"
    for kind in ("model", "average"):
        assert all(torch.equal(value, parts["state"][kind][name]) for name, value in whole["state"][kind].items())
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("whole", "parts")]
    assert logs[0] == logs[1] and logs[0][0] == "step,loss,gradient" and len(logs[0]) == 6
    with pytest.raises(ValueError, match="was made with batch = 4, now it is 5"):
        fit(stage(batch=5), tmp_path / "whole", progress=False)


def test_an_objective_may_draw_an_order_for_every_row():
    """The network knows its place from the vectors of positions; learned in rows it is 1 nat off in the last order."""

    def any_order(batch, network):
        order = torch.rand(batch.x_0.shape, generator=batch.generator).argsort(-1)
        return torch.nn.functional.cross_entropy(network(batch.x_0, order).mT, batch.x_0), {}

    recipe = DenoiserRecipe(steps=150, batch=64, learning_rate=1e-2, ema=0.9)
    stage = AutoregressiveStage(chain_pipeline(), rows_of(markov_chain(3, 4, 0.9)), recipe, any_order)
    for number in range(150):
        stage.step(number)
    net, joint = stage.averaged().transformer, markov_chain(3, 4, 0.9)
    for order in ([0, 1, 2, 3], *ORDERS[1:]):
        with torch.no_grad():
            log_p = net.log_prob(every(), order=torch.tensor(order)).double()
        assert float((joint * (joint.log() - log_p)).sum()) < 0.4


def test_rows_that_do_not_fit_are_named():
    stage = AutoregressiveStage(chain_pipeline(), TensorDataset(torch.full((4, 4), 3), torch.zeros(4)))
    with pytest.raises(ValueError, match=r"must hold tokens in 0 ... 2"):
        stage.step(0)
    with pytest.raises(TypeError, match="pipe must be a AutoregressivePipeline"):
        AutoregressiveStage(object(), TensorDataset(torch.zeros(4, 4).long(), torch.zeros(4)))


# ------------------------------------------------------------------------------------------ the shipped one


def test_the_shipped_rival_draws_what_is_asked_for(capsys, tmp_path, seeded):
    pipe = AutoregressivePipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    captions = ["a small pink star", "a large red circle", "a small blue square", "a large green cross"] * 4
    images = pipe(captions, generator=seeded(0)).images
    assert sum(scenes.agreement(image, text).all for image, text in zip(images, captions, strict=True)) >= 14
    assert pipe.defaults["guidance_scale"] == 1  # guidance and top-p move objects up and down, see its card
    assert main(["generate", "a small star", "--model", "ar-scenes", "--out", str(tmp_path / "star.png")]) == 0
    assert "as asked" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ the commands


def test_it_is_trained_drawn_measured_and_described_by_commands(tmp_path, capsys, monkeypatch):
    from vqlearn.evaluation import agreement

    real = agreement.evaluate
    monkeypatch.setattr(agreement, "evaluate", lambda pipe, **call: real(pipe, **{**call, "count": 2}))
    out, picture = tmp_path / "run", tmp_path / "x.png"
    command = ["train", "--autoregressive", "--out", str(out), "--start-from", "shipped", "--steps", "2"]
    assert main(command) == 0
    assert "of 200 held-out captions all right\n" in capsys.readouterr().out
    assert {path.name for path in (out / "autoregressive").iterdir()} == {"checkpoint.pt", "log.csv", "loss.png"}
    head = (out / "autoregressive" / "log.csv").read_text().splitlines()[0]
    assert head == "step,loss,relation,gradient" and not (out / "codec").exists()
    model = ["--model", str(out / "model")]
    assert sum(path.stat().st_size for path in (out / "model").rglob("*.safetensors")) < 8e6
    assert main(["generate", "a", "star", *model, "--out", str(picture)]) == 0 and picture.exists()
    assert main(["info", str(out / "model")]) == 0
    assert "autoregressive, one token after the other" in capsys.readouterr().out
    assert main(["evaluate", *model, "--count", "2", "--guidance", "2", "--truncation", "0.9"]) == 0
    rows = [line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert rows == [["| steps", "guidance"], ["| 64", "2"]]
    for wrong, message in (
        (["generate", "a", "star", *model, "--steps", "5"], "--steps is for diffusion models"),
        (["evaluate", *model, "--sampler", "purity"], "--sampler is for diffusion models"),
        (
            ["train", "--out", str(tmp_path / "y"), "--start-from", model[1]],
            "is autoregressive: it learns on",
        ),
        ([*command[:-2], "--objective", "ideal"], "--objective is the denoiser's"),
    ):
        assert main(wrong) == 2 and message in capsys.readouterr().err
