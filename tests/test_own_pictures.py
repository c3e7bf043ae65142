"""Pictures of one's own, from a folder to a model that draws: the page is true, and a run goes on exactly."""

import csv
import re
from types import SimpleNamespace

import pytest
import torch
from PIL import Image, ImageDraw
from torch.utils.flop_counter import FlopCounterMode

from tests import pages
from vqlearn import VQDiffusionPipeline, VQModel
from vqlearn.__main__ import main
from vqlearn.data import folder as data_folder
from vqlearn.data import preparing, store
from vqlearn.data.folder import PictureFolder
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings
from vqlearn.training import CodecRecipe, CodecStage, DenoiserRecipe, DenoiserStage, Engine, own, samples, tokens
from vqlearn.training.pipelines import conditions_of, cut_captions, new_pipeline, prepared
from vqlearn.training.process import locked
from vqlearn.training.samples import Sampled, grid
from vqlearn.training.sizes import SIZES, Size, published_codec

PAGE = pages.DOCS / "train_your_own.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """Samples and judgements that take no time."""
    monkeypatch.setattr(samples, "STEPS", 2)
    monkeypatch.setattr(own, "TIMES", 2)


def codec(codes=32):
    return VQModel(
        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=(4, 4, 8), latent_channels=8, num_vq_embeddings=codes, norm_num_groups=2, vq_embed_dim=4,
        mid_block_add_attention=False,
    )  # fmt: skip


SMALL = Size(8, codec, 1, 2, 16, True, 1, 16, 8)
QUIET = {"progress": False, "save_every": 2}


def paint(folder, count=20, side=32):
    """Discs and bars of any colour at any place, as PNG files, and their captions."""
    folder.mkdir(exist_ok=True)
    generator, captions = torch.Generator().manual_seed(0), {}
    for number in range(count):
        image = Image.new("RGB", (side, side), (230, 240, 250))
        *color, x, y = torch.randint(0, side - 8, (5,), generator=generator).tolist()
        box, kind = (x, y, x + 8, y + 6), ("disc", "bar")[number % 2]
        pen = ImageDraw.Draw(image)
        (pen.ellipse if kind == "disc" else pen.rectangle)(box, fill=tuple(10 * c for c in color))
        image.save(folder / f"{number:02}.png")
        captions[f"{number:02}.png"] = f"A {kind}, {'left' if x < 12 else 'right'}"
    return captions


def write(folder, captions):
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "caption"), *captions.items()])


def spoil(folder, captions):
    """What folders of one's own have besides good pictures."""
    turned, exif = Image.new("CMYK", (48, 32), (0, 90, 90, 0)), Image.Exif()
    exif[0x0112] = 6
    turned.save(folder / "IMG_0001.JPG", exif=exif)
    (folder / "copy.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "cut.png").write_bytes((folder / "01.png").read_bytes()[:100])
    (folder / "empty.png").touch()
    (folder / "IMG_0002.HEIC").write_bytes(b"x")
    return captions | {"IMG_0001.JPG": "A red wall", "lost.png": "A disc", "19.png": "  "}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which the page was run, what it has printed, and the names that it has defined when it ends."""
    folder, monkeypatch, names = tmp_path_factory.mktemp("own"), pytest.MonkeyPatch(), {}
    write(folder / "my-pictures", spoil(folder / "my-pictures", paint(folder / "my-pictures")))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(samples, "STEPS", 2)
    monkeypatch.setattr(own, "TIMES", 2)
    printed = []
    names["print"] = lambda *values: printed.append(" ".join(map(str, values)))
    for block in BLOCKS:
        exec(block, names)
    monkeypatch.undo()
    return folder, names, "\n".join(printed)


def test_the_page_shows_the_report_of_a_folder_that_is_not_all_good(ran):
    """Which pictures are held out depends on the bytes that a version of Pillow writes."""
    folder, _, printed = ran

    def comparable(text):
        return re.sub(r"\d+ to learn from, \d+ held out", "", text)

    shown = pages.read(PAGE, "report").strip("`\n")
    assert comparable(shown) in comparable(printed) and "skipped:\n" in shown and "mended:\n" in shown
    assert comparable(shown) in comparable((folder / "run" / "data.txt").read_text(encoding="utf-8"))


def test_both_stages_learned_from_the_pictures_and_the_model_draws(ran):
    folder, names, printed = ran
    for stage in ("codec", "denoiser"):
        with (folder / "run" / stage / "log.csv").open(newline="") as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
        assert len(losses) == 10 and losses[-1] < losses[0]
    with Image.open(folder / "run" / "drawn.png") as image:
        assert image.size == (32, 32)
    with Image.open(folder / "run" / "samples" / "000010.png") as image:
        captions = {text for index in range(20) for text in names["pictures"].conditions(index)}
        assert image.width == 4 * 132 - 4 and len(captions) == 5 and image.height == 2 * 132 - 4
    loaded = VQDiffusionPipeline.from_pretrained(folder / "run" / "model")
    loaded.set_progress_bar_config(disable=True)
    assert len(loaded("a naïve bar, on the right", num_inference_steps=2).images) == 1
    assert re.search(r"\d+ pictures, codec \d+\.\d dB, \d+\.\d+ ± \d+\.\d+ bits per token$", printed)


def test_an_objective_of_ones_own(ran):
    _, names, _ = ran
    assert names["stage"].settings()["objective"] == "masked_tokens_only"
    assert names["figures"].keys() == {"loss", "masked", "gradient"} and 0 < names["figures"]["masked"] < 1


def test_the_plan_for_ten_million_is_what_its_code_computes(ran):
    _, names, _ = ran
    text = PAGE.read_text(encoding="utf-8")
    for side, values in names["plan"].items():
        (line,) = re.findall(rf"^\| {side} x {side} pixels, .*$", text, re.M)
        cells = [float(cell.split()[0]) for cell in line.split("|")[2:-1]]
        assert cells == pytest.approx(values, rel=0.01, abs=0.005)
    assert f"takes {names['gpu_hours']:.2f} hours of a GPU" in text and store.KEY + store.SUM == 32
    assert (preparing.AT_ONCE, tokens.AT_ONCE) == (256, 64)


def test_the_plan_counts_the_operations_of_the_encoder(ran):
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        published_codec().latents(torch.empty(1, 3, 256, 256))
    assert counted.get_total_flops() == pytest.approx(ran[1]["encoding"], rel=1e-3)


def test_the_command_trains_and_goes_on_and_tells_of_changed_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    captions = paint(tmp_path / "p", 8, side=8 + 8)
    long = {name: f"{caption}, {'and again ' * 40}" for name, caption in captions.items()}
    command = ["train", "--data", "p", "--size", "8", "--codec-steps", "2", "--steps", "2", "--out", "run"]
    command += ["--discriminator-from", "1"]
    assert main(command) == 0
    head, first, second = (tmp_path / "run" / "codec" / "log.csv").read_text().splitlines()
    assert head.endswith(",discriminator,told_apart") and first.endswith("nan,nan") and not second.endswith("nan")
    shown = capsys.readouterr().out
    assert "p: 8 pictures, 8 used in 8 x 8 pixels\nno captions and no classes\n" in shown
    assert re.search(r"wrote run/model: .*train: \d pictures, codec .* dB, .* bits per token\n$", shown)
    assert main(["generate", "--model", "run/model", "--steps", "2", "--out", "x.png"]) == 0
    assert capsys.readouterr().out == "wrote x.png\n"
    assert main(command) == 0  # all is there: nothing is learned again
    write(tmp_path / "p", captions)
    assert main(command) == 2
    assert "the run in 'run' has begun with other pictures, captions or pixels; choose" in capsys.readouterr().err
    write(tmp_path / "p", long)
    assert main([*command[:-3], "long", "--codec-from", "run/model"]) == 0  # twice each, in pictures and in the bound
    remarks = capsys.readouterr().err.split("vqlearn: note: the prompt is longer than 32 tokens; this part was cut off")
    assert 1 < len(remarks) <= 1 + len(long)


@pytest.mark.parametrize(
    "sentence, more",
    {
        "there is no folder 'nowhere'; make it and put": ["--data", "nowhere"],
        "'p/run' lies in the folder of the pictures; choose one elsewhere": ["--data", "p", "--out", "p/run"],
        "--objective ideal is for the scenes": ["--data", "p", "--objective", "ideal"],
        "--autoregressive means nothing with --data p": ["--data", "p", "--autoregressive"],
        "--captions means nothing with --data scenes": ["--captions", "p/captions.csv"],
        "--objective means nothing with --data emoji": ["--data", "emoji", "--objective", "bound"],
        "--size is that of the model to start from": ["--data", "p", "--size", "8", "--start-from", "shipped"],
        "argument --size: must be a whole number from 8 to 1024, got 4": ["--data", "p", "--size", "4"],
        "must be a multiple of 4 for this codec, got 30": ["--data", "p", "--size", "30"],
        "captions must be in a file that ends in .csv": ["--data", "p", "--captions", "p/00.png"],
        "this model reads a text, and the pictures have neither": ["--data", "p", "--start-from", "shipped"],
        "are for a codec that learns: give --codec-steps": [
            *("--data", "p", "--size", "8", "--codec-from", "shipped", "--discriminator-from", "9"),
        ],
        "'p' is no vision model whose layers": ["--data", "p", "--size", "8", "--perceptual", "p"],
        "accumulate must divide the 16 rows of a batch in a process, got 3": ["--data", "p", "--accumulate", "3"],
        "argument --start-from: must be a path, got ''": ["--data", "p", "--start-from", ""],
        "'run/pictures' is where a run in 'run' writes; choose another": ["--data", "run/pictures"],
    }.items(),
)
def test_what_does_not_go_together_is_one_sentence(sentence, more, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "p", 2)
    (tmp_path / "run" / "pictures").mkdir(parents=True)
    try:
        status = main(["train", "--out", "run", *more])
    except SystemExit as stop:  # argparse
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and sentence in error and "Traceback" not in error


def test_what_is_wrong_without_the_pictures_is_said_before_they_are_read(tmp_path, monkeypatch, capsys):
    """Reading ten million takes hours."""
    monkeypatch.setattr(own, "read_folder", None)
    for more in (["--size", "30"], ["--accumulate", "5"], ["--perceptual", str(tmp_path)], ["--codec-from", "nowhere"]):
        assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "run"), *more]) == 2
    assert capsys.readouterr().err.count("vqlearn: ") == 4
    with pytest.raises(ValueError, match="accumulate must divide the 16 rows of a batch in a process, got 32"):
        Engine(accumulate=32).check(16)


def test_a_folder_that_is_being_trained_in_is_left_alone(tmp_path, capsys):
    paint(tmp_path / "p", 2)
    with locked(tmp_path / "run"):
        assert main(["train", "--data", str(tmp_path / "p"), "--out", str(tmp_path / "run"), "--size", "8"]) == 2
    assert f"uses the folder {tmp_path / 'run'}; wait for its end, or choose another" in capsys.readouterr().err
    assert not [*(tmp_path / "run").iterdir()]


# ------------------------------------------------------------------------------------------ in Python


def test_pictures_of_another_size_do_not_take_the_place_of_those_of_a_run(tmp_path, monkeypatch):
    paint(tmp_path / "p", 2)
    first = own.read_folder(tmp_path / "p", tmp_path / "run", 8, progress=False)
    before = first.pixels.copy()
    own.read_folder(tmp_path / "p", tmp_path / "run", 16, progress=False)
    monkeypatch.setattr(preparing, "look", lambda *_, **__: pytest.fail("a picture is read again"))
    again = own.read_folder(tmp_path / "p", tmp_path / "run", 8, progress=False)
    assert (first.pixels == before).all() and (again.pixels == before).all()


def test_a_folder_of_pictures_that_are_all_held_out_is_named(tmp_path, monkeypatch):
    paint(tmp_path / "p", 2)
    monkeypatch.setattr(data_folder, "HELD_OUT", 256)
    pictures = own.read_folder(tmp_path / "p", tmp_path / "run", 8, progress=False)
    with pytest.raises(ValueError, match=r"nothing to learn from: '.*p' has 2 pictures, all held out; add some"):
        own.learn_codec(new_pipeline(pictures, SMALL), pictures, tmp_path / "run", CodecRecipe(steps=1, batch=2))


@pytest.mark.parametrize(
    "names", [("100", "7"), ("1", "0", "10"), ("Cat", "cat"), ("a, b", "a"), ("caf\udce9", "x\u200b")]
)
def test_classes_may_have_any_names(names, tmp_path):
    """Numbers are names here, too, as in folders of digits."""
    for number, name in enumerate(names):
        (tmp_path / "p" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (number, 9, 9)).save(tmp_path / "p" / name / "1.png")
    pictures = own.read_folder(tmp_path / "p", tmp_path / "run", 8, progress=False)
    pipe = new_pipeline(pictures, SMALL)
    said = conditions_of(pipe, pictures)
    assert {one for (one,) in said} == {*range(len(names))}
    for entry, (number,) in zip(pictures.entries, said, strict=True):
        assert pipe.conditions.number(entry.label) == number and pipe.defaults["labels"][number] == entry.label
    assert all(label.isprintable() and label.encode() for label in pictures.classes)


@pytest.mark.parametrize("nothing", ["\u200b", "\x00\x1b", "\u3164 \ufe0f", "\u00ad"])
def test_a_caption_that_shows_nothing_is_none(nothing, tmp_path):
    for name, caption in zip(paint(tmp_path / "p", 2, side=16), (nothing, "a bar"), strict=True):
        (tmp_path / "p" / name).with_suffix(".txt").write_text(caption)
    pictures = PictureFolder(tmp_path / "p", 8)
    assert [row[1] for row in pictures] == ["a bar"] and pictures.report.others == {"empty caption": ["00.txt"]}


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures of 8 x 8 pixels with two captions each."""
    for name, caption in paint(tmp_path / "p", 12, side=16).items():
        (tmp_path / "p" / name).with_suffix(".txt").write_text(f"{caption}\nsomething {name}")
    return tmp_path / "p"


def learned(folder, out, steps=6):
    pictures = own.read_folder(folder, out, 8, progress=False)
    pipe = new_pipeline(pictures, SMALL)
    own.learn_codec(pipe, pictures, out, CodecRecipe(steps=4, batch=4), **QUIET)
    recipe = DenoiserRecipe(steps=steps, batch=4)
    return own.learn_denoiser(pipe, pictures, out, recipe, prompts=["a bar"], sample_every=2, **QUIET)


def weights(pipe):
    parts = (pipe.vqvae, pipe.transformer, pipe.text_encoder, pipe.learned_classifier_free_sampling_embeddings)
    return [tensor for part in parts for tensor in part.state_dict().values()]


def test_an_interrupted_run_ends_with_the_same_weights(folder, tmp_path, monkeypatch):
    whole = weights(learned(folder, tmp_path / "a"))
    real = Sampled.step

    def stopped(self, number):
        if number == 5:
            raise KeyboardInterrupt
        return real(self, number)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Sampled, "step", stopped)
        learned(folder, tmp_path / "b")
    for name in folder.iterdir():
        name.touch()  # read again, and found to be the same
    assert all(torch.equal(*both) for both in zip(whole, weights(learned(folder, tmp_path / "b")), strict=True))
    drawn = sorted(path.name for path in (tmp_path / "b" / "samples").iterdir())
    assert drawn == ["000002.png", "000004.png", "000006.png"]
    for name in drawn:
        assert (tmp_path / "a" / "samples" / name).read_bytes() == (tmp_path / "b" / "samples" / name).read_bytes()


