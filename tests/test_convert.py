"""Checkpoints of the original code: what its own classes computed from tiny ones, and the full-size names."""

import gzip
import html
import json

import numpy as np
import pytest
import torch
import yaml

from vqlearn import CheckpointError, VQDiffusionPipeline, guide, q_posterior, truncate
from vqlearn.__main__ import main
from vqlearn.checkpoints.original import published_tokenizer
from vqlearn.networks.text import encode_ids, tokenize
from vqlearn.objective import training_loss
from vqlearn.transition import q_log_probs

KINDS = ("text_ithq", "class_pretrained", "uncond")
NULL = {"class_pretrained": 11}  # the original's literal 1000 is no row of its table: the mean of all


class Case:
    """A converted tiny checkpoint, saved and loaded again in float64, and what the original computed from it."""

    def __init__(self, kind, folder, out):
        self.kind, self.folder = kind, folder / kind
        mapping = self.folder / "mapping.pt"
        pipe = VQDiffusionPipeline.from_original(
            self.folder / "ckpt.pth",
            self.folder / "config.yaml",
            codec_config=self.folder / "codec.yaml",
            mapping=mapping if mapping.exists() else None,
        )
        pipe.save_pretrained(out)
        self.saved = out
        self.pipe = VQDiffusionPipeline.from_pretrained(out, torch_dtype=torch.float64)
        self.arrays = np.load(self.folder / "golden.npz")

    def __getitem__(self, name):
        return torch.tensor(self.arrays[name])

    def log(self, name):
        """Class-first log-probabilities as `[B, L, K]` or `[B, L, K + 1]` in float64."""
        return self[name].double().transpose(1, 2)

    @property
    def condition(self):
        if self.kind == "uncond":
            return None
        return self["cond"].double() if self.kind == "text_ithq" else self["cond"].long()

    def predicted(self, condition, t):
        with torch.no_grad():
            return self.pipe.transformer(self["x_t"], condition, t).log_softmax(-1)

    def guided(self, t, scale, rate):
        log_p = self.predicted(self.condition, t)
        if scale != 1:
            null = (
                self.pipe.null_embeds().expand(3, -1, -1)
                if self.kind == "text_ithq"
                else torch.full((3,), NULL[self.kind])
            )
            log_p = guide(log_p, self.predicted(null, t), scale)
        return truncate(log_p, rate)


@pytest.fixture(scope="module", params=KINDS)
def case(request, data, tmp_path_factory):
    return Case(request.param, data / "original", tmp_path_factory.mktemp("converted") / request.param)


def same(ours, theirs, atol=3e-6):
    """Equal as probabilities; the original's float32 and its floor of exp(-70) allow no more."""
    torch.testing.assert_close(ours.double().exp(), theirs.double().exp(), atol=atol, rtol=0)


def test_codec(case):
    images = case["codec_image"] / 127.5 - 1
    assert torch.equal(case.pipe.encode(images), case["codec_token"])
    drawn = case.pipe.decode(case["codec_decode_token"])
    torch.testing.assert_close((drawn + 1) * 127.5, case["codec_decode_image"], atol=1e-3, rtol=0)
    torch.testing.assert_close(
        (case.pipe.decode(case["codec_token"]) + 1) * 127.5, case["codec_recon_image"], atol=1e-3, rtol=0
    )


def test_network(case):
    logits = case.pipe.transformer(case["x_t"], case.condition, case["t"])
    torch.testing.assert_close(logits, case.log("logits_f64"), atol=1e-10, rtol=0)
    assert (logits - case.log("logits_raw_model")).abs().max() > 0.1 or case.kind == "class_pretrained"  # it has no EMA
    single = VQDiffusionPipeline.from_pretrained(case.saved)
    condition = case.condition.float() if case.kind == "text_ithq" else case.condition
    torch.testing.assert_close(
        single.transformer(case["x_t"], condition, case["t"]), case["logits"].transpose(1, 2), atol=2e-5, rtol=0
    )


