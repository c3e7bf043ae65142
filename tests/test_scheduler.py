import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch
from together import together

from vqlearn import CheckpointError, MaskReplaceSchedule, VQDiffusionScheduler
from vqlearn.scheduler import Reference

CASES = {"K17_T100": (17, 100, {}), "K17_T100_paper": (17, 100, {"gamma_cum_end": 0.9}), "K5_T10": (5, 10, {})}


@pytest.fixture(scope="module")
def golden(data):
    return np.load(data / "scheduler_draws.npz")


@pytest.mark.parametrize("name", CASES)
def test_posteriors_and_draws_are_those_of_diffusers(golden, name):
    classes, steps, ends = CASES[name]
    scheduler = VQDiffusionScheduler(classes, steps, **ends)
    log_p = torch.tensor(golden[f"{name}/log_p_x_0"]).float()
    x_t = torch.tensor(golden[f"{name}/x_t"])
    for t in (1, steps // 2, steps - 1):
        ours, theirs = scheduler.q_posterior(log_p, x_t, t), torch.tensor(golden[f"{name}/t{t}/q_posterior_f32"])
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours.exp(), theirs.exp(), atol=4e-6, rtol=0)
    for t in (0, 1, steps - 1):
        generator = torch.Generator().manual_seed(7)
        tokens = scheduler.step(log_p, t, x_t, generator=generator).prev_sample
        assert tokens.tolist() == golden[f"{name}/t{t}/step_seed7_f32"].tolist()


def test_a_run_strides_and_the_old_one_does_not():
    scheduler = VQDiffusionScheduler(17, 100)
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [99, 74, 49, 24]
    old = VQDiffusionScheduler(17, 100, spacing="consecutive")
    old.set_timesteps(4)
    assert old.timesteps.tolist() == [3, 2, 1, 0]


def test_a_strided_step_lands_on_the_next_timestep():
    """With 1 step of 100 every token is drawn from p(x_0 | x_T): no mask is left."""
    scheduler = VQDiffusionScheduler(17, 100)
    scheduler.set_timesteps(1)
    log_p = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    (tokens,) = scheduler.step(log_p, scheduler.timesteps[0], torch.full((2, 8), 16), return_dict=False)
    assert int(tokens.max()) < 16


@pytest.mark.parametrize("cumulative", [True, False])
def test_transition_rows_are_those_of_the_matrix(cumulative):
    from vqlearn import transition_matrix

    scheduler = VQDiffusionScheduler(6, 10, gamma_cum_end=0.9)
    x_t = torch.tensor([[0, 4, 5]])
    rows = scheduler.log_Q_t_transitioning_to_known_class(t=6, x_t=x_t, cumulative=cumulative)
    matrix = transition_matrix(scheduler.schedule, 7, 0 if cumulative else 6).float()
    expected = matrix[x_t[0]].T[None, : 5 if cumulative else 6]
    torch.testing.assert_close(rows.exp(), expected)


def test_saved_and_read_back(tmp_path):
    scheduler = VQDiffusionScheduler(33, 50, gamma_cum_end=0.9, spacing="consecutive")
    scheduler.save_pretrained(tmp_path / "of a project" / "scheduler")  # neither folder is there yet
    assert VQDiffusionScheduler.from_pretrained(tmp_path / "of a project" / "scheduler").config == scheduler.config


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="spacing must be"):
        VQDiffusionScheduler(17, spacing="log")
    with pytest.raises(ValueError, match="from 1 to 100, got 101"):
        VQDiffusionScheduler(17).set_timesteps(101)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ends", [{}, {"gamma_cum_end": 0.9}])
