"""What a GPU must do as a CPU does: the mathematics, every sampler, the pipeline. Skipped where there is no GPU.

`python -m tests.gpu` runs these tests on one, and `python -m tests.gpu --rehearse` on a CPU in its place, by
VQLEARN_TEST_DEVICE=cpu. What a test measures it states with `record_property`.
"""

import functools
import os
import warnings

import pytest
import torch
from oracle import FALSE_ALARM, chi_square_p_value, random_prediction
from shallow import first_layers
from torch import Generator
from torch.testing import assert_close

from tests.gpu.probe import peak_bytes, waits_per_step
from vqlearn import (
    AutoregressiveTransformer,
    MaskReplaceSchedule,
    VQDiffusionPipeline,
    draws,
    guidance,
)
from vqlearn import transition as q
from vqlearn.exactness.enumeration import markov_chain, numbers, oracle, outcome
from vqlearn.guidance import truncate
from vqlearn.networks import cost
from vqlearn.networks.codebook import Codebook, CodebookEMA
from vqlearn.samplers import SAMPLERS
from vqlearn.sampling import prior_sample

pytestmark = pytest.mark.cuda
PROMPT = "a large red circle left of a small blue square"
DTYPES = [torch.float64, torch.float32]
# Total variation from float64, on average over the positions; a GPU's float32 convolutions round as TF32 does
APART = {torch.float32: 2e-3, torch.bfloat16: 6e-2, torch.float16: 1e-2}
SCHEDULES = {
    "paper": MaskReplaceSchedule.paper(3, 8),
    "released": MaskReplaceSchedule.released(3, 8),
    "masks": MaskReplaceSchedule(1 - torch.arange(9).double() / 8, torch.arange(9).double() / 8, num_codes=3),
}
JUMPS = [(8, 7), (8, 0), (5, 2), (1, 0)]  # (t, s)


@pytest.fixture(scope="module")
def device():
    """The device in question."""
    name = os.environ.get("VQLEARN_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here; python -m tests.gpu --rehearse runs this on the CPU")
    return torch.device(name)


@pytest.fixture
def on_device(device):
    """A fresh generator on the device: `on_device(7)`."""
    return lambda seed: Generator(device).manual_seed(seed)


@pytest.fixture(scope="module")
def pipes(device):
    """The shipped pipeline on the device in a dtype: `pipes(torch.float16)`. A rehearsal's has two layers."""

    @functools.cache
    def get(dtype=torch.float64, where=device):
        pipe = VQDiffusionPipeline.from_pretrained(torch_dtype=dtype, device=where)
        return quiet(pipe if device.type == "cuda" else with_two_layers(pipe))

    return get


def with_two_layers(pipe):
    """The same pipeline, but of its network the first two layers only."""
    return VQDiffusionPipeline(**pipe.components | {"transformer": first_layers(pipe.transformer)})


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, generator, **call):
    """Tokens, on the CPU, of two pictures where no prompts are given."""
    call = {"num_inference_steps": 3, "guidance_scale": 2.0, "truncation_rate": 0.8, "output_type": "latent", **call}
    return pipe(call.pop("prompt", [PROMPT, "a small star"]), generator=generator, **call).images.cpu()


# ------------------------------------------------------------------------------------------ the mathematics


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_posterior_is_that_of_float64_on_the_cpu(device, name, dtype):
    schedule, log_p = SCHEDULES[name], random_prediction(50, 4, 3, seed=1)
    x_t = torch.randint(4, (50, 4), generator=Generator().manual_seed(2))
    for t, s in JUMPS:
        expected = q.q_posterior(log_p, x_t, t, schedule, s=s).exp()
        found = q.q_posterior(log_p.to(device, dtype), x_t.to(device), t, schedule, s=s)
        assert found.device.type == device.type and found.dtype == dtype
        assert_close(found.exp().double().cpu(), expected, atol=10 * torch.finfo(dtype).eps, rtol=0)


