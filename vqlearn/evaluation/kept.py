"""What a measurement keeps on disk, so that after an interruption it goes on: drawn pictures, and what was found."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Generator
from tqdm.auto import tqdm

from vqlearn.arguments import shown
from vqlearn.data.files import replaced
from vqlearn.remarks import heard_by

if TYPE_CHECKING:
    from vqlearn.autoregression import AutoregressivePipeline
    from vqlearn.pipeline import VQDiffusionPipeline

KEY, CAPTION = "vqlearn-key", "caption"  # texts in a drawn PNG
NAME = re.compile(r"\d{6,}\.png")


def digest(*values: Any) -> str:
    """A SHA-256 of values that JSON can write; of others, how a message shows them."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=shown).encode()).hexdigest()


def model_digest(pipe: VQDiffusionPipeline | AutoregressivePipeline) -> str:
    """A SHA-256 of what a pipeline draws with: weights, schedule, settings."""
    found = hashlib.sha256(digest(type(pipe).__name__, pipe.defaults, str(pipe.dtype)).encode())
    tensors: dict[str, torch.Tensor] = {}
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            found.update(digest(name, _config(part)).encode())
            tensors |= {f"{name}.{key}": tensor for key, tensor in part.state_dict().items()}
    schedule = getattr(pipe, "schedule", None)
    if schedule is not None:
        tensors |= {name: getattr(schedule, name) for name in ("alpha_bar", "beta_bar", "gamma_bar")}
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        found.update(f"{name} {plain.dtype} {[*plain.shape]}".encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _config(part: Any) -> dict[str, Any]:
    """The settings of a part, but for where it was loaded from."""
    config = getattr(part, "config", None) or {}
    known = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return {name: value for name, value in known.items() if not name.startswith("_")}


class Kept:
    """What was found before, by name, in a JSON file, each with a digest of all that it was found from."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # none yet, or not ours
            self.found = {}

    def of(self, name: str, made_of: Sequence[Any], find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was found of the same, or what `find()` gives, which is kept."""
        key, known = digest(name, *made_of), self.found.get(name)
        if not (isinstance(known, list) and len(known) == 2 and known[0] == key):
            self.found[name] = known = [key, json.loads(json.dumps(find()))]
            with replaced(self.path) as part:
                part.write_text(json.dumps(self.found), encoding="utf-8")
        found: dict[str, Any] = known[1]
        return found


class Drawn(Sequence[np.ndarray]):
    """The first pictures of a folder, 000000.png and so on, uint8 `[H, W, 3]`, read as they are needed."""

    def __init__(self, folder: Path, length: int):
        self.folder, self.length = folder, length

    def path(self, index: int) -> Path:
        """The file of a picture."""
        return self.folder / f"{index:06}.png"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        with Image.open(self.path(index)) as image:
            return np.asarray(image.convert("RGB"))


def draw(
    pipe: VQDiffusionPipeline | AutoregressivePipeline,
    conditions: Sequence[Any],
    folder: Path,
    *,
    made_of: Sequence[Any],
    seed: int = 0,
    batch: int = 32,
    progress: bool = False,
    **call: Any,
) -> tuple[Drawn, list[str]]:
    """A picture for each condition, drawn into a folder, and the remarks that the pipeline made, each once.

    Pictures that are there already, whole and made of the same, stay; pictures beyond these are deleted, so that the
    folder holds what was measured and nothing else. Each picture has a generator of its own, made of the seed and its
    number. `call` goes to the pipeline. Raises OSError where the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn, remarks = Drawn(folder, len(conditions)), dict[str, None]()
    keys = [digest(*made_of, seed, number, condition) for number, condition in enumerate(conditions)]
    batches = [range(start, min(start + batch, len(keys))) for start in range(0, len(keys), batch)]
    todo = [some for some in batches if any(_key(drawn.path(i)) != keys[i] for i in some)]
    _clear(folder, {drawn.path(i).name for i in range(len(keys))})
    with tqdm(total=sum(map(len, todo)), disable=not (progress and todo), desc="drawing", unit="picture") as bar:
        for some in todo:  # whole batches, so that what is drawn does not depend on where a run was interrupted
            with heard_by(remarks.setdefault):
                images = _images(pipe, [conditions[i] for i in some], [_generator(seed, i) for i in some], call)
            for i, image in zip(some, images, strict=True):
                _write(image, drawn.path(i), keys[i], conditions[i])
            bar.update(len(some))
    return drawn, list(remarks)


def _images(pipe: Any, conditions: list[Any], generators: list[Generator], call: dict[str, Any]) -> list[Image.Image]:
    """Pictures of a batch, by the same parts without their progress bar."""
    quiet = copy.copy(pipe)
    quiet.set_progress_bar_config(disable=True)
    images: list[Image.Image] = quiet(conditions, generator=generators, **call).images
    return images


def _generator(seed: int, number: int) -> Generator:
    return Generator().manual_seed(int(digest(seed, number)[:15], 16))


def _write(image: Image.Image, path: Path, key: str, condition: Any) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text(KEY, key)
    info.add_itxt(CAPTION, "" if condition is None else str(condition))
    with replaced(path) as part:
        image.save(part, format="PNG", pnginfo=info)


def _key(path: Path) -> str:
    """By which a whole picture is known, "" where there is none."""
    try:
        with Image.open(path) as image:
            image.load()
            found: str = getattr(image, "text", {}).get(KEY, "")
            return found
    except (OSError, ValueError, SyntaxError):
        return ""


def _clear(folder: Path, names: set[str]) -> None:
    """Delete pictures of an earlier run that are not of this one."""
    for path in folder.iterdir():
        if NAME.fullmatch(path.name) and path.name not in names and _key(path):
            path.unlink()
