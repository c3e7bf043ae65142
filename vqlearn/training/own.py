"""A model of one's own pictures: from a folder to a pipeline that draws, in stages that go on where they stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vqlearn.arguments import shown, whole
from vqlearn.data.files import replaced
from vqlearn.data.folder import PictureFolder
from vqlearn.data.listing import existing
from vqlearn.data.report import counted
from vqlearn.evaluation.bound import Estimate, pipeline_bound
from vqlearn.networks.vqvae import VQModel
from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.training import checkpoint, processes
from vqlearn.training.codec import CodecStage
from vqlearn.training.denoiser import DenoiserStage
from vqlearn.training.detail import Adversary
from vqlearn.training.engine import Engine
from vqlearn.training.objectives import ContinuousTime, CrossEntropy, Objective, PublishedBound
from vqlearn.training.pipelines import Said, conditions_of, cut_captions, reader
from vqlearn.training.process import locked
from vqlearn.training.recipes import CodecRecipe, DenoiserRecipe
from vqlearn.training.runs import fit
from vqlearn.training.samples import Sampled
from vqlearn.training.shipped import Run
from vqlearn.training.start import initialise
from vqlearn.training.tokens import TokenRows, codec_digest, tokens_of

CODEC, DENOISER = CodecRecipe(steps=3000, batch=32), DenoiserRecipe(steps=8000, batch=16)
WRITTEN = ("pictures", "codec", "tokens", "denoiser", "samples", "model", "drawn")  # what a run or a measurement makes
PROMPTS = 8  # that are drawn while a denoiser learns
JUDGED, TIMES = 16, 25  # pictures that a model is judged by, at most, and times of the bound for each
OBJECTIVES: dict[str, Callable[[int], Objective]] = {
    "cross_entropy": lambda steps: CrossEntropy(uniform_share=1 / 3, time_power=4.0),  # as scenes and emoji learn
    "bound": PublishedBound,
    "continuous": lambda steps: ContinuousTime(),
}


def read_folder(
    data: str | Path,
    out: str | Path,
    side: int = 32,
    *,
    captions: str | Path | None = None,
    workers: int = 0,
    progress: bool = True,
) -> PictureFolder:
    """The pictures of a folder, as `PictureFolder` reads them, kept in `out/pictures` for this run and the next.

    Raises ValueError for a folder `out` inside `data`, where pictures that are written would be read as data, and for
    `data` in a folder that a run in `out` writes.
    """
    cache = Path(out, "pictures")
    with processes.first_alone():
        check_apart(data, out)
        with locked(cache):
            return PictureFolder(data, side, captions=captions, cache=cache, workers=workers, progress=progress)


def check_apart(data: str | Path, out: str | Path) -> None:
    """Raises FileNotFoundError where there is no folder `data`, ValueError where one is in the way of the other."""
    read, written = (Path(os.path.realpath(path)) for path in (existing(data), out))
    if written.is_relative_to(read):
        raise ValueError(f"{str(out)!r} lies in the folder of the pictures; choose one elsewhere to write to")
    if read.is_relative_to(written) and read.relative_to(written).parts[0] in WRITTEN:
        raise ValueError(f"{str(data)!r} is where a run in {str(out)!r} writes; choose another folder to write to")


def write_report(pipe: VQDiffusionPipeline, pictures: PictureFolder, out: str | Path) -> str:
    """What was found in the folder, with the captions that the pipeline reads in part alone, each with its first names.

    `out/data.txt` has all names. Raises ValueError where an earlier run in `out` has learned other pictures.
    """
    _check_same(Path(out), pictures)
    if cut := cut_captions(pipe, conditions_of(pipe, pictures)):
        remark = f"caption of more than {pipe.tokenizer.model_max_length} tokens, the end cut off"
        pictures.report.others[remark] = [pictures.entries[i].name for i in cut]
    _write(Path(out, "data.txt"), pictures.report.text(None) + "\n")
    return str(pictures.report)


def _check_same(out: Path, pictures: PictureFolder, codec: VQModel | None = None) -> None:
    """Raises ValueError where a checkpoint in a folder has learned from other pictures, or tokens of another codec, and
    where there is nothing to learn from."""
    if not pictures.indices("train"):
        count, folder = counted(len(pictures), "picture"), str(pictures.folder)
        raise ValueError(f"there is nothing to learn from: {folder!r} has {count}, all held out; add some")
    now = {"data": pictures.fingerprint, **({} if codec is None else {"denoiser": codec_digest(codec)})}
    out.mkdir(parents=True, exist_ok=True)
    for name, digest in now.items():
        path = out / f"{name}.sha256"
        begun = any(out.glob(f"{'*' if name == 'data' else name}/{checkpoint.NAME}"))
        if begun and path.exists() and path.read_text(encoding="utf-8") != digest:
            what = "other pictures, captions or pixels" if name == "data" else "another codec"
            raise ValueError(
                f"the run in {str(out)!r} has begun with {what}; choose another folder, or start there from "
                f"{str(out / 'model')!r}"
            )
        _write(path, digest)


def _write(path: Path, text: str) -> None:
    if processes.rank():
        return
    with replaced(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def learn_codec(
    pipe: VQDiffusionPipeline,
    pictures: PictureFolder,
    out: str | Path,
    recipe: CodecRecipe = CODEC,
    *,
    learned: bool = False,
    term: Callable[[Tensor, Tensor], Tensor] | None = None,
    adversary: Adversary | None = None,
    device: str = "cpu",
    save_every: int = 250,
    progress: bool = True,
) -> None:
    """Train the codec of a pipeline on the pictures of "train", in `out/codec`; `learned` if it has learned before.

    `term` and `adversary` are those of a `CodecStage`. After a codec that has not learned before, the denoiser begins
    anew, with what it knows of codes taken from the codebook.
    """
    _check_same(Path(out), pictures)
    run = Run(Path(out), device, {"save_every": save_every, "progress": progress})
    how: Any = {"learned": learned, "term": term, "adversary": adversary}
    part, fast = pictures.part("train"), run.dtype is not None
    stage = CodecStage(pipe.vqvae, part, recipe, device=device, autocast=fast, **how)
    fit(stage, run.out / "codec", **run.how)
    if not learned:
        initialise(pipe.transformer, pipe.vqvae)


def learn_denoiser(
    pipe: VQDiffusionPipeline,
    pictures: PictureFolder,
    out: str | Path,
    recipe: DenoiserRecipe = DENOISER,
    objective: str = "cross_entropy",
    *,
    prompts: Sequence[Any] | None = None,
    sample_every: int = 1000,
    engine: Engine | None = None,
    device: str = "cpu",
    save_every: int = 250,
    progress: bool = True,
) -> VQDiffusionPipeline:
    """Train the denoiser of a pipeline on the pictures of "train", in `out/denoiser`, and write it to `out/model`.

    The codec stays as it is; its tokens are kept in `out/tokens`. After every `sample_every` updates `prompts` (None
    are some captions or classes of the pictures) are drawn into `out/samples`. `objective` is a name in `OBJECTIVES`.
    Raises ValueError for another, for pictures that have not the conditions that the pipeline reads, and where the run
    in `out` has begun with other pictures or another codec.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {shown(objective)}")
    _check_same(Path(out), pictures, pipe.vqvae)
    run = Run(Path(out), device, {"save_every": save_every, "progress": progress})
    rows, said = _rows(pipe, pictures, run, recipe)
    chosen = OBJECTIVES[objective](pipe.schedule.num_steps)
    stage = DenoiserStage(pipe, rows, recipe, chosen, device=device, dtype=run.dtype, engine=engine)
    drawn = example_prompts(pictures, said) if prompts is None else prompts
    sampled: Any = Sampled(stage, drawn, run.out / "samples", whole("sample_every", sample_every))
    found: VQDiffusionPipeline = run.finished(sampled, "denoiser", pipe.defaults)
    return found


