"""The protocol of measuring a model: what is in its file, for models of every kind, and after an interruption."""

import copy
import json
import os
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from shallow import small_codec

from tests import pages
from tests.benchmarks import evaluation
from vqlearn import AutoregressivePipeline, AutoregressiveTransformer, MaskReplaceSchedule
from vqlearn.__main__ import main
from vqlearn.data import folder, scenes
from vqlearn.data.folder import PictureFolder
from vqlearn.evaluation import kept, measures, protocol
from vqlearn.evaluation.bound import pipeline_bound
from vqlearn.evaluation.protocol import measure
from vqlearn.evaluation.references import Listed, Reference, of_emoji, of_folder, of_scenes
from vqlearn.evaluation.summary import summary
from vqlearn.training.pipelines import new_pipeline
from vqlearn.training.process import locked
from vqlearn.training.sizes import Size

SIDE, STEPS = 16, 2
SMALL = Size(SIDE, small_codec, 1, 2, 16, True, 1, 16, 8)


def paint(place, count, *, captions="text", mode="RGB", size=(20, 16)):
    """Discs of any colour, each with a caption in a text beside it, or in the folder of its class."""
    generator = torch.Generator().manual_seed(count)
    for number in range(count):
        image = Image.new("RGB", size, (230, 240, 250))
        *color, x, y = torch.randint(0, 10, (5,), generator=generator).tolist()
        ImageDraw.Draw(image).ellipse((x, y, x + 6, y + 5), fill=tuple(25 * c for c in color))
        inside = place / ("left" if x < 5 else "right") if captions == "class" else place
        inside.mkdir(parents=True, exist_ok=True)
        image.convert(mode).save(inside / f"{number:02}.png")
        if captions == "text":
            (inside / f"{number:02}.txt").write_text(f"a disc at {x}")
    return place


