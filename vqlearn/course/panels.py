"""What the widgets are made of: panels of controls with a picture, and panels with a run of the pipeline in them."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
from matplotlib.figure import Figure
from torch import Generator, Tensor

from vqlearn import samplers
from vqlearn.course import plots
from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.remarks import heard_by
from vqlearn.reverse import Denoiser, Sampler
from vqlearn.schedule import MaskReplaceSchedule

Draw = Callable[[], tuple[Figure, str]]  # a figure and its alternative text
WIDE = {"width": "420px"}


class Panel(ipywidgets.VBox):  # type: ignore[misc]
    """Controls, a picture below them and a line of words: `draw()` gives the picture's figure and alternative text.

    A `draw` that raises ValueError leaves the picture as it is, and its sentence is shown.
    """

    def __init__(self, name: str, controls: Sequence[ipywidgets.Widget], draw: Draw):
        self.name, self.draw = name, draw
        self.image, self.line = ipywidgets.HTML(), ipywidgets.HTML()
        self._positions: list[Any] = []  # of the axes, so that only the first figure has to be laid out
        super().__init__([*controls, self.image, self.line])

    def refresh(self, *_: object) -> None:
        """Draw anew; the controls call it when they change."""
        try:
            figure, alt = self.draw()
        except ValueError as error:
            self.say(str(error))
            return
        self.image.value = plots.picture(figure, alt, like=self._positions)
        self.say("")

    def follow(self, *controls: ipywidgets.Widget) -> None:
        """Draw again whenever one of these controls changes."""
        drawn: list[Any] = []

        def changed(_: object) -> None:
            values = [control.value for control in controls]
            if values != drawn:  # else another control, which had to give way, has drawn already
                drawn[:] = values
                self.refresh()

        for control in controls:
            control.observe(changed, "value")

    def say(self, text: str) -> None:
        """Show one line of words, which a screen reader reads out."""
        self.line.value = f'<div role="status">{html.escape(text)}</div>'

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
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

    def generate(
        self,
        pipe: VQDiffusionPipeline,
        request: Request,
        sampler: str,
        states: list[Tensor],
        *,
        before: int = 0,
        on_state: Callable[[], object] = lambda: None,
    ) -> None:
        """Draw one picture and append its tokens to `states`, x_T included; stops at the next step if asked to.

        `on_state` is called after each step.
        """

        def on_step(number: int, timestep: int, tokens: Tensor) -> None:
            states.append(tokens.cpu())
            self.progress.value = before + number + 1
            on_state()
            if self._halt.is_set():
                raise _Stopped

        pipe(
            request.prompt.value, request.steps.value, request.guidance.value, generator=seeded(request.seed.value),
            output_type="latent", callback=on_step, sampler=_WithFirstState(samplers.find(sampler), states),
        )  # fmt: skip

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


class _WithFirstState(Sampler):
    """A sampler that appends its first state to a list before it runs; the pipeline's callback gives the others."""

    def __init__(self, sampler: Sampler, states: list[Tensor]):
        self.sampler, self.states = sampler, states

    def __call__(
        self, denoise: Denoiser, x_t: Tensor, schedule: MaskReplaceSchedule, times: Any, **options: Any
    ) -> Tensor:
        self.states.append(x_t.cpu())
        return self.sampler(denoise, x_t, schedule, times, **options)

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
    return play, slider, ipywidgets.HBox([play, slider])


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
