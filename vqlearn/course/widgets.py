"""The widgets of the course: sliders over the pure figures of `plots`, and players of runs of the pipeline.

Each function returns a `Panel` to be displayed in JupyterLab: native sliders that the keyboard moves, a picture with an
alternative text, and one line of words below it. Where nobody can move a slider, in a notebook that is executed in a
batch, a panel shows its first picture, and that is what a saved notebook holds.
"""

from __future__ import annotations

import html
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor

from vqlearn import samplers
from vqlearn.course import plots
from vqlearn.data import scenes
from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.samplers import SAMPLERS
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import q_likelihood, q_log_probs, q_posterior, q_sample

if TYPE_CHECKING:
    from collections.abc import Iterable

HEART = ("00000000", "02202200", "23323320", "23333320", "02333200", "00232000", "00020000", "11111111")  # 4 codes
PROMPT = "a large red circle left of a small blue square"
RACERS = ("ancestral", "corrector", "confident", "halton")
WIDE = {"width": "420px"}


class Panel(ipywidgets.VBox):
    """Controls, a picture below them and a line of words: `draw()` gives the picture's figure and alternative text.

    A `draw` that raises ValueError leaves the picture as it is, and its sentence is shown.
    """

    def __init__(self, name: str, controls: Sequence, draw: Callable[[], tuple[Figure, str]]):
        self.name, self.draw = name, draw
        self.image, self.line = ipywidgets.HTML(), ipywidgets.HTML()
        self._places: list = []  # of the axes, so that only the first figure has to be laid out
        super().__init__([*controls, self.image, self.line])

    def refresh(self, *_: Any) -> None:
        """Draw anew; the controls call it when they change."""
        try:
            figure, alt = self.draw()
        except ValueError as error:
            self.say(str(error))
            return
        self.image.value = plots.picture(figure, alt, like=self._places)
        self.say("")

    def say(self, text: str) -> None:
        """Show one line of words, which a screen reader reads out."""
        self.line.value = f'<div role="status">{html.escape(text)}</div>'

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        words = f"{self.name}: run this cell in JupyterLab to use it."
        if _someone_is_there():
            return {**super()._repr_mimebundle_(**kwargs), "text/plain": words}
        return {"text/plain": words, "text/html": f"{self.image.value}<p><em>{html.escape(words)}</em></p>"}


def schedule_explorer(x_0: Tensor | None = None, *, num_codes: int = 4, num_steps: int = 100) -> Panel:
    """Move the end points of a schedule, and see its three curves and what becomes of the tokens `x_0` `[H, W]`."""
    clean = _heart() if x_0 is None else x_0
    kept = ipywidgets.FloatSlider(0.0, min=0, max=0.99, step=0.01, **_labelled("kept at t = T"))
    masked = ipywidgets.FloatSlider(0.9, min=0, max=1, step=0.01, **_labelled("masked at t = T"))
    shape = ipywidgets.Dropdown(options=("straight line", "cosine"), **_labelled("on the way"))
    times = [round(num_steps * part / 5) for part in range(6)]
    way = torch.linspace(0, 1, num_steps + 1).double()

    def draw() -> tuple[Figure, str]:
        gone = way if shape.value == "straight line" else 1 - torch.cos(way * torch.pi / 2)
        schedule = MaskReplaceSchedule(1 - (1 - kept.value) * gone, masked.value * gone, num_codes=num_codes)
        noisy = [q_sample(clean.view(1, -1), t, schedule, generator=_dice(3)).view(clean.shape) for t in times]
        replaced = max(0.0, 1 - kept.value - masked.value)
        alt = (
            f"Three curves against time and six token grids; at the last time {kept.value:.0%} of the tokens are kept, "
            f"{replaced:.0%} replaced and {masked.value:.0%} masked."
        )
        return plots.schedule_strip(schedule, noisy, times, truth=clean), alt

    def give_way(other: Any) -> Callable:
        def make_room(change: Any) -> None:
            if change.new + other.value > 1:
                other.value = round(1 - change.new, 2)  # draws as well

        return make_room

    kept.observe(give_way(masked), "value")
    masked.observe(give_way(kept), "value")
    return _live(Panel("Schedule explorer", [kept, masked, shape], draw), kept, masked, shape)