@pytest.mark.parametrize("function", [q.q_log_probs, q.q_likelihood])
def test_the_forward_process_is_that_of_the_cpu(device, function):
    schedule, x = SCHEDULES["paper"], torch.randint(3, (50, 4), generator=Generator().manual_seed(2))
    t = torch.arange(50) % 8 + 1  # a time per row
    expected = function(x, t, schedule, dtype=torch.float64).exp()
    for where in (schedule, schedule.to(device)):  # its curves may stay behind or come along
        found = function(x.to(device), t.to(device), where, dtype=torch.float64).exp()
        assert_close(found.cpu(), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_draws_have_their_distribution(device, name, on_device):
    """20 000 each, chi-square: a right distribution fails with probability 1e-6."""
    schedule, generator, log_p = SCHEDULES[name], on_device(0), random_prediction(1, 1, 3, seed=3)
    many, of_code = log_p.to(device).expand(20_000, 1, 3), torch.full((20_000, 1), 1, device=device)
    of_mask = torch.full_like(of_code, schedule.mask_id)
    pairs = [(draws.draw(many, generator), log_p)]
    pairs += [(q.q_sample(of_code, 5, schedule, generator=generator), q.q_log_probs(of_code[:1].cpu(), 5, schedule))]
    for x_t in (of_code, of_mask):
        x_s = q.p_sample_step(many, x_t, 5, schedule, s=2, generator=generator)
        pairs.append((x_s, q.q_posterior(log_p, x_t[:1].cpu(), 5, schedule, s=2)))
    for drawn, expected in pairs:
        assert drawn.device.type == device.type
        assert chi_square_p_value(drawn.cpu(), expected[0, 0].exp()) > FALSE_ALARM


@pytest.mark.parametrize("listed", [False, True])
def test_a_generator_on_the_cpu_draws_the_same_everywhere(device, listed, seeded):
    schedule, log_p = SCHEDULES["paper"], random_prediction(6, 40, 3, seed=4)
    x_0 = torch.randint(3, (6, 40), generator=seeded(5))
    drawn = []
    for where in (torch.device("cpu"), device):
        one = [seeded(i) for i in range(6)] if listed else seeded(6)
        x_T = prior_sample(schedule, 6, 40, generator=one, device=where)
        x_t = q.q_sample(x_0.to(where), 5, schedule, generator=one)
        x_s = q.p_sample_step(log_p.to(where), x_t, 5, schedule, s=1, generator=one)
        drawn.append([x.cpu() for x in (x_T, x_t, x_s, draws.draw(log_p.to(where), one))])
    assert all(torch.equal(a, b) for a, b in zip(*drawn, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", [0.0, 0.5, 0.86, 1.0])
def test_truncation_keeps_the_same_classes(device, dtype, rate):
    log_p = random_prediction(2, 30, 500, seed=6, dtype=dtype)
    found = truncate(log_p.to(device), rate).cpu()
    edge = (
        truncate(log_p, rate - 1e-6 if rate else 0),
        truncate(log_p, min(1, rate + 1e-6)),
    )  # rounding decides between
    assert torch.equal(torch.where(found > -torch.inf, found, log_p), log_p)
    assert bool(((found > -torch.inf) >= (edge[0] > -torch.inf)).all())
    assert bool(((found > -torch.inf) <= (edge[1] > -torch.inf)).all())


def test_equal_classes_count_in_the_order_of_their_index(device):
    even = torch.full((1, 1, 8), 1 / 8, device=device).log()
    assert (truncate(even, 0.45) > -torch.inf)[0, 0].tolist() == [True] * 4 + [False] * 4
    assert (guidance.top_k(even, 3) > -torch.inf)[0, 0].tolist() == [True] * 3 + [False] * 5


@pytest.mark.parametrize("dtype", DTYPES)
def test_guidance_top_k_and_known_tokens_are_those_of_the_cpu(device, dtype):
    given, null = (random_prediction(2, 30, 50, seed=seed) for seed in (7, 8))
    x_0, known = torch.randint(50, (2, 30)), torch.rand(2, 30) < 0.5
    here = [x.to(device, dtype) for x in (given, null)]
    pairs = [
        (guidance.guide(given, null, 5.0), guidance.guide(*here, 5.0)),
        (guidance.top_k(given, 3), guidance.top_k(here[0], 3)),
        (guidance.keep_known(given, x_0, known), guidance.keep_known(here[0], x_0.to(device), known.to(device))),
    ]
    for expected, found in pairs:
        assert_close(found.exp().double().cpu(), expected.exp(), atol=100 * torch.finfo(dtype).eps, rtol=0)


# ------------------------------------------------------------------------------------------ every sampler


def table(schedule, device, dtype=torch.float64):
    """An ideal denoiser of three tokens, made on the CPU: the very same numbers on every device."""
    weight = torch.rand(27, generator=Generator().manual_seed(0), dtype=torch.float64) ** 3
    perfect = oracle((weight / weight.sum() + markov_chain(3, 3, 0.8)) / 2, schedule)
    return lambda x_t, t: perfect(x_t.cpu(), t).to(device, dtype)


def drawn_by(name, device, generator, count, times, dtype=torch.float64):
    """Tokens `[count, 3]` that a sampler draws with the table."""
    schedule = SCHEDULES["masks" if name == "first_hitting" else "paper"]
    sampler = SAMPLERS[name]
    x_T = sampler.start(schedule, count, 3, generator=generator, device=device)
    return sampler(table(schedule, device, dtype), x_T, schedule, times, generator=generator).cpu()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*SAMPLERS])
def test_a_sampler_draws_the_same_from_a_generator_on_the_cpu(device, name, dtype, seeded):
    expected, found = (
        drawn_by(name, where, seeded(1), 300, range(8, -1, -1), dtype) for where in (torch.device("cpu"), device)
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", [*SAMPLERS])
def test_a_sampler_has_its_distribution_with_a_generator_on_the_device(device, name, on_device):
    """20 000 grids, chi-square over all 27: the enumerated distribution fails with probability 1e-6 if it is right."""
    times, schedule = [8, 5, 2, 0], SCHEDULES["masks" if name == "first_hitting" else "paper"]
    p = outcome(SAMPLERS[name], table(schedule, "cpu"), schedule, 3, times).law
    drawn = drawn_by(name, device, on_device(1), 20_000, times)
    assert chi_square_p_value(numbers(drawn, 3), p) > FALSE_ALARM


@pytest.mark.parametrize("order", [None, [8, 7, 6, 5, 4, 3, 2, 1, 0]])
def test_the_autoregressive_rival_draws_the_same_on_the_cpu_with_and_without_a_cache(device, order, seeded):
    torch.manual_seed(0)
    net = AutoregressiveTransformer(
        num_codes=50, num_positions=9, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=6, order=order
    ).double()
    text = torch.randn(2, 20, 5, 6, dtype=torch.float64, generator=seeded(0))

    def tokens(where, **how):
        given, null = text.to(where)
        return net.to(where).generate(given, 20, null=null, guidance_scale=1.5, generator=seeded(1), **how).cpu()

    expected = tokens("cpu")
    assert torch.equal(tokens(device), expected) and torch.equal(tokens(device, cache=False), expected)


# ------------------------------------------------------------------------------------------ the pipeline


def test_a_pipeline_moves_with_all_its_parts(device, record_property):
    pipe = VQDiffusionPipeline.from_pretrained()
    pipe = quiet((pipe if device.type == "cuda" else with_two_layers(pipe)).to(device))
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    tensors = [tensor for part in modules for tensor in (*part.parameters(), *part.buffers())]
    assert {tensor.device.type for tensor in tensors} == {pipe.device.type} == {device.type}
    for form in ("pil", "np", "pt", "latent"):
        assert len(pipe(PROMPT, 2, output_type=form).images) == 1
    image = pipe(PROMPT, 5, output_type="pt").images[0] * 2 - 1
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[:16] = True
    kept = pipe.inpaint(image, mask, PROMPT, num_inference_steps=3, output_type="latent").images
    assert torch.equal(kept[:, 32:], pipe.encode(image[None])[:, 32:])
    assert len(pipe.variations(image.cpu(), PROMPT, num_inference_steps=4, negative_prompt="a star").images) == 1
    record_property("parts", len(modules))


@pytest.mark.parametrize("dtype", APART)
def test_a_dtype_predicts_what_float64_predicts_on_the_cpu(device, pipes, dtype, record_property):
    x_t = torch.full((1, 64), 1024)
    expected = pipes(where=torch.device("cpu")).denoiser(PROMPT, guidance_scale=2.0)(x_t, 60)
    found = pipes(dtype).denoiser(PROMPT, guidance_scale=2.0)(x_t.to(device), 60).double().cpu()
    apart = float((found.exp() - expected.exp()).abs().sum(-1).mean() / 2)
    record_property("total_variation", apart)
    assert apart < APART[dtype]


@pytest.mark.parametrize("dtype", APART)
def test_a_dtype_draws_again_what_it_drew(pipes, on_device, dtype):
    tokens = draw(pipes(dtype), on_device(3))
    assert torch.equal(tokens, draw(pipes(dtype), on_device(3))) and int(tokens.max()) < 1024
    assert bool(torch.isfinite(pipes(dtype).decode(tokens)).all())


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "first_hitting"])
def test_the_network_draws_the_tokens_of_the_cpu(pipes, seeded, name):
    """In float64, from a generator on the CPU."""
    expected = draw(pipes(where=torch.device("cpu")), seeded(1), sampler=name)
    assert torch.equal(draw(pipes(), seeded(1), sampler=name), expected)