def test_null_class_is_the_mean_of_all(case):
    if case.kind == "class_pretrained":
        logits = case.pipe.transformer(case["x_t"], torch.full((3,), 11), case["t"])
        torch.testing.assert_close(logits, case.log("logits_null1000"), atol=1e-5, rtol=0)
        mixed = case.pipe.transformer(case["x_t"], torch.tensor([3, 11, 5]), case["t"])
        torch.testing.assert_close(mixed[1], logits[1])  # row by row, where the original gives all the mean or fails


def test_text(case):
    if case.kind == "text_ithq":
        hidden = encode_ids(case.pipe.text_encoder, case["cond_token"])
        torch.testing.assert_close(hidden, case["cond_emb_fp32"].double(), atol=1e-5, rtol=0)
        torch.testing.assert_close(hidden, case["cond_emb_fp16"].double(), atol=2e-3, rtol=0)  # as the original runs it
        torch.testing.assert_close(case.pipe.null_embeds()[0], case["empty_text_embed"].float().double())
        assert case["cond_token"][-1].tolist() == tokenize(case.pipe.tokenizer, [""])[0][0].tolist()


def test_forward_process_and_posterior(case):
    schedule = case.pipe.schedule
    for t in case["t_list"].tolist():
        same(q_log_probs(case["x_0"], t + 1, schedule, dtype=torch.float64), case.log(f"q_pred_{t}"))
        predicted = case.log("log_p_x0")[..., :-1]
        same(q_posterior(predicted, case["x_t"], t + 1, schedule), case.log(f"post_model_{t}"))
    mixed = q_posterior(case.log("log_p_x0")[..., :-1], case["x_t"], case["t"] + 1, schedule)
    same(mixed, case.log("post_model_mixed_t"))


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("rate", [None, 0.86, 0.5])
def test_guidance_and_truncation(case, scale, rate):
    name = f"cf_g{scale}" + (f"_top{rate}" if rate else "")
    if name not in case.arrays:
        pytest.skip(f"{case.kind} has no guidance")
    ours, theirs = case.guided(case["t"], scale, rate or 1.0), case.log(name)[..., :-1]
    same(ours, theirs)
    if rate:
        assert torch.equal(ours == -torch.inf, theirs == -70)


def test_guided_and_truncated_steps(case):
    scale = 1.0 if case.kind == "uncond" else 3.0
    for t in (99, 50, 1, 0):
        predicted = case.guided(torch.full((3,), t), scale, 0.86)
        ours = q_posterior(predicted, case["x_t"], t + 1, case.pipe.schedule)
        same(ours, case.log(f"p_pred_guided_trunc_{t}"), atol=1e-5)


def test_the_whole_chain_token_by_token(case):
    if "chain_tokens" not in case.arrays:
        pytest.skip(f"{case.kind} has no chain")
    pipe, scale = case.pipe, 1.0 if case.kind == "uncond" else 3.0
    uniform = (case["chain_uniform_u16"].double() + 0.5) / 65536  # [100, 1, K + 1, L], from t = 99 on
    noise = -torch.log(-torch.log(uniform.float() + 1e-30) + 1e-30)
    null = pipe.null_embeds() if case.kind == "text_ithq" else None
    x_t = torch.full((1, pipe.length), pipe.schedule.mask_id)
    first = None if case.condition is None else case.condition[:1]
    for step, t in enumerate(range(99, -1, -1)):
        with torch.no_grad():
            predicted = pipe.transformer(x_t, first, torch.tensor(t)).log_softmax(-1)
            if scale != 1:
                predicted = guide(predicted, pipe.transformer(x_t, null, torch.tensor(t)).log_softmax(-1), scale)
        log_p = q_posterior(truncate(predicted, 0.86).clamp(min=-70), x_t, t + 1, pipe.schedule)
        x_t = (log_p.transpose(1, 2).clamp(min=-70) + noise[step]).argmax(1)
        assert x_t[0].tolist() == case["chain_tokens"][step].tolist(), f"at t = {t}"
    torch.testing.assert_close((pipe.decode(x_t) + 1) * 127.5, case["chain_image"], atol=1e-3, rtol=0)