def corruption_player(image: Any = None, *, pipe: VQDiffusionPipeline | None = None) -> Panel:
    """Play the forward process over a picture (uint8 `[H, W, 3]` or PIL; None: a scene): its tokens and their decoding.

    The dice of a seed are the same at every time, so a token that is masked once stays masked.
    """
    codec = pipe or VQDiffusionPipeline.from_pretrained()
    x_0 = codec.encode(scenes.to_tensor([_scene() if image is None else np.asarray(image)])).cpu()
    schedules = _three_schedules(codec.schedule.num_codes, codec.schedule.num_steps)
    kind = ipywidgets.Dropdown(options=list(schedules), **_labelled("schedule"))
    seed = ipywidgets.IntSlider(0, min=0, max=20, **_labelled("seed"))
    _, time, row = _player("time t", codec.schedule.num_steps, codec.schedule.num_steps // 2)

    def draw() -> tuple[Figure, str]:
        schedule, t = schedules[kind.value], time.value
        x_t = q_sample(x_0, t, schedule, generator=_dice(seed.value))
        return _frame(codec, x_t, x_0, f"t = {t}", "are replaced")

    return _live(Panel("Corruption player", [kind, seed, row], draw), kind, seed, time)


def posterior_microscope(schedule: MaskReplaceSchedule | None = None) -> Panel:
    """One token under Bayes' rule: prior q(x_s | x_0), likelihood q(x_t | x_s) and posterior, for any x_0, x_t, s < t.

    `schedule` should have few codes; None is the paper's with 4 codes and 10 steps.
    """
    one = schedule or MaskReplaceSchedule.paper(num_codes=4, num_steps=10)
    codes, last = range(one.num_codes), one.num_steps
    x_0 = ipywidgets.IntSlider(1, min=0, max=one.num_codes - 1, **_labelled("clean token x_0"))
    names = [(str(code), code) for code in codes] + [("mask", one.mask_id)]
    x_t = ipywidgets.SelectionSlider(options=names, value=min(2, one.num_codes - 1), **_labelled("seen token x_t"))
    s = ipywidgets.IntSlider(last // 2, min=0, max=last - 1, **_labelled("earlier time s"))
    t = ipywidgets.IntSlider(last // 2 + 1, min=1, max=last, **_labelled("later time t"))

    def draw() -> tuple[Figure, str]:
        if s.value >= t.value:  # between two changes that belong together
            raise ValueError(f"s must be earlier than t, got s = {s.value}, t = {t.value}")
        clean, seen = torch.tensor([[x_0.value]]), torch.tensor([[x_t.value]])
        prior = q_log_probs(clean, s.value, one, dtype=torch.float64)[0, 0].exp()
        likelihood = q_likelihood(seen, t.value, one, s=s.value, dtype=torch.float64)[0, 0].exp()
        if float(prior @ likelihood) == 0:
            raise ValueError(f"x_t = {x_t.label} cannot have come from x_0 = {x_0.value} under this schedule")
        known = torch.nn.functional.one_hot(clean, one.num_codes).double().log()
        posterior = q_posterior(known, seen, t.value, one, s=s.value)[0, 0].exp()
        top = int(posterior.argmax())
        alt = (
            f"Prior, likelihood and posterior of x_{s.value} for x_0 = {x_0.value} and x_{t.value} = {x_t.label}; the "
            f"posterior is largest at {names[top][0]}, {posterior[top]:.2f}."
        )
        figure = plots.bars([{"prior": prior, "likelihood": likelihood, "posterior": posterior}])
        for ax in figure.axes:
            ax.set(ylim=(0, 1.15), yticks=(0, 0.5, 1))  # one scale for all settings, so that bars can be compared
        return figure, alt

    s.observe(lambda change: setattr(t, "value", max(t.value, change.new + 1)), "value")
    t.observe(lambda change: setattr(s, "value", min(s.value, change.new - 1)), "value")
    return _live(Panel("Posterior microscope", [x_0, x_t, s, t], draw), x_0, x_t, s, t)


def denoising_player(pipe: VQDiffusionPipeline | None = None, *, prompt: str = PROMPT) -> Run:
    """Generate a picture of a prompt, with a progress bar and a button that stops; then play the walk back.

    Hatched tokens are masked, outlined ones are visible but not yet what they are at the end.
    """
    quiet = _quiet(pipe)
    asks = _Asks(quiet, prompt)
    sampler = ipywidgets.Dropdown(options=[*SAMPLERS], **_labelled("sampler"))
    play, step, row = _player("step", 0, 0)
    walk: list[Tensor] = []
    last: list[int] = [0]  # the number of steps that were asked for

    def draw() -> tuple[Figure, str]:
        if not walk:
            raise ValueError("Nothing has been generated yet.")
        now = min(step.value, len(walk) - 1)
        return _frame(
            quiet, walk[now], walk[-1], f"after step {now} of {last[0]}", "are not yet what they are at the end"
        )

    def work(run: Run) -> str:
        walk.clear()
        last[0] = asks.steps.value
        run.expect(asks.steps.value)
        try:
            run.call(quiet, asks, sampler.value, walk)
        finally:
            play.max = step.max = max(0, len(walk) - 1)
            step.value = step.max
            if walk:
                run.refresh()
        return f"Drawn in {len(walk) - 1} steps; move the slider or press play."

    controls = [*asks.controls, sampler]
    return _live(Run("Denoising player", controls, work, draw, below=[row]), step)


def sampler_race(
    pipe: VQDiffusionPipeline | None = None, *, prompt: str = PROMPT, samplers: Iterable[str] = RACERS
) -> Run:
    """The same prompt and seed with several samplers, side by side; each picture is read back and compared with it."""
    quiet = _quiet(pipe)
    asks = _Asks(quiet, prompt)
    names = [*SAMPLERS]
    chosen = ipywidgets.SelectMultiple(options=names, value=tuple(samplers), rows=6, **_labelled("samplers"))
    finished: list[tuple[str, Any, str]] = []  # name, picture, verdict

    def draw() -> tuple[Figure, str]:
        if not finished:
            raise ValueError("Nothing has been generated yet.")
        titles = [f"{name}: {verdict}" if verdict else name for name, _, verdict in finished]
        alt = f"Pictures of {asks.prompt.value!r} by several samplers. {'; '.join(titles)}."
        return plots.strip([picture for _, picture, _ in finished], titles, size=2.2), alt

    def work(run: Run) -> str:
        if not chosen.value:
            raise ValueError("Choose at least one sampler.")
        finished.clear()
        run.expect(asks.steps.value * len(chosen.value))
        quiet.prompts(asks.prompt.value)  # a wrong prompt is wrong for all
        failed = []
        for place, name in enumerate(chosen.value):
            walk: list[Tensor] = []
            try:
                run.call(quiet, asks, name, walk, before=place * asks.steps.value)
            except ValueError as error:
                failed.append(f"{name}: {error}.")
                continue
            picture = _pixels(quiet, walk[-1], walk[-1])
            finished.append((name, picture, verdict(picture, asks.prompt.value)))
            run.refresh()
        return " ".join([f"{len(finished)} of {len(chosen.value)} pictures, all from seed {asks.seed.value}.", *failed])

    return Run("Sampler race", [*asks.controls, chosen], work, draw)


def verdict(picture: Any, prompt: str) -> str:
    """What a picture (floats in [0, 1], `[H, W, 3]`) does of a prompt; empty for one that is no caption of the world.

    Says "as asked", or which parts are wrong.
    """
    try:
        claim = scenes.parse(prompt)
    except ValueError:
        return ""
    wrong = [
        part
        for part, right in vars(scenes.agreement((picture * 255).round().astype("uint8"), claim)).items()
        if not right
    ]
    return f"wrong: {', '.join(wrong)}" if wrong else "as asked"


# ------------------------------------------------------------------------------------------ generation


class _Stopped(Exception):
    """Raised inside a run when its stop button was pressed."""


class Run(Panel):
    """A panel with work that takes a while: it runs in a thread of its own, with a progress bar and a stop button.

    `work(run)` calls `run.expect` and `run.call` and returns the line to show. Whatever ends it, the panel can be used
    again, and shows what there is.
    """

    def __init__(self, name: str, controls: Sequence, work: Callable, draw: Callable, below: Sequence = ()):
        self.start = ipywidgets.Button(description="Generate", button_style="primary", tooltip="Generate")
        self.stop = ipywidgets.Button(description="Stop", disabled=True, tooltip="Stop after this step")
        self.progress = ipywidgets.IntProgress(0, min=0, max=1, **_labelled("steps done"))
        self._work, self._thread, self._halt = work, threading.Thread(), threading.Event()
        self.start.on_click(self._begin)
        self.stop.on_click(lambda _: self._halt.set())
        row = ipywidgets.HBox([self.start, self.stop, self.progress])
        super().__init__(name, [*controls, row, *below], draw)
        self.say("Press Generate.")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the work is done; False if it is not within `timeout` seconds."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def expect(self, steps: int) -> None:
        """How many steps the progress bar stands for."""
        self.progress.max, self.progress.value = steps, 0

    def call(self, pipe: VQDiffusionPipeline, asks: _Asks, name: str, walk: list[Tensor], *, before: int = 0) -> None:
        """Generate one picture and note its tokens in `walk`, from the noise on; raises `_Stopped` at the next step."""
        sampler = samplers.find(name)

        def watched(denoise, x_t, schedule, times, **more) -> Tensor:
            walk.append(x_t.cpu())
            return sampler(denoise, x_t, schedule, times, **more)

        for attribute in ("start", "times"):
            if hasattr(sampler, attribute):
                setattr(watched, attribute, getattr(sampler, attribute))

        def on_step(number: int, timestep: int, tokens: Tensor) -> None:
            walk.append(tokens.cpu())
            self.progress.value = before + number + 1
            if self._halt.is_set():
                raise _Stopped

        pipe(
            asks.prompt.value, asks.steps.value, asks.guidance.value, generator=_dice(asks.seed.value),
            output_type="latent", callback=on_step, sampler=watched,
        )  # fmt: skip

    def _begin(self, _: Any) -> None:
        if self._thread.is_alive():
            return
        self._halt.clear()
        self.start.disabled, self.stop.disabled = True, False
        self.say("Generating ...")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with warnings.catch_warnings(record=True) as noticed:
            warnings.simplefilter("always", UserWarning)
            try:
                line = self._work(self)
            except _Stopped:
                line = f"Stopped after {self.progress.value} of {self.progress.max} steps; what there is can be played."
            except Exception as error:  # a thread has nobody else to tell
                line = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        notes = [f"Note: {note.message}." for note in noticed if issubclass(note.category, UserWarning)]
        self.say(" ".join([line, *dict.fromkeys(notes)]))
        self.start.disabled, self.stop.disabled = False, True


class _Asks:
    """The controls that say what is to be drawn."""

    def __init__(self, pipe: VQDiffusionPipeline, prompt: str):
        self.prompt = ipywidgets.Text(prompt, **_labelled("prompt"))
        self.seed = ipywidgets.BoundedIntText(0, min=0, max=2**31 - 1, **_labelled("seed"))
        self.steps = ipywidgets.IntSlider(min(25, pipe.schedule.num_steps), min=1, max=pipe.schedule.num_steps)
        self.guidance = ipywidgets.FloatSlider(pipe.guidance_scale, min=0, max=5, step=0.25)
        for slider, words in ((self.steps, "steps"), (self.guidance, "guidance")):
            slider.description, slider.style, slider.layout = words, {"description_width": "110px"}, WIDE
        self.controls = [self.prompt, self.seed, self.steps, self.guidance]


# ------------------------------------------------------------------------------------------ inside


def _labelled(words: str) -> dict[str, Any]:
    return {"description": words, "style": {"description_width": "110px"}, "layout": WIDE}


def _player(words: str, last: int, now: int) -> tuple[Any, Any, Any]:
    """A play button and a slider that move together in the browser, and both in a row."""
    play = ipywidgets.Play(now, min=0, max=last, interval=200, tooltip=f"play over {words}")
    slider = ipywidgets.IntSlider(now, min=0, max=last, **_labelled(words))
    ipywidgets.jslink((play, "value"), (slider, "value"))
    return play, slider, ipywidgets.HBox([play, slider])


def _live(panel: Any, *controls: Any) -> Any:
    """Draw a panel now, and again whenever one of the controls changes; a run has nothing to draw yet."""
    drawn: list = []

    def follow(_: Any) -> None:
        values = [control.value for control in controls]
        if values != drawn:  # else another control, which had to give way, has drawn already
            drawn[:] = values
            panel.refresh()

    for control in controls:
        control.observe(follow, "value")
    if not isinstance(panel, Run):
        panel.refresh()
    return panel


def _frame(pipe: VQDiffusionPipeline, x_t: Tensor, truth: Tensor, title: str, outlined: str) -> tuple[Figure, str]:
    """Tokens `[1, L]` and their picture side by side, marked against `truth`, and the words for both."""
    side, mask_id = round(x_t.shape[1] ** 0.5), pipe.schedule.mask_id
    masked, wrong = int((x_t == mask_id).sum()), int(((x_t != truth) & (x_t != mask_id)).sum())
    alt = f"{title}: {masked} of {x_t.shape[1]} tokens are masked and {wrong} {outlined}."
    grid, clean = x_t.view(side, -1), truth.view(side, -1)
    return plots.film(grid, _pixels(pipe, x_t, truth), mask_id, truth=clean, title=title), alt


def _pixels(pipe: VQDiffusionPipeline, x_t: Tensor, behind: Tensor) -> Any:
    """Tokens `[1, L]` as a picture `[H, W, 3]` in [0, 1]; `behind` stands where there are masks, else code 0."""
    mask_id = pipe.schedule.mask_id
    tokens = torch.where(x_t == mask_id, behind, x_t)
    image = pipe.decode(torch.where(tokens == mask_id, 0, tokens))[0]
    return (image.permute(1, 2, 0).cpu().numpy() + 1) / 2


def _quiet(pipe: VQDiffusionPipeline | None) -> VQDiffusionPipeline:
    """A pipeline over the same parts without a progress bar of its own."""
    shared = pipe or VQDiffusionPipeline.from_pretrained()
    quiet = VQDiffusionPipeline(**shared.components)
    quiet.defaults = shared.defaults
    quiet.set_progress_bar_config(disable=True)
    return quiet


def _three_schedules(num_codes: int, num_steps: int) -> dict[str, MaskReplaceSchedule]:
    paper = MaskReplaceSchedule.paper(num_codes=num_codes, num_steps=num_steps)
    kept = paper.alpha_bar
    return {
        "paper": paper,
        "mask only": MaskReplaceSchedule(kept, 1 - kept, num_codes=num_codes),
        "uniform only": MaskReplaceSchedule(kept, 0 * kept, num_codes=num_codes),
    }


def _heart() -> Tensor:
    return torch.tensor([[int(code) for code in row] for row in HEART])


def _scene() -> Any:
    things = (scenes.Thing("large", "red", "circle", 8, 4), scenes.Thing("small", "blue", "square", 12, 20))
    return scenes.draw(scenes.Scene("white", things))


def _dice(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def _someone_is_there() -> bool:
    """Whether a person runs the cell: a batch run (nbconvert, nbval) tells the kernel that nobody can be asked."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and kernel.get_parent().get("content", {}).get("allow_stdin", True)
