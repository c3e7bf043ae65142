import numpy as np
import pytest
import torch

from vqlearn import VQDiffusionScheduler

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
    scheduler.save_pretrained(tmp_path)
    assert VQDiffusionScheduler.from_pretrained(tmp_path).config == scheduler.config


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="spacing must be"):
        VQDiffusionScheduler(17, spacing="log")
    with pytest.raises(ValueError, match="from 1 to 100, got 101"):
        VQDiffusionScheduler(17).set_timesteps(101)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ends", [{}, {"gamma_cum_end": 0.9}])
def test_the_living_diffusers_draws_the_same_tokens(ends):
    """The whole walk of 100 steps, drawn by diffusers' scheduler as it is installed and by ours, seed by seed."""
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