def test_a_denoiser_does_not_go_on_with_another_codec(folder, tmp_path):
    pipe = learned(folder, tmp_path / "run", steps=2)
    pictures = own.read_folder(folder, tmp_path / "run", 8, progress=False)
    with torch.no_grad():
        pipe.vqvae.encoder.conv_in.bias += 1
    with pytest.raises(ValueError, match=r"the run in '.*run' has begun with another codec; choose another folder"):
        own.learn_denoiser(pipe, pictures, tmp_path / "run", DenoiserRecipe(steps=2, batch=4), **QUIET)
    (tmp_path / "run" / "denoiser" / "checkpoint.pt").unlink()
    own.learn_denoiser(pipe, pictures, tmp_path / "run", DenoiserRecipe(steps=1, batch=4), prompts=["a"], **QUIET)


def test_drawing_samples_changes_nothing_that_is_learned(folder, tmp_path):
    pictures = own.read_folder(folder, tmp_path / "r", 8, progress=False)
    found = []
    for every in (1, 99):
        pipe = new_pipeline(pictures, SMALL)
        recipe = DenoiserRecipe(steps=3, batch=4)
        out = tmp_path / f"r{every}"
        pipe = own.learn_denoiser(pipe, pictures, out, recipe, prompts=["a bar"], sample_every=every, **QUIET)
        found.append(weights(pipe))
    assert all(torch.equal(*both) for both in zip(*found, strict=True))
    assert len(list((tmp_path / "r1" / "samples").iterdir())) == 3