@pytest.fixture(scope="module", autouse=True)
def cheap():
    """Half of the pictures are held out, and the bound visits two times, for four batches."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(folder, "HELD_OUT", 128)
        patched.setattr(measures, "TIMES", 2)
        patched.setattr(measures, "ESTIMATES", 4)
        yield


def colors(pictures):
    """Features that take no time."""
    return np.concatenate([pictures.mean((1, 2)), pictures.std((1, 2))], 1)


def made(place, captions="text", count=48):
    pictures = PictureFolder(paint(place / captions, count, captions=captions), SIDE)
    return pictures, new_pipeline(pictures, SMALL)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return made(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def measured(texts, tmp_path_factory):
    """What is found, and where it is written."""
    out = tmp_path_factory.mktemp("measured")
    return measure(texts[1], of_folder(texts[0]), out, features=colors, seed=3, **QUIET), out


QUIET = {"progress": False, "num_inference_steps": STEPS}


def read(out):
    return json.loads((out / protocol.FILE).read_text(encoding="utf-8"), parse_constant=pytest.fail)


# ------------------------------------------------------------------------------------------ what is measured


def test_everything_is_in_one_file_with_one_picture(texts, measured):
    pictures, (found, out) = texts[0], measured
    held = pictures.indices("held out")
    assert read(out) == found and 20 <= len(held) == found["data"]["pictures"] == found["drawing"]["pictures"]
    assert found["data"]["split"] == "test" and "averaged over areas to 16 x 16 pixels" in found["data"]["resize"]
    assert found["drawing"] | {"seed": 3, "num_inference_steps": STEPS, "guidance_scale": 2.0} == found["drawing"]
    assert found["model"]["kind"] == "VQDiffusionPipeline" and found["versions"].keys() >= {"torch", "torchmetrics"}
    assert found["distances"]["features"] == f"{__name__}:colors" and found["distances"]["width"] == 6
    assert "fid" not in json.dumps(found).lower() and "kid" not in json.dumps(found).lower()
    assert found["clip_score"].keys() == found["agreement"].keys() == {"skipped"}
    assert {"pixels", "features"} == found["nearest"].keys()
    assert found["nearest"]["pixels"]["train_pictures"] == len(pictures.indices("train"))
    with Image.open(out / protocol.PANEL) as panel:
        assert panel.size == (2 * 412, 20 + 4 * 160)
        x = np.asarray(panel)[20 + 20 : 20 + 20 + 128 : 8, 0:128:8]  # the first picture, enlarged by 8
    np.testing.assert_array_equal(x, measures.as_bytes(pictures[held[0]][0]))
    lines = dict(line.split(": ", 1) for line in summary(found).splitlines())
    assert lines["measured by"].startswith(f"{len(held)} pictures of") and " ± " in lines["kernel distance"]


def test_each_figure_is_what_its_function_gives(texts, measured):
    from vqlearn.evaluation.distances import frechet_across, kernel_distance, nearest, share_smaller
    from vqlearn.evaluation.features import pixels

    (pictures, pipe), (found, out) = texts, measured
    train, held = ([pictures[i] for i in pictures.indices(part)] for part in ("train", "held out"))
    real, learned = (np.stack([measures.as_bytes(image) for image, _ in rows]) for rows in (held, train))
    drawn = np.stack([np.asarray(Image.open(path)) for path in sorted((out / "drawn").glob("*.png"))])
    x, y = (torch.from_numpy(colors(some)).float() for some in (real, drawn))
    assert found["distances"]["drawn"]["frechet"] == pytest.approx(frechet_across(x, y), rel=1e-4)
    assert found["distances"]["drawn"]["kernel"]["value"] == pytest.approx(kernel_distance(x, y).value, rel=1e-4)
    to_drawn, to_real = (nearest(pixels(some), pixels(learned)) for some in (drawn, real))
    near = found["nearest"]["pixels"]
    assert near["drawn_to_train"] == pytest.approx(float(to_drawn.median()))
    assert near["drawn_is_nearer"]["value"] == pytest.approx(share_smaller(to_drawn, to_real).value)
    how = {"batch": len(held) // 4, "times": 2, "generator": torch.Generator().manual_seed(3)}
    bits = pipeline_bound(pipe, held, **how)
    each = found["bound"]
    assert each["bits_per_token"] == pytest.approx(
        {"value": bits.bits_per_token, "standard_error": bits.standard_error}
    )
    assert each["bits_per_dimension"]["value"] == pytest.approx(bits.bits_per_row / (3 * SIDE * SIDE))


@pytest.mark.parametrize("reads", ["class", "nothing"])
def test_models_of_classes_and_of_nothing(reads, tmp_path):
    pictures, pipe = made(tmp_path, reads)
    found = measure(pipe, of_folder(pictures), tmp_path / "e", **QUIET)
    assert found["model"]["reads"] == found["data"]["reads"] == reads
    assert found["distances"] == {"skipped": "no features were named"} and "nearest" in found
    with pytest.raises(ValueError, match=f"a CLIP score takes captions, and this model reads {reads}; leave it out"):
        measure(pipe, of_folder(pictures), tmp_path / "e", clip="x", **QUIET)


def test_an_autoregressive_model_has_a_code_length_and_no_times(texts, tmp_path):
    pictures, pipe = texts
    torch.manual_seed(0)
    network = AutoregressiveTransformer(
        num_codes=32, num_positions=16, num_attention_heads=2, attention_head_dim=8, num_layers=1,
        cross_attention_dim=16, feed_forward_mult=1,
    ).eval()  # fmt: skip
    parts = {name: part for name, part in pipe.components.items() if name != "scheduler"}
    rival = AutoregressivePipeline(**{**parts, "transformer": network})
    found = measure(rival, of_folder(pictures), tmp_path, progress=False)
    held = [pictures[i] for i in pictures.indices("held out")]
    expected = rival.bits(torch.stack([row[0] for row in held]), [row[1] for row in held]) / 16
    assert found["bound"]["kind"] == "code length" and found["bound"]["times"] is None
    assert found["bound"]["bits_per_token"]["value"] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert "top_p" in found["drawing"] and "truncation_rate" not in found["drawing"]


def test_scenes_and_emoji_are_read_back(shallow, tmp_path, monkeypatch):
    monkeypatch.setattr("vqlearn.evaluation.references.TRAIN", 20)
    found = measure(shallow, of_scenes(), tmp_path, count=6, **QUIET)
    drawn = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "drawn").glob("*.png"))]
    right = [scenes.agreement(one, scenes.sample("test", i)[1]).all for i, one in enumerate(drawn)]
    assert found["agreement"]["drawn"] == sum(right) / 6 and found["nearest"]["pixels"]["train_pictures"] == 20
    reference = of_emoji("train")
    picture, caption = reference.data[5]
    assert reference.agrees(measures.as_bytes(picture), caption) and reference.train is None
    assert not reference.agrees(measures.as_bytes(picture), of_emoji().data[0][1])


def test_copies_are_found(texts, tmp_path):
    """A model that draws what it has learned from is nearer to it than pictures held out."""
    pictures, pipe = texts
    reference, rows = of_folder(pictures), [pictures[i] for i in pictures.indices("train")]

    def copied(conditions, generator, **call):
        images = [Image.fromarray(measures.as_bytes(rows[i][0])) for i in range(len(conditions))]
        return type("Output", (), {"images": images})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(pipe), "__call__", lambda self, *given, **call: copied(*given, **call))
        found = measure(pipe, reference, tmp_path, **QUIET)["nearest"]["pixels"]
    assert found["drawn_to_train"] < 1e-6 < found["real_to_train"] and found["drawn_is_nearer"]["value"] > 0.95


# ------------------------------------------------------------------------------------------ interruptions


def test_an_interrupted_measurement_goes_on_and_finds_the_same(texts, tmp_path, monkeypatch):
    pictures, pipe = texts
    how = {"features": colors, "batch": 8, **QUIET}
    whole = measure(pipe, of_folder(pictures), tmp_path / "a", **how)
    real, calls = kept._images, []

    def stopped(pipe, conditions, generators, call):
        calls.append(len(conditions))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(pipe, conditions, generators, call)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(kept, "_images", stopped)
        measure(pipe, of_folder(pictures), tmp_path / "b", **how)
    left = sorted(path.name for path in (tmp_path / "b" / "drawn").iterdir())
    assert left == [f"{i:06}.png" for i in range(16)]
    (tmp_path / "b" / "drawn" / "000003.png").write_bytes(b"half a pict")
    calls[:] = [0, 0, 0]
    monkeypatch.setattr(kept, "_images", stopped)
    assert measure(pipe, of_folder(pictures), tmp_path / "b", **how) == whole
    assert len(calls) == 3 + 1 + -(-len(pictures.indices("held out")) // 8) - 2  # the damaged batch, and the rest
    for path in (tmp_path / "a" / "drawn").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "drawn" / path.name).read_bytes()


def test_only_what_has_changed_is_measured_again(texts, tmp_path, monkeypatch):
    pictures, pipe = texts
    seen = []

    def counted(some):
        seen.append(len(some))
        return colors(some)

    reference = of_folder(pictures)
    first = measure(pipe, reference, tmp_path, features=counted, **QUIET)
    monkeypatch.setattr(measures, "pipeline_bound", pytest.fail)
    seen.clear()
    assert measure(pipe, reference, tmp_path, features=counted, **QUIET) == first and seen == [2]  # tried, that is all
    own = tmp_path / "drawn" / "000099.png"
    Image.new("RGB", (4, 4)).save(own)
    monkeypatch.setattr(measures, "pipeline_bound", pipeline_bound)
    fewer = measure(pipe, reference, tmp_path, features=counted, count=20, **QUIET)
    assert fewer["data"]["pictures"] == 20 and sum(seen) > 40 and own.exists()
    assert len(list((tmp_path / "drawn").iterdir())) == 20 + 1
    another = measure(pipe, reference, tmp_path, count=20, seed=1, **QUIET)
    assert another["reconstruction"] == fewer["reconstruction"]
    assert another["nearest"]["pixels"] != fewer["nearest"]["pixels"]


def test_a_model_is_known_by_all_that_it_draws_with(texts):
    pipe = copy.deepcopy(texts[1])
    found = [kept.model_digest(texts[1])]
    with torch.no_grad():
        for part in (pipe.transformer.out.bias, pipe.vqvae.encoder.conv_in.bias, next(pipe.text_encoder.parameters())):
            part += 1e-3
            found.append(kept.model_digest(pipe))
    pipe.schedule = MaskReplaceSchedule.released(32, 100)
    found.append(kept.model_digest(pipe))
    pipe.defaults = {"guidance_scale": 3.0}
    found.append(kept.model_digest(pipe))
    assert len(set(found)) == len(found) == 6 and kept.model_digest(texts[1]) == found[0]


# ------------------------------------------------------------------------------------------ what goes wrong


def rows(shape=(3, SIDE, SIDE), said="a disc", count=3, value=0.0):
    return Reference("mine", Listed(lambda index: (torch.full(shape, value), said), count))


@pytest.mark.parametrize(
    ("reference", "more", "message"),
    [
        (rows(shape=(3, 8, 8)), {}, r"draws pictures \[3, 16, 16\], and picture 0 of 'mine' is \[3, 8, 8\]"),
        (rows(shape=(1, 16, 16)), {}, r"picture 0 of 'mine' is \[1, 16, 16\]"),
        (rows(said=None), {}, "this model reads text, and picture 0 of 'mine' has no caption, it has None"),
        (rows(said=4), {}, "has no caption, it has 4"),
        (rows(said=" "), {}, "picture 0 of 'mine': prompt must not be empty"),
        (rows(count=1), {}, "measuring takes at least 2 pictures, and of 'mine' there is 1; choose another split"),
        (rows(value=2.0), {}, r"picture 0 of 'mine' must lie in \[-1, 1\]"),
        (rows(), {"features": colors}, "take at least 20 pictures of each kind, and there are 3; measure by more"),
        (rows(count=20), {"features": lambda some: some}, r"features must be float \[2, D\] for 2 pictures"),
        (rows(), {"count": 1}, "count must be a whole number of at least 2, got 1"),
        (rows(), {"seed": -1}, "seed must be a whole number from 0"),
        (rows(), {"clip": "no/clip model"}, "is no folder, and the hub did not give it"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence_before_the_work(reference, more, message, texts, tmp_path):
    with pytest.raises(ValueError, match=message):
        measure(texts[1], reference, tmp_path / "e", **{**QUIET, **more})
    assert not (tmp_path / "e").exists()


def test_a_split_without_pictures_is_named(texts, monkeypatch):
    with pytest.raises(ValueError, match="split must be 'train' or 'test' for a folder of pictures, got 'unseen'"):
        of_folder(texts[0], "unseen")
    monkeypatch.setattr(folder, "HELD_OUT", 0)
    with pytest.raises(ValueError, match=r"of the 48 pictures in '.*' none is held out; choose the other split, or"):
        of_folder(texts[0])


# ------------------------------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def place(texts, tmp_path_factory):
    """A folder with a model, features, and pictures: grey and not square, without captions, one, none."""
    place = tmp_path_factory.mktemp("place")
    texts[1].save_pretrained(place / "model")
    (place / "mine_measured.py").write_text("def means(pictures):\n    return pictures.mean((1, 2))\n")
    paint(place / "p", 48, mode="L", size=(30, 40))
    paint(place / "bare", 4, captions="nothing")
    paint(place / "one", 1)
    (place / "empty").mkdir()
    return place


@pytest.fixture
def saved(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def test_the_command_reads_a_folder_and_writes_the_file(saved, capsys):
    command = ["evaluate", "--model", "model", "--data", "p", "--features", "mine_measured:means", "--steps", "2"]
    assert main([*command, "--guidance", "1.5", "--seed", "4"]) == 0
    printed, found = capsys.readouterr(), read(saved / "evaluation")
    assert "p: 48 pictures, 48 used in 16 x 16 pixels" in printed.out and "kernel distance: drawn" in printed.out
    assert printed.out.endswith("wrote evaluation/evaluation.json, with a picture beside it\n")
    assert all(f"{bar}:" in printed.err for bar in ("pictures", "drawing", "bound", "features, real"))
    wanted = {"seed": 4, "num_inference_steps": 2, "guidance_scale": 1.5, "sampler": "ancestral"}
    assert found["drawing"] | wanted == found["drawing"] and found["distances"]["features"] == "mine_measured:means"
    assert main([*command[:-2], "--steps", "2", "--split", "train", "--count", "20", "--out", "other"]) == 0
    assert read(saved / "other")["nearest"]["pixels"]["skipped"] and read(saved / "other")["data"]["split"] == "train"


def test_interrupted_the_command_says_what_it_has_kept(saved, monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(kept, "_images", stopped)
    assert main(["evaluate", "--model", "model", "--data", "p", "--steps", "2", "--out", "cut"]) == 130
    assert "vqlearn: interrupted, the same command goes on with what is in cut" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="the lock on a folder is POSIX")
def test_a_folder_in_use_is_refused_whatever_uses_it(saved, capsys):
    with locked(saved / "busy"):
        assert main(["evaluate", "--model", "model", "--data", "p", "--out", "busy"]) == 2
    sentence = "another training or evaluation uses the folder busy; wait for its end, or choose another\n"
    assert capsys.readouterr().err.endswith(sentence) and not any((saved / "busy").iterdir())


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--data", "nowhere"], "there is no folder 'nowhere'"),
        (["--data", "empty"], "no picture"),
        (["--data", "one"], "of the 1 pictures in 'one' none is"),
        (["--data", "one", "--split", "train"], "measuring takes at least 2 pictures, and of 'one' there is 1"),
        (["--data", "bare"], "this model reads a text, and the pictures have neither captions nor classes"),
        (["--data", "p", "--out", "p/e"], "'p/e' lies in the folder of the pictures"),
        (["--data", "p", "--split", "unseen"], "split must be 'train' or 'test' for a folder"),
        (["--data", "p", "--steps", "2", "3"], "--steps has one value where the protocol measures"),
        (["--data", "p", "--features", "nothing:here"], "there are no features 'nothing:here'"),
        (["--data", "p", "--features", "mine_measured:means", "--count", "5"], "take at least 20 pictures"),
        (
            ["--data", "scenes", "--out", "e"],
            "this model draws pictures [3, 16, 16], and picture 0 of 'scenes' is [3, 32",
        ),
        (["--data", "scenes", "--out", "e", "--workers", "2"], "--captions and --workers mean nothing with --data"),
        (["--features", "mine_measured:means"], "--features is for the protocol, which --out DIR asks for"),
        (["--data", "p", "--device", "abacus"], "--device abacus: torch cannot use it on this machine"),
    ],
)
def test_wrong_commands_are_one_sentence(more, sentence, saved, capsys):
    split = ["--split", "train"] if more == ["--data", "bare"] else []
    assert main(["evaluate", "--model", "model", *more, *split]) == 2
    error = capsys.readouterr().err
    assert sentence in error and re.search(r"^vqlearn: .*\n\Z", error, re.M) and "Traceback" not in error


def test_without_torchmetrics_the_command_says_how_to_get_it(saved, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics", None)
    assert main(["evaluate", "--model", "model", "--data", "p"]) == 2
    assert "these measures take torchmetrics: python -m pip install torchmetrics" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ the page


def test_the_page_shows_what_the_command_and_the_file_say():
    """Write it with python -m tests.benchmarks.evaluation."""
    for name, text in (("efficientnet", evaluation.features()), ("measured", evaluation.measured())):
        assert pages.read(evaluation.PAGE, name) == text
    result = json.loads(evaluation.RESULT.read_text(encoding="utf-8"))
    assert result["format"] == protocol.FORMAT and result["data"]["pictures"] == 100
    assert result["drawing"]["num_inference_steps"] == 10 and result["model"]["name"] == "scenes"


def test_the_python_of_the_page_runs(texts, saved, capsys):
    (block,) = re.findall(r"```python\n(from vqlearn.*?)```", evaluation.PAGE.read_text(encoding="utf-8"), re.S)
    block = block.replace("side=32", f"side={SIDE}").replace("steps=25", f"steps={STEPS}").replace("my-pictures", "p")
    names = {"pipe": texts[1], "__name__": "page"}
    exec(block, names)
    assert names["found"]["distances"] == {"skipped": "no features were named"}
    assert "features: page:colors, 3 of them" in capsys.readouterr().out