def test_the_loss_and_its_terms(case):
    pipe, t = case.pipe, case["loss_t"]
    if case.kind == "text_ithq":
        condition = case["loss_cond"].double()
    else:
        condition = case["loss_label"] if case.kind == "class_pretrained" else None
    predicted = pipe.transformer(case["loss_x_t"], condition, t).log_softmax(-1)
    loss, terms = training_loss(
        predicted, case["loss_x_0"], case["loss_x_t"], t + 1, pipe.schedule, p_t=case["loss_pt"].double(),
        auxiliary_weight=float(case["loss_aux_weight"]), adaptive=bool(case["loss_adaptive"]),
    )  # fmt: skip
    torch.testing.assert_close(loss, case["loss_total"].double(), rtol=2e-5, atol=0)
    theirs = torch.where(t == 0, case["loss_decoder_nll"], case["loss_kl"]).double() / pipe.length
    torch.testing.assert_close(terms, theirs, rtol=1e-4, atol=1e-6)


def test_draws_pictures_from_what_it_reads(case, seeded):
    pipe = VQDiffusionPipeline.from_pretrained(case.saved)
    pipe.set_progress_bar_config(disable=True)
    prompt = {"text_ithq": "a teddy bear", "class_pretrained": [3, "7"], "uncond": None}[case.kind]
    images = pipe(prompt, num_inference_steps=3, generator=seeded(0), output_type="pt").images
    assert images.shape[0] == (2 if case.kind == "class_pretrained" else 1) and images.isfinite().all()
    assert main(["generate", *(["3"] if case.kind == "class_pretrained" else ["bear"] if prompt else []), "--model",
                 str(case.saved), "--steps", "2", "--out", str(case.saved.parent / "picture.png")]) == 0  # fmt: skip


def test_defaults_are_the_published_ones(case):
    expected = {"text_ithq": (5.0, 1.0), "class_pretrained": (1.0, 0.86), "uncond": (1.0, 0.86)}[case.kind]
    assert (case.pipe.defaults["guidance_scale"], case.pipe.defaults["truncation_rate"]) == expected


def test_the_published_tokenizer(data):
    tokenizer = published_tokenizer()
    for known in json.loads((data / "original" / "tokenizer.json").read_text()):
        # The original mends HTML and curly quotes first, and its padding is no special token.
        text = html.unescape(known["text"]).translate(str.maketrans("“”", '""'))
        if "!" in text:
            text, known["token"] = text.rstrip("!"), [*known["token"][:6], *known["token"][7:], 0]
        assert tokenize(tokenizer, [text])[0][0].tolist() == known["token"], text


# ------------------------------------------------------------------------------------------ full size


def configuration(kind, conv, heads, width, layers, codes, positions, spatial=32, **more):
    """A YAML of the original at full size, as far as converting reads it."""
    codec, attention = {
        "ithq": ("ema_vqvae.PatchVQVAE", "selfcross"),
        "text": ("taming_gumbel_vqvae.TamingGumbelVQVAE", "selfcross"),
        "imagenet": ("taming_gumbel_vqvae.TamingVQVAE", "selfcondition"),
        "ffhq": ("taming_gumbel_vqvae.TamingFFHQVQVAE", "self"),
    }[kind]
    network = {"attn_type": attention, "n_embd": width, "n_head": heads, "n_layer": layers, "mlp_hidden_times": 4,
               "content_seq_len": positions, "condition_dim": 512, **more}  # fmt: skip
    if conv:
        network["mlp_type"] = "conv_mlp"
    embedding = {"num_embed": codes, "spatial_size": [spatial, spatial]}
    quantized = {"text": 2887, "imagenet": 974}.get(kind, 0)
    return {"model": {"params": {
        "content_codec_config": {"target": codec, "params": {"quantize_number": quantized, "mapping_path": "map.pt"}},
        "diffusion_config": {"params": {"diffusion_step": 100, "transformer_config": {"params": network},
                                        "content_emb_config": {"params": embedding}}},
    }}}  # fmt: skip


