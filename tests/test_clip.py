"""Our text encoder beside transformers' CLIPTextModel, as function and as file."""

import json

import pytest
import torch
from safetensors.torch import load_file

from vqlearn.checkpoints.loading import load_text_encoder
from vqlearn.networks.clip import CLIPTextEncoder, quick_gelu

SIZES = {
    "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 9, "layer_norm_eps": 1e-3,
}  # fmt: skip


def theirs(**sizes):
    from transformers import CLIPTextConfig, CLIPTextModel  # takes seconds, which collecting the tests has no need of

    torch.manual_seed(0)
    model = CLIPTextModel(CLIPTextConfig(**sizes))
    for weight in model.parameters():  # layer norms and biases, too, are not what they begin with
        torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("length", [1, 5, 9])
def test_hidden_states_are_those_of_transformers(activation, length):
    sizes = {**SIZES, "hidden_act": activation}
    model, ours = theirs(**sizes), CLIPTextEncoder(**sizes)
    ours.load_state_dict(model.state_dict())
    ids = torch.randint(50, (2, length), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(ids)[0], model(ids)[0], atol=2e-6, rtol=1e-5)


def test_a_token_reads_only_those_before_it():
    encoder = CLIPTextEncoder(**SIZES)
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 9, 8]])
    first, second = encoder(one)[0], encoder(other)[0]
    torch.testing.assert_close(first[:, :2], second[:, :2])
    assert (first[:, 2:] - second[:, 2:]).abs().amin() > 0


def test_gradients_reach_every_weight():
    encoder = CLIPTextEncoder(**SIZES)
    (encoder(torch.arange(9)[None])[0] ** 2).sum().backward()
    for name, weight in encoder.named_parameters():
        if not name.endswith("k_proj.bias"):  # which a softmax over keys does not see
            assert weight.grad.abs().sum() > 0, name


def test_either_side_reads_what_the_other_wrote(tmp_path):
    model = theirs(**SIZES)
    model.save_pretrained(tmp_path / "theirs" / "text_encoder")
    ours = load_text_encoder(tmp_path / "theirs" / "text_encoder")
    ours.save_pretrained(tmp_path / "ours" / "text_encoder")
    again = type(model).from_pretrained(tmp_path / "ours" / "text_encoder")
    ids = torch.arange(9)[None]
    with torch.no_grad():
        for found in (ours, again.eval(), load_text_encoder(tmp_path / "ours" / "text_encoder")):
            torch.testing.assert_close(found(ids)[0], model(ids)[0], atol=2e-6, rtol=1e-5)
    assert load_file(tmp_path / "ours" / "text_encoder" / "model.safetensors").keys() == model.state_dict().keys()
    wrote, kept = (
        json.loads((tmp_path / side / "text_encoder" / "config.json").read_text()) for side in ("theirs", "ours")
    )
    assert {name: wrote[name] for name in kept} == kept


def test_wrong_sizes_and_texts_are_errors():
    with pytest.raises(ValueError, match="hidden_act must be 'quick_gelu' or 'gelu', got 'relu'"):
        CLIPTextEncoder(**{**SIZES, "hidden_act": "relu"})
    with pytest.raises(ValueError, match="hidden_size 24 is no multiple of num_attention_heads 5"):
        CLIPTextEncoder(**{**SIZES, "num_attention_heads": 5})
    with pytest.raises(ValueError, match="reads 9 tokens, got 10"):
        CLIPTextEncoder(**SIZES)(torch.zeros(1, 10, dtype=torch.long))


def test_quick_gelu_by_example():
    x = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    expected = torch.tensor([-0.154204237, 0.0, 0.845795763], dtype=torch.float64)  # x / (1 + e^(-1.702 x))
    torch.testing.assert_close(quick_gelu(x), expected)