def test_generators_on_either_device_one_or_many(pipes, seeded, on_device):
    for make in (seeded, on_device):
        together = draw(pipes(), [make(5), make(6)])
        (alone,) = draw(pipes(), [make(6)], prompt=["a small star"])
        assert torch.equal(together[1], alone)
        assert torch.equal(draw(pipes(), make(7)), draw(pipes(), make(7)))
    assert draw(pipes(), None).shape == (2, 64)


def test_what_is_saved_on_the_device_comes_back(device, pipes, tmp_path, seeded):
    pipe = pipes(torch.float32)
    pipe.save_pretrained(tmp_path / "model")
    again = quiet(VQDiffusionPipeline.from_pretrained(tmp_path / "model", device=device))
    for part in ("transformer", "vqvae", "text_encoder"):
        before, after = pipe.components[part].state_dict(), again.components[part].state_dict()
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(draw(again, seeded(1)), draw(pipe, seeded(1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_loading_to_the_device_makes_no_second_copy(device, dtype, record_property):
    made = []
    peak = peak_bytes(
        lambda: made.append(VQDiffusionPipeline.from_pretrained(torch_dtype=dtype, device=device)), device
    )
    parts = [part for part in made[0].components.values() if isinstance(part, torch.nn.Module)]
    weights = sum(tensor.nbytes for part in parts for tensor in (*part.parameters(), *part.buffers()))
    record_property("peak_of_the_weights", peak / weights)
    assert peak <= (1.1 if device.type == "cuda" else 2) * weights  # a CPU's memory also holds what is read of the file


def test_the_memory_of_a_call_is_stated(device, pipes, on_device, record_property):
    for batch in (1, 8):
        call = {"num_images_per_prompt": batch, "num_inference_steps": 3}
        peak = peak_bytes(lambda call=call: draw(pipes(torch.float32), on_device(0), **call), device)
        record_property(f"peak_MB_batch_{2 * batch}", round(peak / 1e6, 2))
        assert 0 < peak < 2**30


def test_memory_that_torch_keeps_is_free(device):
    """What a call gave back does not make the next one's parts smaller. Of a CPU others take some meanwhile."""
    before = cost.free_bytes(device)
    torch.empty(2**28, dtype=torch.uint8, device=device)
    assert cost.free_bytes(device) > (before - 2**22 if device.type == "cuda" else before / 2)


@pytest.mark.parametrize("sampler", ["ancestral", "corrector", "purity"])
def test_nobody_waits_for_the_device_in_the_loop(device, pipes, on_device, sampler, record_property):
    """Counted by the profiler. On a CPU the same names count reads, which cost nothing there: they are only stated."""
    found = waits_per_step(
        lambda steps: draw(pipes(torch.float32), on_device(0), num_inference_steps=steps, sampler=sampler),
        device, few=1, many=3,
    )  # fmt: skip
    record_property("waits_per_step", found)
    assert device.type == "cpu" or not any(found.values())


def test_a_captured_graph_draws_the_tokens_of_the_eager_loop(device, pipes, seeded):
    """The same kernels, replayed: token by token. On the CPU there is no graph, but the same call."""
    pipe = quiet(VQDiffusionPipeline(**pipes().components))
    expected = draw(pipes(), seeded(1))
    pipe.compile(backend="cudagraphs" if device.type == "cuda" else "eager", mode=None)
    with warnings.catch_warnings(action="ignore"):  # a compiler's own, of versions and slower settings
        assert torch.equal(draw(pipe, seeded(1)), expected)
        assert torch.equal(draw(pipe, seeded(1)), expected), "the second call replays what the first has captured"


def test_a_compiled_denoiser_draws_the_tokens_of_the_eager_loop(device, pipes, seeded, record_property):
    """As `pipe.compile()` does it, in float64, where what a compiler rounds otherwise decides no draw. Two layers."""
    pipe = quiet(with_two_layers(pipes()))
    expected = draw(pipe, seeded(1))
    pipe.compile(**({} if device.type == "cuda" else {"backend": "eager", "mode": None}))
    with warnings.catch_warnings(action="ignore"):  # a compiler's own, of versions and slower settings
        found = draw(pipe, seeded(1))
    record_property("equal_tokens", float((found == expected).float().mean()))
    assert torch.equal(found, expected)


# ------------------------------------------------------------------------------------------ training


def test_scenes_are_drawn_as_on_the_cpu(device, seeded):
    from vqlearn.data import layouts

    shipped = VQDiffusionPipeline.from_pretrained()
    codes, texts = layouts.code_table(shipped.encode), layouts.text_table(shipped.tokenizer)
    ours, theirs = (layouts.draw("test", 300, generator=seeded(0), device=where) for where in (device, "cpu"))
    assert ours.row.device.type == device.type
    for found, expected in (
        *zip(ours, theirs, strict=True),
        *zip(ours.claims(), theirs.claims(), strict=True),
        (layouts.tokens(ours, codes), layouts.tokens(theirs, codes)),
        (layouts.token_ids(ours, texts), layouts.token_ids(theirs, texts)),
        (layouts.pictures(ours), layouts.pictures(theirs)),
    ):
        assert torch.equal(found.cpu(), expected)


def test_the_ideal_prediction_is_that_of_the_cpu(device, seeded):
    from vqlearn.data import layouts
    from vqlearn.exactness.ideal import ideal_prediction

    shipped = VQDiffusionPipeline.from_pretrained()
    codes, drawn = layouts.code_table(shipped.encode), layouts.draw("train", 60, generator=seeded(0))
    t = torch.randint(1, 101, (60,), generator=seeded(1))
    x_t = q.q_sample(layouts.tokens(drawn, codes), t, shipped.schedule, generator=seeded(2))
    expected = ideal_prediction(x_t, t, drawn.claims(), codes, shipped.schedule, split="train")
    claims = drawn.claims().to(device)
    found = ideal_prediction(x_t.to(device), t.to(device), claims, codes, shipped.schedule, split="train")
    assert_close(found.cpu(), expected, atol=1e-12, rtol=0)


def test_dead_codes_restart_with_a_generator_on_either_device(device, on_device, seeded):
    latents = torch.randn(2, 3, 4, 4, generator=seeded(0)).to(device)
    found = []
    for generator in (seeded(1), on_device(1)):
        codebook = Codebook(8, 3).to(device)
        codes = torch.zeros(2, 4, 4, dtype=torch.int64, device=device)  # so all others are dead
        assert CodebookEMA(codebook).update(latents, codes, generator) == 7
        found.append(codebook.embedding.weight.detach())
    for restarted in found:
        rows = latents.permute(0, 2, 3, 1).flatten(0, 2)
        assert (restarted[1:, None] == rows).all(-1).any(1).all()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_training_learns_on_the_device(device, dtype):
    """The loss of one batch, learned by heart: of four updates the last has less of it than the first."""
    from vqlearn.training import SceneRecipe, scene_stage

    pipe = VQDiffusionPipeline.from_pretrained(torch_dtype=torch.float32)
    batch = 8 if device.type == "cuda" else 3  # a CPU's bfloat16 takes more than a second for each
    stage = scene_stage(pipe, SceneRecipe(batch=batch, own_from=0), device=device.type, dtype=dtype)
    first, *_, last = [stage.step(0)["loss"] for _ in range(4)]
    assert last < first and all(p.device.type == device.type for p in stage.model.parameters())