def test_prompts_are_tried_before_the_first_update(folder, tmp_path, monkeypatch):
    pictures = own.read_folder(folder, tmp_path / "r", 8, progress=False)
    pipe, recipe = new_pipeline(pictures, SMALL), DenoiserRecipe(steps=1, batch=4)
    monkeypatch.setattr(DenoiserStage, "step", lambda *_: pytest.fail("an update"))
    for wrong in (["a bar", 5], [" "], [None]):
        with pytest.raises(ValueError, match="prompt must"):
            own.learn_denoiser(pipe, pictures, tmp_path / "r", recipe, prompts=wrong, **QUIET)
    stage = SimpleNamespace(pipe=pipe, mean_networks=lambda: None)
    assert Sampled(stage, [], tmp_path, 1).drawn() == [] and Sampled(stage, "a bar", tmp_path, 1).prompts == ["a bar"]


@pytest.mark.parametrize("layout", ["text", "class", "nothing"])
def test_what_a_model_reads_is_what_the_folder_says(layout, tmp_path):
    captions = paint(tmp_path / "p", 8, side=16)
    if layout == "class":
        for name in captions:
            place = tmp_path / "p" / ("bar" if "bar" in captions[name] else "disc") / name
            place.parent.mkdir(exist_ok=True)
            (tmp_path / "p" / name).rename(place)
    elif layout == "text":
        write(tmp_path / "p", captions)
    pictures = own.read_folder(tmp_path / "p", tmp_path / "run", 8, progress=False)
    pipe = new_pipeline(pictures, SMALL)
    assert pictures.reads == layout == pipe.transformer.reads
    pipe = own.learn_denoiser(pipe, pictures, tmp_path / "run", DenoiserRecipe(steps=1, batch=4), **QUIET)
    pipe.set_progress_bar_config(disable=True)
    prompt = {"text": "a bar", "class": "disc", "nothing": None}[layout]
    assert len(pipe(prompt, 2).images) == 1
    assert pipe.defaults.get("labels") == (["bar", "disc"] if layout == "class" else None)


