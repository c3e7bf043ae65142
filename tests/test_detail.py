"""Losses that ask a codec for detail: each number against an independent computation, and a codec that learns."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from shallow import small_codec
from torch import nn
from torch.testing import assert_close

from vqlearn.training import CodecRecipe, fit
from vqlearn.training.codec import CodecStage
from vqlearn.training.detail import Adversary, AdversaryRecipe, FeatureLoss, HiddenStates, PatchDiscriminator


def images(count=4, side=16, seed=0):
    return 2 * torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) - 1


def test_the_feature_loss_is_that_of_unit_vectors():
    kernels = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    tokens = torch.randn(48, 7, generator=torch.Generator().manual_seed(2))

    def maps(x):
        return [F.conv2d(x, kernels), F.unfold(x, 4, stride=4).mT @ tokens]  # [B, 5, 14, 14] and [B, 16, 7]

    x, y = images(seed=1), images(seed=2).requires_grad_()
    first = 2 - 2 * F.cosine_similarity(maps(x)[0], maps(y)[0], dim=1)  # the squared distance of unit vectors
    second = 2 - 2 * F.cosine_similarity(maps(x)[1], maps(y)[1], dim=2)
    loss = FeatureLoss(maps)(x, y)
    assert_close(loss, (first.mean() + second.mean()) / 2)
    assert FeatureLoss(maps)(x, x) == 0 and torch.autograd.grad(loss, y)[0].abs().sum() > 0
    assert_close(FeatureLoss(lambda x: [7 * one for one in maps(x)])(x, y), loss)  # the scale of features is no matter


@pytest.mark.parametrize(("layers", "pixels"), [(1, 16), (2, 34), (3, 70)])
def test_a_patch_is_as_large_as_it_says(layers, pixels):
    network = PatchDiscriminator(width=8, layers=layers)
    for part in network:
        if isinstance(part, nn.GroupNorm):  # whose mean is over the whole image
            part.forward = lambda x: x
    x = images(1, 128).requires_grad_()
    logits = network(x)
    middle = logits.shape[2] // 2
    seen = torch.autograd.grad(logits[0, 0, middle, middle], x)[0].abs().sum((0, 1)) > 0
    assert seen.any(0).sum() == seen.any(1).sum() == pixels


def test_the_discriminator_is_a_function_of_its_seed_and_leaves_other_draws_alone():
    torch.manual_seed(5)
    a, b, other = (PatchDiscriminator(width=4, layers=1, seed=seed) for seed in (0, 0, 1))
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a[0].weight, other[0].weight)


def adversary(start=0, **how):
    return Adversary(PatchDiscriminator(width=4, layers=1), AdversaryRecipe(start=start, **how))


def test_the_adaptive_weight_balances_the_gradients_of_the_last_layer():
    last = nn.Conv2d(3, 3, 1)
    x, hidden, judge = images(seed=1), images(seed=2), adversary(weight=0.5)
    decoded = last(hidden)
    error = F.mse_loss(decoded, x)
    loss = judge.loss(0, error, decoded, last.weight)
    fooled = -judge.discriminator(last(hidden)).mean()
    norms = [torch.autograd.grad(one, last.weight, retain_graph=True)[0].norm() for one in (error, fooled)]
    assert_close(loss, 0.5 * norms[0] / (norms[1] + 1e-4) * fooled)
    pull = torch.autograd.grad(loss, last.weight, retain_graph=True)[0].norm()
    assert_close(pull, 0.5 * norms[0], rtol=1e-2, atol=0)  # half as strong as the reconstruction's
    (error + loss).backward()
    assert all(p.grad is None and p.requires_grad for p in judge.discriminator.parameters())


def test_the_discriminator_minimises_the_hinge_loss():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.5))

        def forward(self, x):
            return self.scale * x.mean((1, 2, 3))

    judge = Adversary(Mean(), AdversaryRecipe(learning_rate=0.1))
    real, decoded = torch.full((2, 3, 4, 4), 1.0), torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 3, 4, 4)
    found = judge.update(0, real, decoded)  # logits 0.5, 0.5 and -0.5, 0.5
    assert found == {"discriminator": pytest.approx((0.5 + (0.5 + 1.5) / 2) / 2), "told_apart": 0.75}
    assert judge.discriminator.scale > 0.5  # the gradient: real ones pull up, the decoded ones cancel


def test_it_learns_to_tell_noise_from_what_is_smooth():
    judge = adversary(learning_rate=5e-3)
    found = {}
    for number in range(30):
        noisy = images(8, seed=number)
        found = judge.update(number, F.avg_pool2d(noisy, 3, 1, 1), noisy)
    assert found["told_apart"] > 0.95


def data():
    return [(image, None) for image in images(8)]


def stage(**how):
    return CodecStage(small_codec(), data(), CodecRecipe(steps=6, batch=4), **how)


def weights(found):
    return torch.cat([p.detach().flatten() for p in found.codec.parameters()])


def test_before_its_start_an_adversary_changes_nothing_and_after_it_does():
    plain, later = stage(), stage(adversary=adversary(start=2))
    before = [p.clone() for p in later.adversary.discriminator.parameters()]
    for number in range(2):
        figures = later.step(number)
        assert plain.step(number).items() <= figures.items() and math.isnan(figures["told_apart"])
    assert torch.equal(weights(plain), weights(later))
    assert all(torch.equal(p, q) for p, q in zip(before, later.adversary.discriminator.parameters(), strict=True))
    plain.step(2)
    assert 0 <= later.step(2)["told_apart"] <= 1 and not torch.equal(weights(plain), weights(later))
    assert any(not torch.equal(p, q) for p, q in zip(before, later.adversary.discriminator.parameters(), strict=True))


def test_a_term_of_ones_own_is_added():
    plain, other = stage(), stage(term=lambda images, decoded: 0 * decoded.sum() + 3)
    assert other.step(0)["loss"] == pytest.approx(plain.step(0)["loss"] + 3)
    assert torch.equal(weights(plain), weights(other))
    edges = stage(term=lambda images, decoded: (images.diff(dim=-1) - decoded.diff(dim=-1)).abs().mean())
    edges.step(0)
    assert not torch.equal(weights(plain), weights(edges))


def test_a_run_with_an_adversary_goes_on_exactly(tmp_path):
    whole, part = stage(adversary=adversary(start=1)), stage(adversary=adversary(start=1))
    fit(whole, tmp_path / "whole", progress=False)
    for number in range(3):
        part.step(number)
    torch.save(part.state_dict(), tmp_path / "state.pt")
    again = stage(adversary=adversary(start=1))
    again.load_state_dict(torch.load(tmp_path / "state.pt"))
    for number in range(3, 6):
        again.step(number)
    assert torch.equal(weights(again), weights(whole))
    for name, value in whole.adversary.discriminator.state_dict().items():
        assert torch.equal(value, again.adversary.discriminator.state_dict()[name])
    assert whole.settings()["adversary"]["start"] == 1
    with pytest.raises(ValueError, match="state has another form"):
        stage().load_state_dict(torch.load(tmp_path / "state.pt"))


def test_the_layers_of_a_vision_model_are_its_maps(tmp_path):
    from transformers import ViTConfig, ViTModel

    size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    model = ViTModel(ViTConfig(**size, image_size=16, patch_size=8), add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    asked = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    asked |= {"do_resize": True, "do_normalize": True, "image_mean": [0.2, 0.3, 0.4], "image_std": [0.5, 0.6, 0.7]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(asked))
    x = images(2, 16)
    maps = HiddenStates(str(tmp_path))(x)
    shifted = ((x + 1) / 2 - torch.tensor([0.2, 0.3, 0.4])[:, None, None]) / torch.tensor([0.5, 0.6, 0.7])[
        :, None, None
    ]
    with torch.no_grad():
        wanted = model(shifted, output_hidden_states=True).hidden_states
    assert [one.shape for one in maps] == [(2, 5, 8)] * 3
    for a, b in zip(maps, wanted, strict=True):
        assert_close(a, b)
    decoded = images(2, 32, seed=3).requires_grad_()  # of another size
    FeatureLoss(HiddenStates(str(tmp_path)))(images(2, 32), decoded).backward()
    assert decoded.grad.abs().sum() > 0


def test_what_is_no_vision_model_is_said_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="is no vision model whose layers transformers can show"):
        HiddenStates(str(tmp_path))
    with pytest.raises(ValueError, match="weight must be a number in"):
        AdversaryRecipe(weight=-1)
    with pytest.raises(ValueError, match="layers must be a whole number from 1 to 8, got 0"):
        PatchDiscriminator(layers=0)