FULL = {  # layout, configuration, codes of the codec, parameters of the denoiser, defaults
    "ithq_learnable": (("ithq", False, 16, 1408, 36, 4096, 1024), 4096, 1_359_274_624, (5.0, 1.0)),
    "text_pretrained": (("text", False, 16, 1024, 19, 2887, 1024), 8192, 388_780_871, (1.0, 0.86)),
    "text_learnable": (("text", False, 16, 1024, 19, 2887, 1024), 8192, 388_780_871, (3.0, 1.0)),
    "imagenet_pretrained": (("imagenet", True, 16, 512, 24, 974, 256), 16384, 518_025_678, (1.0, 0.86)),
    "imagenet_learnable": (("imagenet", True, 16, 512, 24, 974, 256), 16384, 518_037_966, (1.5, 0.94)),
    "ffhq_unconditional": (("ffhq", True, 16, 512, 20, 1024, 256), 1024, 411_185_664, (1.0, 0.86)),
}


@pytest.mark.parametrize("name", FULL)
def test_every_released_checkpoint_has_a_place_for_every_tensor(name, data, tmp_path, monkeypatch):
    """Full-size names and shapes; the tensors take no memory, so nothing here is heavy but the Python."""
    arguments, codes, parameters, defaults = FULL[name]
    more = {"class_number": 1001 if name == "imagenet_learnable" else 1000} if arguments[0] == "imagenet" else {}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(configuration(*arguments, **more)))
    if arguments[0] in ("text", "imagenet"):
        table = torch.zeros(codes, dtype=torch.int64)
        table[: arguments[5]] = torch.arange(arguments[5])
        torch.save(table, tmp_path / "map.pt")
    layout = json.loads(gzip.decompress((data / "original" / "layouts.json.gz").read_bytes()))[name]
    content = {
        "model": {
            key: torch.zeros((), dtype=getattr(torch, kind)).expand(shape) for key, (kind, shape) in layout.items()
        }
    }
    schedule = VQDiffusionPipeline.from_pretrained(data / "tiny_pipeline").schedule  # the released one, T = 100
    for letter, curve in (("a", schedule.alpha_bar), ("c", schedule.gamma_bar)):
        content["model"][f"transformer.log_cumprod_{letter}t"] = torch.cat([curve[1:], curve[:1]]).log().float()
    content["ema"] = {
        key.removeprefix("transformer."): t for key, t in content["model"].items() if key.startswith("transformer.")
    }
    monkeypatch.setattr(
        "vqlearn.checkpoints.original.read_pickle", lambda path: content if path.suffix == ".pth" else torch.load(path)
    )
    pipe = VQDiffusionPipeline.from_original(tmp_path / "ckpt.pth", tmp_path / "config.yaml")
    assert sum(p.numel() for p in pipe.transformer.parameters()) == parameters
    assert (pipe.defaults["guidance_scale"], pipe.defaults["truncation_rate"]) == defaults
    assert pipe.vqvae.config["num_vq_embeddings"] == codes and pipe.vqvae.num_tokens == arguments[5]
    assert pipe.vqvae.factor == (16 if arguments[6] == 256 else 8)
    if arguments[0] == "imagenet":
        assert pipe.conditions.number("goldfish") == 1 and pipe.conditions.number("Carassius auratus") == 1
        assert pipe.transformer.config["num_classes"] == 1000
        with pytest.raises(ValueError, match="names 2 classes: 134 'crane'"):
            pipe.conditions.number("crane")