def test_a_long_caption_is_cut_and_named(folder, tmp_path):
    (folder / "03.txt").write_text("a bar " * 20)
    pictures = own.read_folder(folder, tmp_path / "run", 8, progress=False)
    pipe = new_pipeline(pictures, SMALL)
    assert cut_captions(pipe, conditions_of(pipe, pictures)) == [3]
    report = own.write_report(pipe, pictures, tmp_path / "run")
    assert "1 caption of more than 8 tokens, the end cut off: 03.png" in report


# ------------------------------------------------------------------------------------------ what has learned before


def test_a_model_learns_on_with_its_codec_and_a_null_text_that_learns(folder, tmp_path):
    pictures = PictureFolder(folder, 8)
    pipe = new_pipeline(pictures, SMALL)
    pipe.learned_classifier_free_sampling_embeddings = LearnedClassifierFreeSamplingEmbeddings(False)
    empty, before = pipe.null_embeds()[0].clone(), [one.clone() for one in pipe.vqvae.state_dict().values()]
    pipe = prepared(pipe, pictures)
    null_text = pipe.learned_classifier_free_sampling_embeddings
    assert null_text.learnable and torch.equal(null_text.embeddings, empty)
    recipe = DenoiserRecipe(steps=2, batch=4, null_share=0.5)
    pipe = own.learn_denoiser(pipe, pictures, tmp_path / "run", recipe, prompts=["a bar"], **QUIET)
    assert all(torch.equal(*both) for both in zip(before, pipe.vqvae.state_dict().values(), strict=True))
    moved = pipe.learned_classifier_free_sampling_embeddings.embeddings - empty
    assert 0 < moved.abs().max() < 0.1 and DenoiserRecipe().null_share == 0.1
    with pytest.raises(ValueError, match="this model draws 8 x 8 pixels, the pictures were read in 16"):
        prepared(pipe, PictureFolder(folder, 16))


