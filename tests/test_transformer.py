import numpy as np
import pytest
import torch

from vqlearn.checkpoints.loading import load_module
from vqlearn.networks import transformer
from vqlearn.networks.transformer import Transformer2DModel


@pytest.fixture(scope="module")
def peer(data):
    folder = data / "tiny_pipeline" / "transformer"
    return load_module(Transformer2DModel, folder), np.load(data / "golden_tiny_pipeline.npz")


@torch.no_grad()
@pytest.mark.parametrize("timestep", [0, 50, 99])
def test_agrees_with_diffusers(peer, timestep):
    network, golden = peer
    tokens, text = torch.tensor(golden["tr_x"]).long(), torch.tensor(golden["prompt_embeds_cfg"])
    log_p = network(tokens, text, torch.tensor(timestep)).log_softmax(-1)
    expected = torch.tensor(golden[f"tr_logprob_t{timestep}"]).transpose(1, 2)
    torch.testing.assert_close(log_p, expected, atol=2e-5, rtol=0)


@torch.no_grad()
def test_agrees_with_diffusers_in_float64(data):
    network = load_module(Transformer2DModel, data / "tiny_pipeline" / "transformer").double()
    golden = np.load(data / "golden_tiny_pipeline.npz")
    text = torch.tensor(golden["prompt_embeds_cfg"]).double()
    logits = network(torch.tensor(golden["tr_x"]).long(), text, torch.tensor(50))
    torch.testing.assert_close(logits, torch.tensor(golden["tr_logits64_t50"]), atol=1e-10, rtol=0)


def test_has_the_published_names_and_shapes():
    with torch.device("meta"):
        network = Transformer2DModel(num_layers=36)
    assert len(network.state_dict()) == 1015
    assert sum(p.numel() for p in network.parameters()) == 1_359_274_624


@torch.no_grad()
@pytest.mark.parametrize("feed_forward", ["linear", "convolution"])
def test_a_time_per_row_is_the_same_as_one_time_for_all(feed_forward):
    torch.manual_seed(0)
    network = Transformer2DModel(2, 8, 2, 8, 17, 4, 10, feed_forward=feed_forward, feed_forward_mult=2).eval()
    tokens, text = torch.randint(17, (3, 16)), torch.randn(3, 5, 8)
    rows = network(tokens, text, torch.tensor([0, 4, 9]))
    for row, timestep in enumerate((0, 4, 9)):
        alone = network(tokens[row : row + 1], text[row : row + 1], torch.tensor(timestep))
        torch.testing.assert_close(rows[row : row + 1], alone, atol=1e-5, rtol=1e-5)
    assert rows.shape == (3, 16, 16)
    assert not torch.allclose(rows[0], network(tokens, text, torch.tensor(9))[0])


@torch.no_grad()
def test_a_convolution_sees_neighbours_in_both_directions():
    torch.manual_seed(0)
    feed = (
        Transformer2DModel(1, 4, 1, 4, 5, 4, 2, feed_forward="convolution", feed_forward_mult=1)
        .transformer_blocks[0]
        .ff
    )
    x = torch.zeros(1, 16, 4)
    changed = x.clone()
    changed[0, 5] = 1.0  # row 1, column 1
    touched = (feed(x) - feed(changed)).abs().sum(-1).view(4, 4) > 0
    assert touched[:4, :4].all()  # two 3 x 3 layers reach two cells away
    assert touched[0, 0] and touched[3, 3]


def test_wrong_configuration_is_named():
    with pytest.raises(ValueError, match="feed_forward must be 'linear' or 'convolution', got 'gated'"):
        Transformer2DModel(feed_forward="gated")


@torch.no_grad()
@pytest.mark.parametrize("timestep", [torch.tensor(3), torch.tensor([0, 4, 9])])
def test_several_conditions_for_one_grid_share_what_comes_before_them(timestep):
    """The same logits as of the grid given once per condition, with the text or with what is remembered of it."""
    torch.manual_seed(0)
    network = Transformer2DModel(2, 8, 2, 8, 17, 4, 10, feed_forward_mult=2).eval()
    tokens, text = torch.randint(17, (3, 16)), torch.randn(6, 5, 8)
    twice = timestep.repeat(2) if timestep.ndim else timestep
    expected = network(tokens.repeat(2, 1), text, twice)
    for condition in (text, network.remember(text)):
        torch.testing.assert_close(network(tokens, condition, timestep, 2), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_several_classes_for_one_grid():
    torch.manual_seed(0)
    network = Transformer2DModel(2, 8, 2, None, 17, 4, 10, feed_forward_mult=2, num_classes=5).eval()
    tokens, classes = torch.randint(17, (3, 16)), torch.tensor([0, 1, 2, 5, 5, 5])
    expected = network(tokens.repeat(2, 1), classes, torch.tensor(3))
    torch.testing.assert_close(network(tokens, classes, torch.tensor(3), 2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("timestep", [torch.tensor(3), torch.tensor([0, 4, 9])])
def test_work_in_pieces_changes_no_logit(timestep, monkeypatch):
    """Without a gradient a CPU takes the feed-forward some rows at a time and its activation in place."""
    torch.manual_seed(0)
    network = Transformer2DModel(2, 8, 2, 8, 17, 4, 10, feed_forward_mult=2).eval()
    tokens, text = torch.randint(17, (3, 16)), torch.randn(3, 5, 8)
    expected = network(tokens, text, timestep)
    assert expected.requires_grad
    monkeypatch.setattr(transformer, "AT_ONCE", 20 * 32)  # 20 rows of 32 numbers
    monkeypatch.setattr(transformer, "PIECE", 50)
    rows, first = [], network.transformer_blocks[0].ff.net[0]
    first.register_forward_hook(lambda module, given, found: rows.append(len(given[0])))
    with torch.no_grad():
        torch.testing.assert_close(network(tokens, text, timestep), expected, atol=1e-6, rtol=1e-6)
    assert rows == [16, 16, 16]


@pytest.mark.parametrize("feed_forward", ["linear", "convolution"])
def test_work_in_place_leaves_the_input_as_it_is(feed_forward):
    torch.manual_seed(0)
    feed = Transformer2DModel(1, 4, 1, 4, 5, 4, 2, feed_forward=feed_forward).transformer_blocks[0].ff
    x = torch.randn(2, 16, 4)
    before, expected = x.clone(), feed(x)
    with torch.no_grad():
        torch.testing.assert_close(feed(x), expected.detach(), atol=1e-6, rtol=1e-6)
    assert torch.equal(x, before)