def test_the_living_diffusers_draws_the_same_tokens(ends):
    """A whole run of 100 steps, drawn by diffusers' scheduler as it is installed and by ours, seed by seed."""
    peer = pytest.importorskip("diffusers", reason="diffusers is not installed").VQDiffusionScheduler(9, 100, **ends)
    ours = VQDiffusionScheduler(9, 100, **ends)
    log_p = 2 * torch.randn(2, 8, 12, generator=torch.Generator().manual_seed(3))
    log_p = log_p.log_softmax(1).clamp(min=-70)
    tokens = {peer: torch.full((2, 12), 8), ours: torch.full((2, 12), 8)}
    for scheduler in tokens:
        generator = torch.Generator().manual_seed(11)
        for t in range(99, -1, -1):
            tokens[scheduler] = scheduler.step(log_p, torch.tensor(t), tokens[scheduler], generator).prev_sample
    assert tokens[peer].tolist() == tokens[ours].tolist()
    for t in (1, 50, 99):
        theirs = peer.q_posterior(log_p, tokens[peer], torch.tensor(t))
        torch.testing.assert_close(ours.q_posterior(log_p, tokens[ours], t).exp(), theirs.exp(), atol=4e-6, rtol=0)


# ------------------------------------------------------------------------------------------ draws


