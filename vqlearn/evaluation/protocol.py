"""One protocol for every model: what is measured, on which pictures, in one JSON file with one picture beside it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from vqlearn import __version__
from vqlearn.arguments import shown, whole
from vqlearn.autoregression import AutoregressivePipeline
from vqlearn.data.files import replaced
from vqlearn.data.pictures import in_range
from vqlearn.data.report import printable
from vqlearn.evaluation import distances, measures
from vqlearn.evaluation.agreement import LAST
from vqlearn.evaluation.clip_score import ClipScore
from vqlearn.evaluation.features import Features, features_of, find_features
from vqlearn.evaluation.kept import Kept, digest, draw, model_digest
from vqlearn.evaluation.measures import Chosen, Read, Work, as_bytes
from vqlearn.evaluation.panel import panel
from vqlearn.evaluation.references import Reference

if TYPE_CHECKING:
    from vqlearn.pipeline import VQDiffusionPipeline

FORMAT = 1  # of the file
LIBRARIES = ("torch", "torchmetrics", "transformers")
SHOWN = 8  # pictures beside each other
FILE, PANEL, PICTURES, PARTS = "evaluation.json", "evaluation.png", "drawn", "parts.json"


def measure(
    pipe: VQDiffusionPipeline | AutoregressivePipeline,
    reference: Reference,
    out: str | Path,
    *,
    count: int = 500,
    seed: int = 0,
    features: str | Features | None = None,
    clip: str | None = None,
    batch: int = 32,
    progress: bool = True,
    **call: Any,
) -> dict[str, Any]:
    """Measure a model by the first `count` pictures of a reference, and by one that it draws for each one's condition.

    Writes `out/evaluation.json`, what is returned, `out/evaluation.png` and the drawn pictures, `out/drawn`; after an
    interruption the same call goes on. `features` as in `find_features`, None leaves distances in their space out;
    `clip` is a CLIP model of transformers, None leaves its score out. `call` goes to the pipeline. Raises ValueError
    for pictures or conditions that the model does not have, for too few pictures, and for features that are none.
    """
    seed, batch = whole("seed", seed, 0, LAST), whole("batch", batch)
    distances.check_torchmetrics()
    rows = _read(pipe, reference, whole("count", count, 2), progress)
    chosen = _features(features, rows, str(pipe.device))
    score = _clip(clip, pipe, rows)
    out, model, settings = Path(out), model_digest(pipe), _settings(pipe, call)
    out.mkdir(parents=True, exist_ok=True)
    how: Any = {"seed": seed, "batch": batch, "progress": progress}
    drawn, remarks = draw(pipe, rows.conditions, out / PICTURES, made_of=[model, settings], **how, **call)
    work = Work(pipe, reference, rows, drawn, [FORMAT, model, rows.digest], [settings, seed], **how)
    kept = Kept(out / PARTS)
    found = {
        "format": FORMAT,
        "versions": {"vqlearn": __version__, **{name: importlib.metadata.version(name) for name in LIBRARIES}},
        "model": _model(pipe, model),
        "data": {"name": reference.name, **dict(reference.about), "pictures": len(rows), "sha256": rows.digest},
        "drawing": {"pictures": len(drawn), "seed": seed, **settings, "remarks": remarks},
        **measures.codec(work, kept),
        "bound": measures.bound(work, kept),
        **measures.sets(work, kept, chosen),
        "clip_score": measures.clip_score(work, kept, score),
        "agreement": measures.agreement(work),
    }
    _write(out, found, work)
    return found


# ------------------------------------------------------------------------------------------ before the work


def _read(pipe: Any, reference: Reference, count: int, progress: bool) -> Read:
    """The pictures that a model is measured by; raises ValueError for a row that it cannot read."""
    side = side_of(pipe)
    count = min(count, len(reference.data))  # type: ignore[arg-type]
    if count < 2:
        raise ValueError(
            f"measuring takes at least 2 pictures, and of {reference.name!r} there is {count}; choose another split, "
            "or add pictures"
        )
    conditions, found = [], hashlib.sha256()
    for index in tqdm(range(count), disable=not progress, desc="reading", unit="picture"):
        name = f"picture {index} of {reference.name!r}"
        image, said = reference.data[index]
        if not isinstance(image, Tensor) or [*image.shape] != [3, side, side]:
            got = [*image.shape] if isinstance(image, Tensor) else shown(image)
            raise ValueError(f"this model draws pictures [3, {side}, {side}], and {name} is {got}")
        conditions.append(_condition(pipe, said, name))
        found.update(as_bytes(in_range(name, image, -1)).tobytes())
    found.update(digest(conditions).encode())
    return Read(reference.data, count, conditions, found.hexdigest())


def side_of(pipe: Any) -> int:
    """Pixels along one side of the pictures that a model draws; raises ValueError where it draws none."""
    if pipe.vqvae is None:
        raise ValueError("this model has no codec, so it draws no pictures that could be measured")
    side: int = round(pipe.length**0.5) * pipe.vqvae.factor
    return side


def _condition(pipe: Any, said: Any, name: str) -> Any:
    """What a model is given for a picture; raises ValueError where it reads another kind."""
    reads = pipe.transformer.reads
    if reads == "nothing":
        return None
    if reads == "text" and not isinstance(said, str):
        raise ValueError(f"this model reads text, and {name} has no caption, it has {shown(said)}")
    try:
        return pipe.conditions.prompts(said)[0]
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _features(given: str | Features | None, rows: Read, device: str) -> Chosen | None:
    """The features that are named, tried on two pictures."""
    if given is None:
        return None
    least = distances.LEAST
    if len(rows) < least:
        raise ValueError(
            f"distances in a space of features take at least {least} pictures of each kind, and there are "
            f"{len(rows)}; measure by more pictures, or leave the features out"
        )
    name, extract = find_features(given, device)
    return Chosen(name, extract, _tried(features_of(extract, [rows[0], rows[1]])))


def _clip(given: str | None, pipe: Any, rows: Read) -> Chosen | None:
    """The CLIP model that is named, tried on two pictures."""
    if given is None:
        return None
    if pipe.transformer.reads != "text":
        raise ValueError(f"a CLIP score takes captions, and this model reads {pipe.transformer.reads}; leave it out")
    score = ClipScore(given, str(pipe.device))
    return Chosen(given, score, _tried(score(np.stack([rows[0], rows[1]]), rows.conditions[:2])))


def _tried(values: Tensor) -> str:
    """By which it is known whether a function gives what it gave before."""
    return hashlib.sha256(values.float().numpy().tobytes()).hexdigest()


def _settings(pipe: Any, call: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call as they are written and compared, with those that the model states."""
    rate = "top_p" if isinstance(pipe, AutoregressivePipeline) else "truncation_rate"
    own = {"guidance_scale": pipe.guidance_scale, rate: pipe.truncation_rate}
    given = {name: value for name, value in call.items() if value is not None}
    return json.loads(json.dumps({**own, **given}, default=shown))  # type: ignore[no-any-return]