def test_a_model_of_text_takes_the_names_of_classes(folder, tmp_path):
    pipe = new_pipeline(PictureFolder(folder, 8), SMALL)
    for name, label in (("00.png", "disc"), ("01.png", "bar")):
        (tmp_path / "c" / label).mkdir(parents=True)
        (folder / name).rename(tmp_path / "c" / label / name)
    assert conditions_of(pipe, PictureFolder(tmp_path / "c", 8)) == [("bar",), ("disc",)]
    pipe.defaults = {"words": ["a"]}
    assert prepared(pipe, PictureFolder(tmp_path / "c", 8)).defaults == {"words": ["a", "bar", "disc"]}
    of_classes = new_pipeline(PictureFolder(tmp_path / "c", 8), SMALL)
    with pytest.raises(ValueError, match="this model reads a class, and the pictures have captions"):
        conditions_of(of_classes, PictureFolder(folder, 8))
    (tmp_path / "c" / "bar").rename(tmp_path / "c" / "square")
    with pytest.raises(ValueError, match=r"this model has no class 'square', it has 2: 'bar', 'disc'$"):
        conditions_of(of_classes, PictureFolder(tmp_path / "c", 8))


def test_a_codec_that_has_learned_begins_with_its_codes():
    """One latent at each code's own place: the codes stay, where new ones restart among the latents."""
    torch.manual_seed(0)
    data = [(torch.rand(3, 8, 8) * 2 - 1, None) for _ in range(8)]
    moved = []
    for learned in (True, False):
        stage = CodecStage(codec(), data, CodecRecipe(steps=9, batch=8), learned=learned)
        book = stage.codec.quantize.embedding.weight
        before = book.detach().clone()
        used = stage.codec.encode(torch.stack([row[0] for row in data])).unique()
        figures = stage.step(0)
        unused = torch.ones(32, dtype=torch.bool).index_fill(0, used, False)
        moved.append(((book - before).abs().amax(1) > 1e-6)[unused].sum())
        assert (figures["restarted"] == 0) == learned
    assert moved[0] == 0 and moved[1] > 0


