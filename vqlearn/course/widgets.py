"""The widgets of the course: sliders over the pure figures of `plots`, and players of runs of the pipeline.

Each function returns a `Panel` to be displayed in JupyterLab: native sliders that the keyboard moves, a picture with an
alternative text, and one line of words below it. Where nobody can move a slider, in a notebook that is executed in a
batch, a panel shows its first picture, and that is what a saved notebook holds.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vqlearn.course import plots
from vqlearn.course.panels import Film, Panel, Request, Run, labelled, player, quiet, seeded
from vqlearn.data import scenes
from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.samplers import SAMPLERS
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import q_likelihood, q_log_probs, q_posterior, q_sample

__all__ = [
    "Panel",
    "Run",
    "corruption_player",
    "denoising_player",
    "posterior_microscope",
    "sampler_race",
    "schedule_explorer",
    "verdict",
]

HEART = ("00000000", "02202200", "23323320", "23333320", "02333200", "00232000", "00020000", "11111111")  # 4 codes
PROMPT = "a large red circle left of a small blue square"
LOWERED = str.maketrans("0123456789t", "₀₁₂₃₄₅₆₇₈₉ₜ")
RACERS = ("ancestral", "corrector", "confident", "halton")


def schedule_explorer(x_0: Tensor | None = None, *, num_codes: int = 4, num_steps: int = 100) -> Panel:
    """Move the end points of a schedule, and see its three curves and what becomes of the tokens `x_0` `[H, W]`."""
    clean = torch.tensor([[int(code) for code in row] for row in HEART]) if x_0 is None else x_0
    kept = ipywidgets.FloatSlider(0.0, min=0, max=0.99, step=0.01, **labelled("kept at t = T"))
    masked = ipywidgets.FloatSlider(0.9, min=0, max=1, step=0.01, **labelled("masked at t = T"))
    shape = ipywidgets.Dropdown(options=("straight line", "cosine"), **labelled("on the way"))
    times = [round(num_steps * part / 5) for part in range(6)]
    line = torch.linspace(0, 1, num_steps + 1).double()

    def draw(shown: Figure | None) -> tuple[Figure, str]:
        gone = line if shape.value == "straight line" else 1 - torch.cos(line * torch.pi / 2)
        schedule = MaskReplaceSchedule(1 - (1 - kept.value) * gone, masked.value * gone, num_codes=num_codes)
        noisy = [q_sample(clean.view(1, -1), t, schedule, generator=seeded(3)).view(clean.shape) for t in times]
        replaced = max(0.0, 1 - kept.value - masked.value)
        alt = (
            f"Three curves against time and six token grids; at the last time {kept.value:.0%} of the tokens are kept, "
            f"{replaced:.0%} replaced and {masked.value:.0%} masked."
        )
        return plots.schedule_strip(schedule, noisy, times, truth=clean, on=shown), alt

    kept.observe(_giving_way(masked), "value")
    masked.observe(_giving_way(kept), "value")
    return _drawn(Panel("Schedule explorer", [kept, masked, shape], draw), kept, masked, shape)


def _giving_way(other: Any) -> Callable[[Any], None]:
    """Lower another slider where the sum of both shares would exceed 1."""

    def lower(change: Any) -> None:
        if change.new + other.value > 1:
            other.value = round(1 - change.new, 2)  # draws as well

    return lower


def corruption_player(image: Any = None, *, pipe: VQDiffusionPipeline | None = None) -> Panel:
    """Play the forward process over a picture (None: a scene): its tokens and their decoding.

    A picture is a PIL image or an array of any kind that `data.pictures.to_tensor` reads; of one of another size than
    the codec's the square in its middle is scaled. Raises ValueError for what is none.

    A seed gives the same random numbers at every time, so a token that is masked once stays masked.
    """
    codec = pipe or VQDiffusionPipeline.from_pretrained()
    x_0 = codec.tokens_of(_scene() if image is None else image, 1, resize=True).cpu()
    schedules, decoder = _three_schedules(codec.schedule.num_codes, codec.schedule.num_steps), _Decoder(codec)
    kind = ipywidgets.Dropdown(options=list(schedules), **labelled("schedule"))
    seed = ipywidgets.IntSlider(0, min=0, max=20, **labelled("seed"))
    _, time, row = player("time t", codec.schedule.num_steps, codec.schedule.num_steps // 2)

    def draw(shown: Figure | None) -> tuple[Figure, str]:
        schedule, t = schedules[kind.value], time.value
        x_t = q_sample(x_0, t, schedule, generator=seeded(seed.value))
        return _frame(decoder, x_t, x_0, f"drawn from q(x_t | x_0), t = {t}", "are replaced", on=shown)

    return _drawn(Panel("Corruption player", [kind, seed, row], draw), kind, seed, time)


def posterior_microscope(schedule: MaskReplaceSchedule | None = None) -> Panel:
    """One token under Bayes' rule: prior q(x_s | x_0), likelihood q(x_t | x_s) and posterior, for any x_0, x_t, s < t.

    `schedule` should have few codes; None is the paper's with 4 codes and 10 steps.
    """
    few = schedule or MaskReplaceSchedule.paper(num_codes=4, num_steps=10)
    names = [*map(str, range(few.num_codes)), "mask"]
    x_0, x_t, s, t = _one_token(few, names)

    def draw(shown: Figure | None) -> tuple[Figure, str]:
        if s.value >= t.value:  # between two changes that belong together
            raise ValueError(f"s must be earlier than t, got s = {s.value}, t = {t.value}")
        found = _bayes(x_0.value, x_t.value, s.value, t.value, few)
        if found is None:
            raise ValueError(f"x_t = {x_t.label} cannot have come from x_0 = {x_0.value} under this schedule")
        top = int(found["posterior"].argmax())
        alt = (
            f"Prior, likelihood and posterior of x_{s.value} for x_0 = {x_0.value} and x_{t.value} = {x_t.label}; the "
            f"posterior is largest at {names[top]}, {found['posterior'][top]:.2f}."
        )
        early, late = f"x_{s.value}", f"x_{t.value}"
        titles = [f"prior q({early} | x_0)", f"likelihood q({late} | {early})", f"posterior q({early} | {late}, x_0)"]
        row = dict(zip(map(_lowered, titles), found.values(), strict=True))
        return plots.bars([row], top=1, on=shown), alt  # one scale for all settings, so that bars can be compared

    return _drawn(Panel("Posterior microscope", [x_0, x_t, s, t], draw), x_0, x_t, s, t)


def _one_token(schedule: MaskReplaceSchedule, names: list[str]) -> tuple[Any, Any, Any, Any]:
    """Sliders for x_0, x_t, s and t, where s stays earlier than t."""
    last, codes = schedule.num_steps, schedule.num_codes
    states = [(name, code) for code, name in enumerate(names)]
    x_0 = ipywidgets.IntSlider(1, min=0, max=codes - 1, **labelled("clean token x_0"))
    x_t = ipywidgets.SelectionSlider(options=states, value=min(2, codes - 1), **labelled("seen token x_t"))
    s = ipywidgets.IntSlider(last // 2, min=0, max=last - 1, **labelled("earlier time s"))
    t = ipywidgets.IntSlider(last // 2 + 1, min=1, max=last, **labelled("later time t"))
    s.observe(lambda change: setattr(t, "value", max(t.value, change.new + 1)), "value")
    t.observe(lambda change: setattr(s, "value", min(s.value, change.new - 1)), "value")
    return x_0, x_t, s, t


def _bayes(x_0: int, x_t: int, s: int, t: int, schedule: MaskReplaceSchedule) -> dict[str, Tensor] | None:
    """Prior, likelihood and posterior of x_s, `[K + 1]` each; None if x_t cannot have come from x_0."""
    clean, seen = torch.tensor([[x_0]]), torch.tensor([[x_t]])
    prior = q_log_probs(clean, s, schedule, dtype=torch.float64)[0, 0].exp()
    likelihood = q_likelihood(seen, t, schedule, s=s, dtype=torch.float64)[0, 0].exp()
    if float(prior @ likelihood) == 0:
        return None
    known = torch.nn.functional.one_hot(clean, schedule.num_codes).double().log()
    posterior = q_posterior(known, seen, t, schedule, s=s)[0, 0].exp()
    return {"prior": prior, "likelihood": likelihood, "posterior": posterior}


def denoising_player(pipe: VQDiffusionPipeline | None = None, *, prompt: str = PROMPT) -> Run:
    """Watch how a picture of a prompt is generated, with a button that stops; then play its trajectory.

    Hatched tokens are masked, outlined ones are visible but not yet what they are at the end.
    """
    silent = quiet(pipe)
    request = Request(silent, prompt)
    sampler = ipywidgets.Dropdown(options=[*SAMPLERS], **labelled("sampler"))
    play, step, row = player("step", 0, 0)
    film: Film = []
    decoder = _Decoder(silent)

    def draw(shown: Figure | None) -> tuple[Figure, str]:
        if not film:
            raise ValueError("Nothing has been generated yet.")
        now = min(step.value, len(film) - 1)
        (t, x_t), (_, last) = film[now], film[-1]
        title = f"after step {now} of {panel.progress.max}: x_t at t = {t}"
        return _frame(decoder, x_t, last, title, "are not yet what they are at the end", [x for _, x in film], shown)

    def latest() -> None:
        play.max = step.max = max(0, len(film) - 1)
        before, step.value = step.value, step.max  # draws, if it moves
        if film and before == step.max:
            panel.refresh()

    def work(run: Run) -> str:
        film.clear()
        run.expect(request.steps.value)
        try:
            run.generate(silent, request, sampler.value, film, on_state=latest)
        finally:
            latest()
        return f"Drawn in {len(film) - 1} steps; move the slider or press play."

    panel = Run("Denoising player", [*request.controls, sampler], work, draw, below=[row])
    panel.follow(step)
    return panel


def sampler_race(
    pipe: VQDiffusionPipeline | None = None, *, prompt: str = PROMPT, samplers: Iterable[str] = RACERS
) -> Run:
    """The same prompt and seeds with several samplers, a row each with its network evaluations and processor time.

    The scene parser compares each picture with the prompt.
    """
    silent = quiet(pipe)
    request = Request(silent, prompt)
    each = ipywidgets.IntSlider(3, min=1, max=5, **labelled("pictures each"))
    chosen = ipywidgets.SelectMultiple(options=[*SAMPLERS], value=tuple(samplers), rows=6, **labelled("samplers"))
    finished: list[Lap] = []

    def draw(_: Figure | None) -> tuple[Figure, str]:
        if not finished:
            raise ValueError("Nothing has been generated yet.")
        figure = plots.rows_of_pictures(_named(finished))
        return figure, f"Pictures of {request.prompt.value!r} by several samplers. {figure.get_label()}"

    def work(run: Run) -> str:
        if not chosen.value:
            raise ValueError("Choose at least one sampler.")
        finished.clear()
        return _race(run, silent, request, chosen.value, each.value, finished)

    return Run("Sampler race", [*request.controls, each, chosen], work, draw)


class Lap(NamedTuple):
    """One picture of a race: what is asked for ("as asked", or what is wrong) and what it took."""

    sampler: str
    seed: int
    picture: Any
    verdict: str
    nfe: int
    seconds: float


def _race(
    run: Run, pipe: VQDiffusionPipeline, request: Request, names: Sequence[str], each: int, finished: list[Lap]
) -> str:
    """So many pictures by each sampler, appended to `finished` as they come; the line to show."""
    steps, failed, decoder = request.steps.value, dict[str, str](), _Decoder(pipe)
    run.expect(steps * each * len(names))
    for number, (name, further) in enumerate(itertools.product(names, range(each))):
        if name in failed:
            continue
        film: Film = []
        try:
            took = run.generate(pipe, request, name, film, further=further, before=number * steps)
        except ValueError as error:
            failed[name] = str(error)
            continue
        picture = decoder(film[-1][1], film[-1][1])
        found = verdict(picture, request.prompt.value)
        finished.append(Lap(name, request.seed.value + further, picture, found, took.nfe, took.seconds))
        run.refresh()
    if not finished and len(set(failed.values())) == 1:  # a wrong prompt is wrong for all
        raise ValueError(next(iter(failed.values())))
    drawn = f"{len(finished)} of {len(names) * each} pictures; all samplers have the same seeds."
    return " ".join([drawn, *(f"{name}: {error}." for name, error in failed.items())])


def _named(laps: Sequence[Lap]) -> dict[str, list[tuple[Any, str]]]:
    """The pictures of a race by sampler: the words of each row, and of each picture in it."""
    rows = {}
    for name, group in itertools.groupby(laps, lambda lap: lap.sampler):
        own = [*group]
        nfe, right = sorted({lap.nfe for lap in own}), sum(lap.verdict == "as asked" for lap in own)
        words = [name, f"{nfe[0]} to {nfe[-1]} evaluations" if len(nfe) > 1 else f"{nfe[0]} evaluations"]
        words.append(f"{sum(lap.seconds for lap in own) / len(own):.1f} s of processor")
        if own[0].verdict:
            words.append(f"{right} of {len(own)} as asked")
        rows["\n".join(words)] = [(lap.picture, f"seed {lap.seed}: {lap.verdict}".strip(": ")) for lap in own]
    return rows


def verdict(picture: Any, prompt: str) -> str:
    """What a picture (floats in [0, 1], `[H, W, 3]`) shows of a caption: "as asked", or which parts are wrong.

    Empty for a prompt that is no caption of the toy world.
    """
    try:
        claim = scenes.parse(prompt)
    except ValueError:
        return ""
    found = vars(scenes.agreement((picture * 255).round().astype("uint8"), claim))
    wrong = [part for part, right in found.items() if not right]
    return f"wrong: {', '.join(wrong)}" if wrong else "as asked"


# ------------------------------------------------------------------------------------------ pictures


def _drawn(panel: Panel, *controls: Any) -> Panel:
    """A panel with its first picture, drawn again whenever one of the controls changes."""
    panel.follow(*controls)
    panel.refresh()
    return panel


class _Decoder:
    """Tokens of a pipeline as pictures; it keeps the last ones, because sliders and players go back and forth."""

    def __init__(self, pipe: VQDiffusionPipeline):
        self.pipe, self.mask_id = pipe, pipe.schedule.mask_id
        self._decoded = functools.lru_cache(maxsize=64)(self._decode)

    def __call__(self, x_t: Tensor, behind: Tensor) -> Any:
        """Tokens `[1, L]` as a picture `[H, W, 3]` in [0, 1]; a masked one as the code in `behind`, else as code 0."""
        tokens = torch.where(x_t == self.mask_id, behind, x_t)
        return self._decoded(tuple(torch.where(tokens == self.mask_id, 0, tokens)[0].tolist()))

    def _decode(self, tokens: tuple[int, ...]) -> Any:
        image = self.pipe.decode(torch.tensor([tokens]))[0]
        return (image.permute(1, 2, 0).cpu().numpy() + 1) / 2


def _frame(
    decoder: _Decoder,
    x_t: Tensor,
    truth: Tensor,
    title: str,
    outlined: str,
    film: Sequence[Tensor] = (),
    on: Figure | None = None,
) -> tuple[Figure, str]:
    """Tokens `[1, L]` and their picture side by side, marked against `truth`, and the words for both.

    `film` are the tokens of all frames, `on` the figure of another one, to be changed.
    """
    side, mask_id = round(x_t.shape[1] ** 0.5), decoder.mask_id
    masked, wrong = int((x_t == mask_id).sum()), int(((x_t != truth) & (x_t != mask_id)).sum())
    alt = f"{title}: {masked} of {x_t.shape[1]} tokens are masked and {wrong} {outlined}."
    grid, clean = x_t.view(side, -1), truth.view(side, -1)
    picture, frames = decoder(x_t, truth), [x.view(side, -1) for x in film]
    return plots.film(grid, picture, mask_id, truth=clean, frames=frames, title=_lowered(title), on=on), alt


def _lowered(title: str) -> str:
    """A title with its indices below the line: plain text, because a formula in TeX's signs takes ten milliseconds."""
    return re.sub(r"_(\d+|t)\b", lambda found: found[1].translate(LOWERED), title)


def _three_schedules(num_codes: int, num_steps: int) -> dict[str, MaskReplaceSchedule]:
    paper = MaskReplaceSchedule.paper(num_codes=num_codes, num_steps=num_steps)
    kept = paper.alpha_bar
    return {
        "paper": paper,
        "mask only": MaskReplaceSchedule(kept, 1 - kept, num_codes=num_codes),
        "uniform only": MaskReplaceSchedule(kept, 0 * kept, num_codes=num_codes),
    }


def _scene() -> np.ndarray:
    circle, square = scenes.Thing("large", "red", "circle", 8, 4), scenes.Thing("small", "blue", "square", 12, 20)
    return scenes.draw(scenes.Scene("white", (circle, square)))