def test_a_gumbel_codec_with_a_mapping(tmp_path):
    """The kind of codec that has no golden file: the most likely code, then the token that stands for it."""
    from vqlearn import VQModel

    torch.manual_seed(0)
    codec = VQModel(block_out_channels=[8, 8], down_block_types=["DownEncoderBlock2D"] * 2, norm_num_groups=4,
                    up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=4, num_vq_embeddings=12, vq_embed_dim=4,
                    quantizer="gumbel", num_tokens=5)  # fmt: skip
    codec.quantize.kept.copy_(torch.tensor([1, 3, 4, 8, 11]))
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    logits = torch.einsum("kd,bdhw->bkhw", codec.quantize.proj.weight[:, :, 0, 0], codec.latents(images))
    codes = (logits + codec.quantize.proj.bias[:, None, None]).argmax(1).flatten(1)
    where = {1: 0, 3: 1, 4: 2, 8: 3, 11: 4}
    assert codec.encode(images).tolist() == [[where.get(code, 0) for code in row] for row in codes.tolist()]
    tokens = torch.tensor([[0, 1, 2, 3]])
    vectors = codec.quantize.embedding.weight[torch.tensor([1, 3, 4, 8])].T.view(1, 4, 2, 2)
    torch.testing.assert_close(codec.decode(tokens), codec.decode_latents(vectors))
    with pytest.raises(ValueError, match=r"0 ... 4, got up to 5"):
        codec.decode(torch.tensor([[0, 1, 2, 5]]))


# ------------------------------------------------------------------------------------------ bad input


def broken(tmp_path, data, kind="class_pretrained", **replaced):
    """The arguments of `convert` for a tiny checkpoint of which some files are others."""
    folder = data / "original" / kind
    files = {"checkpoint": folder / "ckpt.pth", "config": folder / "config.yaml", "codec_config": folder / "codec.yaml",
             "mapping": folder / "mapping.pt", **replaced}  # fmt: skip
    return files.pop("checkpoint"), files.pop("config"), files


def written(path, text):
    path.write_text(text)
    return path


def edited(data, tmp_path, old, new, kind="class_pretrained"):
    text = (data / "original" / kind / "config.yaml").read_text()
    assert old in text
    return written(tmp_path / "edited.yaml", text.replace(old, new))


BAD = {
    "no checkpoint": (lambda t, d: {"checkpoint": t / "none.pth"}, "none.pth is missing"),
    "a text as checkpoint": (lambda t, d: {"checkpoint": written(t / "x.pth", "hello")}, "not a readable torch file"),
    "no config": (lambda t, d: {"config": t / "none.yaml"}, "none.yaml is missing"),
    "a list as config": (lambda t, d: {"config": written(t / "c.yaml", "- 1")}, "must be a section"),
    "broken YAML": (lambda t, d: {"config": written(t / "c.yaml", "a: [")}, "not plain YAML"),
    "a tag that runs code": (
        lambda t, d: {"config": edited(d, t, "K: 16", "K: !!python/object/apply:os.mkdir ['ran']")},
        "not plain YAML.*python/object",
    ),
    "other heads": (lambda t, d: {"config": edited(d, t, "n_head: 2", "n_head: 5")}, "divisible by n_head"),
    "other layers": (lambda t, d: {"config": edited(d, t, "n_layer: 1", "n_layer: 2")}, "lacks 1[0-9] tensors"),
    "millions of layers": (lambda t, d: {"config": edited(d, t, "n_layer: 1", "n_layer: 9999999")}, "num_layers must"),
    "a word for a number": (lambda t, d: {"config": edited(d, t, "n_embd: 32", "n_embd: wide")}, "n_embd must be a wh"),
    "another kind": (lambda t, d: {"config": edited(d, t, "selfcondition", "crossself")}, "attn_type must be"),
    "no mapping": (lambda t, d: {"mapping": None}, "give it with --mapping"),
    "a mapping of other size": (lambda t, d: {"mapping": saved(t, torch.zeros(3, dtype=torch.int64))}, "must hold 40"),
    "a mapping out of order": (
        lambda t, d: {"mapping": saved(t, torch.arange(39, -1, -1).clamp(max=15))},
        "in rising order",
    ),
    "another codec": (
        lambda t, d: {"codec_config": d / "original" / "text_ithq" / "codec.yaml"},
        "n_embed is 24, the codec in the checkpoint has 40",
    ),
    "a checkpoint of another model": (
        lambda t, d: {"checkpoint": d / "original" / "uncond" / "ckpt.pth", "codec_config": None},
        "n_embed|must hold 32|lacks",
    ),
    "no model in it": (lambda t, d: {"checkpoint": saved(t, {"state": torch.zeros(2)})}, "no tensors under 'model'"),
}  # fmt: skip