def _rows(
    pipe: VQDiffusionPipeline, pictures: PictureFolder, run: Run, recipe: DenoiserRecipe
) -> tuple[TokenRows, Said]:
    """Tokens and conditions to learn from, and the conditions of all pictures."""
    said, names = conditions_of(pipe, pictures), [entry.name for entry in pictures.entries]
    with processes.first_alone(), locked(run.out / "tokens"):
        found = tokens_of(
            pipe.vqvae, pictures, run.out / "tokens", device=run.device, progress=bool(run.how["progress"])
        )
    how: Any = {"batch": recipe.batch, "seed": recipe.seed}
    return TokenRows(found, pictures.indices("train"), said, names, reader(pipe), **how), said


def example_prompts(pictures: PictureFolder, said: Said) -> list[Any]:
    """What is drawn while a denoiser learns: the first conditions of pictures held out, then of others, each once."""
    order = [i for part in ("held out", "train") for i in pictures.indices(part)]
    first = list(dict.fromkeys(said[i][0] for i in order if said[i]))
    return first[:PROMPTS] or [None] * PROMPTS


# ------------------------------------------------------------------------------------------ how good it is


class Judgement(NamedTuple):
    """How well a model does on some pictures: how its codec reproduces them, and how it would compress their tokens."""

    pictures: int
    psnr: float  # decibels, of the mean squared error over all pictures
    bits: Estimate | None  # None for a single picture

    def __str__(self) -> str:
        bits = "" if self.bits is None else f", {self.bits}"
        return f"{counted(self.pictures, 'picture')}, codec {self.psnr:.1f} dB{bits}"


@torch.no_grad()
def judge(pipe: VQDiffusionPipeline, pictures: PictureFolder, part: str = "held out") -> Judgement | None:
    """How well a pipeline does on the first pictures of a part, 16 at most; None where there are none."""
    chosen = pictures.indices(part)[:JUDGED]
    if not chosen:
        return None
    said = conditions_of(pipe, pictures)
    images = torch.stack([pictures[i][0] for i in chosen])
    tokens = torch.cat([pipe.encode(some).cpu() for some in images.split(16)])
    again = torch.cat([pipe.decode(some).cpu() for some in tokens.split(16)])
    psnr = float(-10 * ((again - images) / 2).square().mean().log10())
    rows: Any = [(tokens[n], (said[i] or (None,))[0]) for n, i in enumerate(chosen)]
    generator = torch.Generator().manual_seed(0)
    several = len(rows) > 1  # each batch, of one picture here, is one independent estimate
    bits = pipeline_bound(pipe, rows, batch=1, times=TIMES, generator=generator) if several else None
    return Judgement(len(rows), psnr, bits)
