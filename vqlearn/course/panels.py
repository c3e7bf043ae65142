"""What the widgets are made of: panels of controls with a picture, and panels with a run of the pipeline in them."""

from __future__ import annotations

import asyncio
import html
import threading
from collections.abc import Callable, Sequence
from time import process_time
from typing import Any

import ipywidgets
from matplotlib.figure import Figure
from torch import Generator, Tensor

from vqlearn import samplers
from vqlearn.course import plots
from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.remarks import heard_by
from vqlearn.reverse import Denoiser, OnStep, Sampler
from vqlearn.schedule import MaskReplaceSchedule

Film = list[tuple[int, Tensor]]  # times t and tokens x_t [1, L], in the order of a run
Draw = Callable[[Figure | None], tuple[Figure, str]]  # the figure that is shown, changed, or a new one; and its words
WIDE = {"width": "420px", "max_width": "100%"}
WRAPPED = {"flex_flow": "row wrap"}  # of a row of controls on a page that is narrower
WAIT = 0.01  # seconds from the first of several changes to the work that they cause


class Newest:
    """Does `work` for the newest of many changes: those that come before it is done cause it only once.

    In a kernel a change is noted at once, and asyncio's loop does the work a moment later, when it has heard what else
    has changed; so a slider that is dragged is followed as fast as pictures can be drawn, and no picture waits behind
    others that nobody needs any more. Where no loop runs, in a script or in a thread, the work is done at once.
    """

    def __init__(self, work: Callable[[], object]):
        self.work, self.due = work, False

    def __call__(self, *_: object) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.work()
            return
        if not self.due:
            self.due = True
            loop.call_later(WAIT, self.now)

    def now(self) -> None:
        """Do the work if it is due."""
        if self.due:
            self.due = False
            self.work()


class Panel(ipywidgets.VBox):  # type: ignore[misc]
    """Controls, a picture below them and a line of words: `draw(shown)` gives a figure and its alternative text.

    It is quick where it changes the figure that is shown (None at first), and may always make a new one. A `draw` that
    raises ValueError leaves the picture as it is, and its sentence is shown.
    """

    def __init__(self, name: str, controls: Sequence[ipywidgets.Widget], draw: Draw):
        self.name, self.draw = name, draw
        self.image, self.line = ipywidgets.HTML(), ipywidgets.HTML()
        self._shown: plots.LiveFigure | None = None
        self._drawing = threading.RLock()  # a run draws in a thread of its own
        self._followed: list[ipywidgets.Widget] = []
        self._drawn: list[Any] = []  # the values of what is followed, in the newest picture
        self._changed = Newest(self._draw_changes)
        super().__init__([*controls, self.image, self.line])

    def refresh(self, *_: object) -> None:
        """Draw anew; the controls call it when they change."""
        with self._drawing:
            before = self._shown.figure if self._shown else None
            try:
                figure, alt = self.draw(before)
            except ValueError as error:
                self.say(str(error))
                return
            if not self._shown or figure is not before:
                self._shown = plots.LiveFigure(figure)
            self.image.value = self._shown.picture(alt)
            self.say("")

    def follow(self, *controls: ipywidgets.Widget) -> None:
        """Draw again whenever one of these controls changes, once for changes that come together."""
        self._followed += controls
        for control in controls:
            control.observe(self._changed, "value")

    def _draw_changes(self) -> None:
        values = [control.value for control in self._followed]
        if values != self._drawn:  # else another control, which had to give way, has drawn already
            self._drawn = values
            self.refresh()

    def say(self, text: str) -> None:
        """Show one line of words, which a screen reader reads out."""
        self.line.value = f'<div role="status">{html.escape(text)}</div>'

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        self._changed.now()
        words = f"{self.name}: run this cell in JupyterLab to use it."
        if someone_is_there():
            return {**super()._repr_mimebundle_(**kwargs), "text/plain": words}
        return {"text/plain": words, "text/html": f"{self.image.value}<p><em>{html.escape(words)}</em></p>"}