def _model(pipe: Any, sha256: str) -> dict[str, Any]:
    parameters = sum(weight.numel() for weight in pipe.transformer.parameters())
    named = {"name": pipe.name_or_path, "kind": type(pipe).__name__, "parameters": parameters}
    return {**named, "reads": pipe.transformer.reads, "dtype": str(pipe.dtype), "sha256": sha256}


# ------------------------------------------------------------------------------------------ after it


def _write(out: Path, found: dict[str, Any], work: Work) -> None:
    first = range(min(SHOWN, len(work.rows)))
    images = torch.stack([work.rows.data[i][0] for i in first])
    again = [as_bytes(one) for one in work.pipe.decode(work.pipe.encode(images)).cpu()]
    said = [_said(work.pipe, work.rows.conditions[i]) for i in first]
    with replaced(out / PANEL) as part:
        panel([work.rows[i] for i in first], again, [work.drawn[i] for i in first], said).save(part, format="PNG")
    with replaced(out / FILE) as part:
        part.write_text(
            json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace"
        )


def _said(pipe: Any, condition: Any) -> str:
    """A condition in words."""
    labels = pipe.defaults.get("labels", [])
    named = isinstance(condition, int) and condition < len(labels)
    return "" if condition is None else printable(str(labels[condition] if named else condition))