def test_a_new_denoiser_begins_with_the_codebook_that_was_learned(folder, tmp_path):
    """As with a codec that is given; a denoiser that has learned before is left alone."""
    pictures = own.read_folder(folder, tmp_path / "run", 8, progress=False)
    pipe = new_pipeline(pictures, SMALL)
    table = pipe.transformer.latent_image_embedding.emb.weight
    before, recipe = table.detach().clone(), CodecRecipe(steps=3, batch=4)
    own.learn_codec(pipe, pictures, tmp_path / "run", recipe, learned=True, **QUIET)
    assert torch.equal(table, before)
    own.learn_codec(pipe, pictures, tmp_path / "run2", recipe, **QUIET)
    given = new_pipeline(pictures, SMALL, pipe.vqvae).transformer.latent_image_embedding.emb.weight
    assert not torch.equal(table[:32], before[:32]) and torch.equal(table[:32], given[:32])


@pytest.mark.parametrize("more", [{"quantizer": "gumbel"}, {"num_tokens": 8}])
def test_a_codec_of_another_kind_is_used_as_it_is(more):
    other = VQModel(**{**dict(codec().config), **more})
    with pytest.raises(ValueError, match="a codec with a Gumbel quantizer, or some of whose codes are left out, is"):
        CodecStage(other, [(torch.zeros(3, 8, 8), None)])


# ------------------------------------------------------------------------------------------ sizes


def count(module):
    return sum(one.numel() for one in module.parameters())


def test_the_papers_sizes_have_the_papers_parameters():
    """L is that of the published ITHQ model, B of the text models of 2021 (2 887 codes), S said to have 34 million."""
    with torch.device("meta"):
        assert count(SIZES["L"].denoiser(4096, 32, None, True)) == 1_359_274_624
        assert count(SIZES["B"].denoiser(2887, 32, None, True)) == pytest.approx(388_780_871, rel=2e-3)
        assert count(SIZES["S"].denoiser(2887, 32, None, True)) == pytest.approx(34e6, rel=0.06)
        assert count(published_codec()) == 64_009_667
        tiny = [count(SIZES[name].denoiser(1024, 8, None, True)) for name in ("tiny", "tiny-wide")]
    assert all(2e6 < size < 4e6 for size in tiny)


def test_a_grid_shows_every_picture_enlarged_by_a_whole_factor():
    images = [Image.new("RGB", (32, 32), (n, 0, 0)) for n in range(6)]
    found = grid(images)
    assert found.size == (4 * 132 - 4, 2 * 132 - 4)
    assert [found.getpixel((132 * (n % 4) + 64, 132 * (n // 4) + 64))[0] for n in range(6)] == list(range(6))
    assert grid([Image.new("RGB", (256, 256))]).size == (256, 256)