def saved(folder, value):
    torch.save(value, folder / "value.pth")
    return folder / "value.pth"


@pytest.mark.parametrize("damage", BAD)
def test_bad_input_is_one_clear_error(damage, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, sentence = BAD[damage]
    checkpoint, config, rest = broken(tmp_path, data, **make(tmp_path, data))
    with pytest.raises(CheckpointError, match=sentence) as caught:
        VQDiffusionPipeline.from_original(checkpoint, config, **rest)
    assert "\n" not in str(caught.value) and not (tmp_path / "ran").exists()


def test_a_pickle_that_runs_code_is_refused(data, tmp_path):
    class Evil:
        def __reduce__(self):
            return (__import__("os").mkdir, (str(tmp_path / "ran"),))

    torch.save({"model": {"a": torch.zeros(1)}, "extra": Evil()}, tmp_path / "evil.pth")
    checkpoint, config, rest = broken(tmp_path, data, checkpoint=tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        VQDiffusionPipeline.from_original(checkpoint, config, **rest)
    assert not (tmp_path / "ran").exists()


def test_the_command_finds_the_files_that_the_config_names(data, tmp_path, capsys):
    folder = data / "original" / "class_pretrained"
    (tmp_path / "configs").mkdir()
    (tmp_path / "help_folder" / "statistics").mkdir(parents=True)
    (tmp_path / "configs" / "c.yaml").write_text((folder / "config.yaml").read_text())
    (tmp_path / "help_folder/statistics/tiny_vq_f1_mapping.pt").write_bytes((folder / "mapping.pt").read_bytes())
    command = ["convert", str(folder / "ckpt.pth"), "--config", str(tmp_path / "configs/c.yaml"), "--out"]
    assert main([*command, str(tmp_path / "model")]) == 0
    assert "class, 11 of them" in capsys.readouterr().out
    assert VQDiffusionPipeline.from_pretrained(tmp_path / "model").transformer.reads == "class"
    assert main([*command, str(tmp_path / "configs")]) == 2  # there is something else
    assert "choose a new folder" in capsys.readouterr().err and len(list((tmp_path / "configs").iterdir())) == 1


def test_a_wrong_prompt_is_named(case):
    pipe = case.pipe
    wrong = {
        "text_ithq": [(None, "must be a string"), ([], "non-empty list"), (" ", "must not be empty"),
                      (3, "must be a string")],
        "class_pretrained": [(11, "from 0 to 10"), (-1, "from 0 to 10"), ("goldfish", "names no class .*from 0 to 10"),
                             (None, "must be a class"), ([], "non-empty list"), (True, "must be a class"),
                             (1.5, "must be a class")],
        "uncond": [("a bear", "reads no prompt"), (3, "reads no prompt")],
    }[case.kind]  # fmt: skip
    for prompt, sentence in wrong:
        with pytest.raises(ValueError, match=sentence):
            pipe(prompt, num_inference_steps=1)
    if case.kind == "uncond":
        with pytest.raises(ValueError, match="guidance_scale must be 1"):
            pipe(num_inference_steps=1, guidance_scale=2.0)