def prediction(classes=17, dtype=torch.float32, seed=0):
    log_p = torch.randn(2, classes - 1, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return log_p.log_softmax(1).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_draws_are_those_of_diffusers_in_every_dtype(dtype):
    peer = pytest.importorskip("diffusers").VQDiffusionScheduler(17)
    ours, x_t = VQDiffusionScheduler(17), torch.randint(17, (2, 12), generator=torch.Generator().manual_seed(1))
    for t in (0, 1, 50, 99):
        found, expected = (
            one.step(prediction(dtype=dtype), torch.tensor(t), x_t, torch.Generator().manual_seed(t)).prev_sample
            for one in (ours, peer)
        )
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_flat_prediction_in_half_precision_is_drawn_flat(dtype):
    """The mean of 4096 uniform codes of 1024 has a standard error of 4.6: within 6 of them."""
    flat = torch.zeros(4, 1024, 1024).log_softmax(1).to(dtype)
    x_t = torch.full((4, 1024), 1024)
    tokens = VQDiffusionScheduler(1025).step(flat, 0, x_t, torch.Generator().manual_seed(0)).prev_sample
    assert abs(float(tokens.double().mean()) - 511.5) < 28


@pytest.mark.parametrize(
    ("value", "column", "message"),
    [
        (torch.nan, (1, 3, 5), "model_output is NaN at picture 1, position 5"),
        (torch.inf, (0, 0, 7), "model_output is inf at picture 0, position 7"),
        (-torch.inf, (1, slice(None), 2), "model_output is -inf everywhere at picture 1, position 2"),
    ],
)
@pytest.mark.parametrize("t", [0, 60])
def test_where_nothing_can_be_drawn_is_named(value, column, message, t):
    log_p = prediction()
    log_p[column] = value
    with pytest.raises(ValueError, match=message):
        VQDiffusionScheduler(17).step(log_p, t, torch.full((2, 12), 16))


WRONG_STEPS = {
    "timestep must be a whole number from 0 to 99, got 100": {"timestep": 100},
    "timestep must be a whole number from 0 to 99, got -1": {"timestep": torch.tensor(-1)},
    "timestep must be a whole number from 0 to 99, got 1.5": {"timestep": 1.5},
    "timestep must be a whole number from 0 to 99, got tensor": {"timestep": torch.tensor([1, 2])},
    "timestep must be a whole number from 0 to 99, got None": {"timestep": None},
    r"need a float \[B, 16, L\] for tokens \[B, L\], got torch.float32 \[2, 17, 12\]": {"model_output": prediction(18)},
    r"need a float .* got torch.float32 \[2, 16, 12\] and torch.int64 \[2, 11\]": {
        "sample": torch.zeros(2, 11, dtype=torch.int64)
    },
    r"need a float .* got torch.int64": {"model_output": torch.zeros(2, 16, 12, dtype=torch.int64)},
    r"need a float .* and None": {"sample": None},
    "generator must be a torch.Generator or None, got 5": {"generator": 5},
}


@pytest.mark.parametrize("sentence", WRONG_STEPS)
def test_a_wrong_step_is_named(sentence):
    call = {"model_output": prediction(), "timestep": 5, "sample": torch.full((2, 12), 16)} | WRONG_STEPS[sentence]
    with pytest.raises(ValueError, match=sentence):
        VQDiffusionScheduler(17).step(**call)


@pytest.mark.parametrize(
    "t", [np.int64(5), torch.tensor(5), torch.tensor([5]), np.uint8(5), torch.tensor(5, dtype=torch.int32)]
)
def test_a_timestep_in_any_whole_number(t):
    x_t = torch.full((2, 12), 16)
    tokens = [
        VQDiffusionScheduler(17).step(prediction(), one, x_t, torch.Generator().manual_seed(0)).prev_sample
        for one in (5, t)
    ]
    assert torch.equal(*tokens)


@pytest.mark.parametrize("t", [torch.tensor([]), torch.tensor([5, 6]), 2.5, None, 100, -1])
def test_a_timestep_that_is_none_is_named(t):
    with pytest.raises(ValueError, match="timestep must be a whole number from 0 to 99"):
        VQDiffusionScheduler(17).step(prediction(), t, torch.full((2, 12), 16))


def test_a_run_as_a_sampler_leaves_nothing_in_a_shared_scheduler():
    """Two runs of other lengths at the same moment, each as it is alone; the scheduler's own run stays."""
    scheduler, log_p = VQDiffusionScheduler(17), prediction().transpose(1, 2)
    scheduler.set_timesteps(7)
    kept = scheduler.timesteps.clone()

    def run(count):
        x_t, times = torch.full((2, 12), 16), scheduler.times(scheduler.schedule, count)
        return scheduler(
            lambda x, t: log_p, x_t, scheduler.schedule, times, generator=torch.Generator().manual_seed(count)
        )

    found = together(lambda: run(3), lambda: run(20), times=5)
    assert all(torch.equal(tokens, run(3)) for tokens in found[0]) and all(
        torch.equal(tokens, run(20)) for tokens in found[1]
    )
    assert torch.equal(scheduler.timesteps, kept) and scheduler.num_inference_steps == 7
    alone = Reference()(
        lambda x, t: log_p, torch.full((2, 12), 16), scheduler.schedule, scheduler.times(scheduler.schedule, 3),
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    assert torch.equal(alone, found[0][0])


def test_what_truncation_has_left_out_is_drawn_at_minus_70_as_in_diffusers(monkeypatch):
    seen = []
    monkeypatch.setattr("vqlearn.scheduler.gumbel_draw", lambda log_p, generator: seen.append(log_p) or log_p.argmax(1))
    log_p = torch.tensor([[[0.0, -69.5, -70.5, -torch.inf]]])
    Reference().step(log_p, torch.tensor([[4]]), 1, 0, MaskReplaceSchedule.paper(4, 10))
    assert seen[0][0, :, 0].tolist() == [0.0, -69.5, -70.0, -70.0]
    p = Reference().step_law(log_p.double(), torch.tensor([[4]]), 1, 0, MaskReplaceSchedule.paper(4, 10))
    assert p[0, 0, 3:].tolist() == pytest.approx([math.exp(-70.0), 0.0], rel=1e-9)


# ------------------------------------------------------------------------------------------ configuration


def test_a_configuration_is_read_by_key_and_by_attribute_and_does_not_change():
    config = VQDiffusionScheduler(17, 50, gamma_cum_end=0.9).config
    assert config.num_vec_classes == config["num_vec_classes"] == 17 and config.get("nothing", 3) == 3
    assert json.loads(json.dumps(config))["gamma_cum_end"] == 0.9 and {**config}["num_train_timesteps"] == 50
    for change in (
        lambda: config.update(num_vec_classes=3),
        lambda: config.pop("spacing"),
        lambda: config.__setitem__("spacing", "consecutive"),
        lambda: setattr(config, "spacing", "consecutive"),
    ):
        with pytest.raises(TypeError, match="does not change what was made from it: use from_config"):
            change()
    with pytest.raises(AttributeError, match="the configuration has no 'beta_start'"):
        _ = config.beta_start
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config
    assert config != {} and config != {**config, "spacing": "other"} and config != 5
    assert VQDiffusionScheduler.order == 1, "network evaluations per step, as in diffusers"


def test_settings_as_attributes_of_the_scheduler_are_found_with_a_word():
    with pytest.warns(FutureWarning, match="read VQDiffusionScheduler.config.num_train_timesteps"):
        assert VQDiffusionScheduler(17, 50).num_train_timesteps == 50
    with pytest.raises(AttributeError, match="'VQDiffusionScheduler' object has no attribute 'betas'"):
        _ = VQDiffusionScheduler(17).betas
    with pytest.raises(AttributeError):
        _ = VQDiffusionScheduler.__new__(VQDiffusionScheduler).anything


def test_a_scheduler_from_a_configuration_with_changes():
    first = VQDiffusionScheduler(17, 50)
    second = VQDiffusionScheduler.from_config(first.config, gamma_cum_end=0.9, spacing="consecutive")
    assert second.config.gamma_cum_end == 0.9 and second.config.num_train_timesteps == 50
    assert second.config.spacing == "consecutive" and first.config.spacing == "strided"
    assert second.compatibles == [VQDiffusionScheduler]
    made, unused = VQDiffusionScheduler.from_config(
        {**first.config, "beta_start": 1}, return_unused_kwargs=True, clip=2
    )
    assert unused == {"beta_start": 1, "clip": 2} and made.config == first.config
    with pytest.warns(UserWarning, match="VQDiffusionScheduler has no setting beta_start, it is ignored"):
        assert VQDiffusionScheduler.from_config({**first.config, "beta_start": 1}).config == first.config


def test_notes_in_a_configuration_are_kept_and_settings_are_not_overwritten(tmp_path):
    scheduler = VQDiffusionScheduler(17)
    scheduler.register_to_config(origin="here")
    assert scheduler.config.origin == "here"
    scheduler.save_config(tmp_path)
    assert VQDiffusionScheduler.load_config(tmp_path)["origin"] == "here"
    with pytest.raises(ValueError, match=r"num_train_timesteps is a setting: make a scheduler with from_config"):
        scheduler.register_to_config(num_train_timesteps=5)
    with pytest.raises(ValueError, match="is a setting"):
        scheduler.register_to_config(num_vec_classes=5)


@pytest.mark.parametrize("kind", ["linear", "curves"])
def test_every_way_of_writing_is_read_by_every_way_of_reading(tmp_path, kind):
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    curves = MaskReplaceSchedule(torch.cos(t * torch.pi / 2), 1 - torch.cos(t * torch.pi / 2), num_codes=16)
    scheduler = VQDiffusionScheduler(17, 10) if kind == "linear" else VQDiffusionScheduler.from_schedule(curves)
    scheduler.save_config(tmp_path / "config")
    scheduler.save_pretrained(tmp_path / "pretrained", push_to_hub=False)
    (tmp_path / "json").mkdir()
    scheduler.to_json_file(tmp_path / "json" / "scheduler_config.json")
    for folder in ("config", "pretrained", "json"):
        for again in (
            VQDiffusionScheduler.from_pretrained(tmp_path / folder),
            VQDiffusionScheduler.from_pretrained(tmp_path, subfolder=folder),
            VQDiffusionScheduler.from_config(VQDiffusionScheduler.load_config(tmp_path / folder)),
            VQDiffusionScheduler.from_config(json.loads(scheduler.to_json_string())),
        ):
            assert again.config == scheduler.config and again.schedule == scheduler.schedule
    again, unused = VQDiffusionScheduler.from_pretrained(
        tmp_path / "json", spacing="consecutive", x=1, return_unused_kwargs=True
    )
    assert again.config.spacing == "consecutive" and unused == {"x": 1}
    with pytest.raises(OSError, match=r"holds no scheduler_config\.json; it is in its scheduler: subfolder="):
        VQDiffusionScheduler.from_pretrained("scenes")
    assert VQDiffusionScheduler.from_pretrained("scenes", subfolder="scheduler").config.num_vec_classes == 1025


WRONG_CONFIGS = {
    "config must be a mapping of settings, got str; from_pretrained reads a folder": "folder",
    "config must be a mapping of settings, got NoneType": None,
    "a scheduler's configuration needs num_vec_classes too": {"num_train_timesteps": 5},
    "a scheduler's configuration needs gamma_bar too": {"num_vec_classes": 5, "alpha_bar": [1.0, 0.5]},
    "num_vec_classes must be a whole number of at least 2, got 1": {"num_vec_classes": 1},
    "num_vec_classes must be a whole number of at least 2, got None": {"num_vec_classes": None},
    "num_train_timesteps must be a whole number from 1 to 100000, got 0": {
        "num_vec_classes": 5,
        "num_train_timesteps": 0,
    },
    r"gamma_cum_end must be a number in \[0, 1\], got '1'": {"num_vec_classes": 5, "gamma_cum_end": "1"},
    r"alpha_cum_start must be a number in \[0, 1\], got nan": {"num_vec_classes": 5, "alpha_cum_start": float("nan")},
    "spacing must be 'strided' or 'consecutive', got 3": {"num_vec_classes": 5, "spacing": 3},
}


@pytest.mark.parametrize("sentence", WRONG_CONFIGS)
def test_a_wrong_configuration_is_named(sentence):
    with pytest.raises(ValueError, match=sentence):
        VQDiffusionScheduler.from_config(WRONG_CONFIGS[sentence])


@pytest.mark.parametrize(
    "change", [{"num_vec_classes": 1}, {"num_vec_classes": "17"}, {"num_train_timesteps": 0}, {"spacing": 3},
               {"num_train_timesteps": None}, {"gamma_cum_end": 2}, {"alpha_cum_start": [1]}, {"alpha_bar": [1, 0]},
               {"spacing": "even"}, {"alpha_bar": [1, 2], "gamma_bar": [0, 0]}, {"alpha_bar": "x", "gamma_bar": {}}]
)  # fmt: skip
def test_a_file_with_a_wrong_configuration_is_an_error_of_the_file_however_it_is_read(tmp_path, change):
    scheduler = VQDiffusionScheduler(17)
    scheduler.save_pretrained(tmp_path)
    path = tmp_path / scheduler.config_name
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    for read in (VQDiffusionScheduler.from_pretrained, VQDiffusionScheduler.load_config):
        with pytest.raises(CheckpointError, match=r"scheduler_config\.json"):
            read(tmp_path)
    scheduler.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="spacing must be"):  # what the caller gives is another matter
        VQDiffusionScheduler.from_pretrained(tmp_path, spacing="even")


def test_a_place_that_is_none_is_named(tmp_path):
    with pytest.raises(ValueError, match="device must be one that torch can use, got 'nowhere'"):
        VQDiffusionScheduler(17).set_timesteps(5, device="nowhere")
    (tmp_path / "file").write_text("mine")
    for write in (VQDiffusionScheduler(17).save_pretrained, VQDiffusionScheduler(17).save_config):
        with pytest.raises(OSError, match="file is a file; a model is saved to a folder"):
            write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_numbers_of_numpy_are_numbers_and_saved_as_such():
    ours = VQDiffusionScheduler(np.int64(17), np.int32(50), gamma_cum_end=np.float64(0.9))
    assert ours.config == VQDiffusionScheduler(17, 50, gamma_cum_end=0.9).config
    assert json.loads(ours.to_json_string())["num_train_timesteps"] == 50


def test_an_output_is_a_tuple_and_a_mapping():
    out = VQDiffusionScheduler(17).step(prediction(), 3, torch.full((2, 12), 16))
    (tokens,) = out
    assert tokens is out.prev_sample is out["prev_sample"] is out[0] is out.to_tuple()[0] is dict(out)["prev_sample"]
    assert [*out.keys()] == ["prev_sample"] and out.values()[0] is tokens and "prev_sample" in out and len(out) == 1
    assert out[:1] == (tokens,) and out.get("loss") is None and [*dict(**out)] == ["prev_sample"]
    with pytest.raises(KeyError):
        _ = out["images"]
    with pytest.raises(IndexError):
        _ = out[1]