class Run(Panel):
    """A panel with work that takes a while: it runs in a thread of its own, with a progress bar and a stop button.

    `work(run)` calls `run.expect` and `run.generate` and returns the line to show. Whatever ends it, the panel can be
    used again, and shows what there is.
    """

    def __init__(
        self,
        name: str,
        controls: Sequence[ipywidgets.Widget],
        work: Callable[[Run], str],
        draw: Draw,
        below: Sequence[ipywidgets.Widget] = (),
    ):
        self.start = ipywidgets.Button(description="Generate", button_style="primary", tooltip="Generate")
        self.stop = ipywidgets.Button(description="Stop", disabled=True, tooltip="Stop after this step")
        self.progress = ipywidgets.IntProgress(0, min=0, max=1, **labelled("steps done"))
        self._work, self._thread, self._halt = work, threading.Thread(), threading.Event()
        self.start.on_click(self._begin)
        self.stop.on_click(lambda _: self._halt.set())
        row = ipywidgets.HBox([self.start, self.stop, self.progress], layout=WRAPPED)
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

    def generate(
        self,
        pipe: VQDiffusionPipeline,
        request: Request,
        sampler: str,
        film: Film,
        *,
        further: int = 0,
        before: int = 0,
        on_state: Callable[[], object] = lambda: None,
    ) -> Watched:
        """Draw one picture and append its states to `film`, x_T included; stops at the next step if asked to.

        The seed is that of the request and `further` more. `on_state` is called after each step, and `before` steps
        were done before this picture. Returns what it took.
        """
        watched = Watched(samplers.find(sampler), film)

        def on_step(number: int, timestep: int, tokens: Tensor) -> None:
            self.progress.value = before + number + 1
            on_state()
            if self._halt.is_set():
                raise _Stopped

        pipe(
            request.prompt.value, request.steps.value, request.guidance.value, output_type="latent",
            generator=seeded(request.seed.value + further), callback=on_step, sampler=watched,
        )  # fmt: skip
        return watched

    def _begin(self, _: object) -> None:
        if self._thread.is_alive():
            return
        self._halt.clear()
        self.start.disabled, self.stop.disabled = True, False
        self.say("Generating ...")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        remarks: list[str] = []
        try:
            with heard_by(remarks.append):
                line = self._work(self)
        except _Stopped:
            line = f"Stopped after {self.progress.value} of {self.progress.max} steps; what there is can be played."
        except Exception as error:  # a thread has nobody else to tell
            line = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        self.say(" ".join([line, *(f"Note: {text}." for text in dict.fromkeys(remarks))]))
        self.start.disabled, self.stop.disabled = False, True


class _Stopped(Exception):
    """Raised inside a run when its stop button was pressed."""


class Watched(Sampler):
    """A sampler that keeps its states with their times, and counts what they took.

    `nfe` is the number of network evaluations, `seconds` the processor time from the first to the last of them.
    """

    def __init__(self, sampler: Sampler, film: Film):
        self.sampler, self.film = sampler, film
        self.nfe, self.seconds = 0, 0.0

    def __call__(
        self,
        denoise: Denoiser,
        x_t: Tensor,
        schedule: MaskReplaceSchedule,
        times: Any,
        *,
        on_step: OnStep = None,
        **options: Any,
    ) -> Tensor:
        def counted(x_t: Tensor, t: int) -> Tensor:
            self.nfe += 1
            return denoise(x_t, t)

        def kept(number: int, s: int, x_s: Tensor) -> None:
            self.film.append((s, x_s.cpu()))
            if on_step is not None:
                on_step(number, s, x_s)

        self.film.append((times[0], x_t.cpu()))
        begun = process_time()
        x_0 = self.sampler(counted, x_t, schedule, times, on_step=kept, **options)
        self.seconds = process_time() - begun  # of all threads
        return x_0

    def start(self, *args: Any, **options: Any) -> Tensor:
        return self.sampler.start(*args, **options)

    def times(self, schedule: MaskReplaceSchedule, count: int) -> list[int]:
        return self.sampler.times(schedule, count)


class Request:
    """The controls that say what is to be drawn."""

    def __init__(self, pipe: VQDiffusionPipeline, prompt: str):
        last = pipe.schedule.num_steps
        self.prompt = ipywidgets.Text(prompt, **labelled("prompt"))
        self.seed = ipywidgets.BoundedIntText(0, min=0, max=2**31 - 1, **labelled("seed"))
        self.steps = ipywidgets.IntSlider(min(25, last), min=1, max=last, **labelled("steps"))
        scale = pipe.guidance_scale  # a browser moves a value between two steps to one of them
        self.guidance = ipywidgets.FloatSlider(scale, min=0, max=max(5, scale), step=0.05, **labelled("guidance"))
        self.controls = [self.prompt, self.seed, self.steps, self.guidance]


def labelled(words: str) -> dict[str, Any]:
    """What every control has: its description and one width."""
    return {"description": words, "style": {"description_width": "110px"}, "layout": WIDE}


def player(words: str, last: int, now: int) -> tuple[Any, Any, Any]:
    """A play button and a slider that move together in the browser, and both in a row."""
    play = ipywidgets.Play(now, min=0, max=last, interval=200, tooltip=f"play over {words}")
    slider = ipywidgets.IntSlider(now, min=0, max=last, **labelled(words))
    ipywidgets.jslink((play, "value"), (slider, "value"))
    return play, slider, ipywidgets.HBox([play, slider], layout=WRAPPED)


def quiet(pipe: VQDiffusionPipeline | None) -> VQDiffusionPipeline:
    """A pipeline of the same parts without a progress bar of its own; None is the shipped one."""
    shared = pipe or VQDiffusionPipeline.from_pretrained()
    silent = VQDiffusionPipeline(**shared.components)
    silent.defaults = shared.defaults
    silent.set_progress_bar_config(disable=True)
    return silent


def seeded(seed: int) -> Generator:
    """A generator of random numbers on the CPU."""
    return Generator().manual_seed(seed)


def someone_is_there() -> bool:
    """Whether a person runs the cell: a batch run (nbconvert, nbval) tells the kernel that nobody can be asked."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and bool(kernel.get_parent().get("content", {}).get("allow_stdin", True))
