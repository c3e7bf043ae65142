"""The widgets without a browser: values are set as sliders would, buttons clicked, and the pictures must answer."""

import asyncio
import base64
import io
import itertools
import math
import re
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import ipywidgets
import nbformat
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from vqlearn import plots, samplers, scenes, widgets
from vqlearn.course import panels
from vqlearn.remarks import remark
from vqlearn.schedule import MaskReplaceSchedule

VIEW = "application/vnd.jupyter.widget-view+json"
ASK = "a small red circle"


def controls(panel) -> dict[str, ipywidgets.Widget]:
    """All controls by their descriptions."""
    found, todo = {}, list(panel.children)
    while todo:
        child = todo.pop(0)
        if isinstance(child, ipywidgets.Box):
            todo += child.children
        elif not isinstance(child, ipywidgets.HTML | ipywidgets.Play):
            found[child.description] = child
    return found


def picture(panel) -> str:
    return re.search(r'src="data:image/png;base64,([^"]+)"', panel.image.value)[1]


def alt(panel) -> str:
    return re.search(r'alt="([^"]*)"', panel.image.value)[1]


def line(panel) -> str:
    return re.fullmatch(r'<div role="status">(.*)</div>', panel.line.value, re.S)[1]


@pytest.fixture(scope="module")
def mathematical(shallow):
    return {
        "schedule": widgets.schedule_explorer(),
        "corruption": widgets.corruption_player(pipe=shallow),
        "posterior": widgets.posterior_microscope(),
    }


MOVES = [
    ("schedule", "kept at t = T", 0.1),
    ("schedule", "masked at t = T", 0.5),
    ("schedule", "on the way", "cosine"),
    ("corruption", "time t", 51),
    ("corruption", "seed", 1),
    ("corruption", "schedule", "uniform only"),
    ("posterior", "clean token x_0", 3),
    ("posterior", "seen token x_t", 4),
    ("posterior", "earlier time s", 1),
    ("posterior", "later time t", 9),
]


@pytest.mark.parametrize(("name", "control", "value"), MOVES)
def test_a_move_changes_the_picture_and_its_words_and_back_again(mathematical, name, control, value):
    panel = mathematical[name]
    slider = controls(panel)[control]
    before, words, old = picture(panel), alt(panel), slider.value
    slider.value = value
    assert picture(panel) != before and line(panel) == ""
    assert len(alt(panel)) > 40
    if control not in ("on the way", "seed"):
        assert alt(panel) != words
    slider.value = old
    assert picture(panel) == before


def test_every_control_has_a_label(mathematical, shallow):
    for panel in (*mathematical.values(), widgets.denoising_player(shallow), widgets.sampler_race(shallow)):
        assert all(controls(panel)) and len(controls(panel)) >= 3


def texts_of(figure):
    return [text for ax in figure.axes for text in (*ax.texts, ax.title)]


def words_of(figure):
    return [text.get_text() for text in texts_of(figure)]


@pytest.mark.parametrize(("name", "control", "value"), MOVES)
def test_a_move_changes_the_figure_that_is_shown_to_what_a_new_one_is(mathematical, monkeypatch, name, control, value):
    """To draw all of a figure takes most of the time, and so would an artist per token: neither happens."""
    panel, drawn = mathematical[name], []
    slider = controls(panel)[control]
    old, draw = slider.value, Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda *args: drawn.append(1) or draw(*args))
    slider.value = value
    assert not drawn
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture(panel)))))
    new = FigureCanvasAgg(panel.draw(None)[0])
    new.figure.set_dpi(96)
    new.draw()
    apart = shown.astype(float) - np.asarray(new.buffer_rgba())[..., :3]
    assert drawn and words_of(panel._shown.figure) == words_of(new.figure)
    slider.value = old
    for text in texts_of(new.figure):  # may lie half a pixel beside where they would be drawn
        box = text.get_window_extent().padded(2)
        inside = slice(int(new.figure.bbox.height - box.y1), math.ceil(new.figure.bbox.height - box.y0))
        words = apart[inside, max(0, int(box.x0)) : math.ceil(box.x1)]
        assert not words.size or abs(words.mean()) < 0.5  # as much ink
        words[:] = 0
    assert not apart.any()
    assert sum(len(ax.patches) + len(ax.lines) + len(ax.texts) for ax in new.figure.axes) < 40


def test_a_slider_that_is_dragged_is_drawn_once_at_its_newest_value(monkeypatch):
    """In a kernel, where a loop runs: no move waits for a picture, and one picture comes for all of them."""
    panel, drawn = widgets.posterior_microscope(), []
    monkeypatch.setattr(panels, "WAIT", 0)
    panel.image.observe(lambda change: drawn.append(alt(panel)), "value")

    async def drag(*times):
        for t in times:
            controls(panel)["later time t"].value = t
            assert not drawn
        await asyncio.sleep(0)  # timers that are due are run
        await asyncio.sleep(0)
        found = drawn[:]
        drawn.clear()
        return found

    async def kernel():
        first = await drag(7, 8, 9)
        assert len(first) == 1 and "x_9 = 2" in first[0]
        assert await drag(8, 9) == []  # back where it was: nothing to draw
        controls(panel)["earlier time s"].value = 9  # moves t as well
        assert len(await drag()) == 1 and "x_9 for" in alt(panel) and "x_10 = 2" in alt(panel)

    asyncio.run(kernel())


def test_a_panel_that_is_shown_while_a_change_is_due_shows_the_change(monkeypatch):
    monkeypatch.setattr(panels, "someone_is_there", lambda: False)
    panel = widgets.posterior_microscope()

    async def cell():
        controls(panel)["later time t"].value = 9
        return panel._repr_mimebundle_()["text/html"]

    assert "x_9 = 2" in asyncio.run(cell())


def test_the_menus_offer_the_samplers_of_the_library(shallow):
    player, race = widgets.denoising_player(shallow), widgets.sampler_race(shallow)
    assert controls(player)["sampler"].options == controls(race)["samplers"].options == tuple(samplers.SAMPLERS)


def test_shares_that_would_exceed_one_make_room():
    sliders = controls(panel := widgets.schedule_explorer())
    kept, masked = sliders["kept at t = T"], sliders["masked at t = T"]
    kept.value = 0.37
    assert masked.value == 0.63
    masked.value = 1.0
    assert kept.value == 0.0 and line(panel) == ""


def test_the_schedule_explorer_takes_a_grid_of_its_own():
    panel = widgets.schedule_explorer(torch.zeros(4, 4, dtype=torch.int64), num_codes=2, num_steps=10)
    assert picture(panel) != picture(widgets.schedule_explorer())


def test_masks_stay_masked_while_the_corruption_plays(shallow):
    panel = widgets.corruption_player(scenes.draw(scenes.sample("test", 0)[0]), pipe=shallow)
    counts = []
    for t in (0, 30, 60, 100):
        controls(panel)["time t"].value = t
        counts.append(int(re.search(r"(\d+) of 64 tokens are masked", alt(panel))[1]))
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] > 45


def test_any_picture_is_played(shallow):
    """A light grey picture in many forms gives the tokens of its 32 x 32 pixels."""
    grey, buffer, exif = Image.new("L", (32, 32), 204), io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    grey.resize((50, 40)).save(buffer, "PNG", exif=exif)
    expected = picture(widgets.corruption_player(np.full((32, 32, 3), 204, np.uint8), pipe=shallow))
    assert expected != picture(widgets.corruption_player(Image.new("L", (32, 32)), pipe=shallow))
    for image in (
        grey.convert("P"),
        grey.resize((640, 480)),
        Image.open(buffer),
        Image.new("RGBA", (32, 32), (0, 0, 0, 51)),
        Image.fromarray(np.full((32, 32), 204 * 257, np.uint16)),
        np.full((32, 32), 0.8),
    ):
        assert picture(widgets.corruption_player(image, pipe=shallow)) == expected
    with pytest.raises(ValueError, match="image must be a PIL image or"):
        widgets.corruption_player("photo.png", pipe=shallow)


def test_the_earlier_time_stays_earlier():
    sliders = controls(panel := widgets.posterior_microscope())
    s, t = sliders["earlier time s"], sliders["later time t"]
    s.value = 9
    assert (s.value, t.value) == (9, 10) and "x_9 for" in alt(panel)
    t.value = 1
    assert (s.value, t.value) == (0, 1) and line(panel) == "" and "x_0 for" in alt(panel)


def test_what_cannot_be_is_said_in_a_sentence():
    falling = torch.linspace(1, 0, 11).double()
    panel = widgets.posterior_microscope(MaskReplaceSchedule(falling, 1 - falling, num_codes=4))
    assert line(panel) == "x_t = 2 cannot have come from x_0 = 1 under this schedule"
    controls(panel)["seen token x_t"].value = 4
    assert line(panel) == "" and picture(panel)


# ------------------------------------------------------------------------------------------ runs


def run(panel, **values) -> str:
    for name, value in values.items():
        controls(panel)[name].value = value
    panel.start.click()
    assert panel.wait(600)
    assert not panel.start.disabled and panel.stop.disabled
    assert "Traceback" not in panel.line.value
    return line(panel)


def test_a_picture_is_generated_and_played(shallow):
    panel = widgets.denoising_player(shallow, prompt=ASK)
    assert line(panel) == "Press Generate." and panel.image.value == ""
    assert run(panel, steps=5, seed=3) == "Drawn in 5 steps; move the slider or press play."
    assert panel.progress.value == panel.progress.max == 5
    step = controls(panel)["step"]
    assert (step.value, step.max) == (5, 5)
    seen = {picture(panel)}
    for number in range(5):
        step.value = number
        seen.add(picture(panel))
    assert len(seen) == 6
    step.value = 0
    assert alt(panel).startswith("after step 0 of 5: x_t at t = 100: ")


@pytest.mark.parametrize("sampler", ["ancestral", "purity", "entropy_bounded", "official_fast", "reference"])
def test_what_is_played_is_what_the_pipeline_draws(shallow, seeded, monkeypatch, sampler):
    panel, states = widgets.denoising_player(shallow, prompt=ASK), []
    frame = widgets._frame
    monkeypatch.setattr(widgets, "_frame", lambda pipe, x_t, *more: states.append(x_t) or frame(pipe, x_t, *more))
    run(panel, steps=4, seed=7, sampler=sampler)
    call = {"guidance_scale": shallow.guidance_scale, "sampler": sampler, "generator": seeded(7)}
    assert torch.equal(states[-1], shallow(ASK, 4, output_type="latent", **call).images)


def test_a_picture_is_seen_while_it_is_generated(shallow):
    panel, seen = widgets.denoising_player(shallow, prompt=ASK), []
    panel.image.observe(lambda change: seen.append(re.match(r"after step \d+", alt(panel))[0]), "value")
    run(panel, steps=4)
    assert list(dict.fromkeys(seen)) == [f"after step {number}" for number in (1, 2, 3, 4)]


def test_the_guidance_slider_holds_the_models_own_scale(shallow):
    slider = controls(widgets.denoising_player(shallow))["guidance"]
    steps = (slider.value - slider.min) / slider.step
    assert slider.value == shallow.guidance_scale and abs(steps - round(steps)) < 1e-9


def test_stop_ends_the_run_and_leaves_a_panel_that_can_be_used(shallow):
    panel = widgets.denoising_player(shallow, prompt=ASK)
    panel.progress.observe(lambda change: panel.stop.click() if change.new == 3 else None, "value")
    assert run(panel, steps=100) == "Stopped after 3 of 100 steps; what there is can be played."
    step, stopped = controls(panel)["step"], picture(panel)
    assert (step.value, step.max) == (3, 3)
    assert re.match(r"after step 3 of 100: x_t at t = 97: [1-9]\d* of 64 tokens are masked", alt(panel))
    step.value = 0
    assert picture(panel) != stopped
    assert run(panel, steps=2).startswith("Drawn in 2 steps") and step.max == 2


def test_a_second_click_while_it_runs_does_nothing(shallow):
    panel = widgets.denoising_player(shallow, prompt=ASK)
    threads = []

    def click_again(change):
        threads.append(panel._thread)
        panel.start.click()

    panel.progress.observe(click_again, "value")
    run(panel, steps=3)
    assert len(set(threads)) == 1


def test_wrong_prompts_are_answered_with_a_sentence(shallow):
    for panel in (widgets.denoising_player(shallow), widgets.sampler_race(shallow, samplers=("halton",))):
        said = run(panel, steps=2, prompt=" ")
        assert said.startswith("prompt must not be empty") and "\n" not in said and panel.image.value == ""
        assert "never seen &#x27;dog&#x27;" in run(panel, prompt="a red dog") and picture(panel)


def test_whatever_fails_is_said_and_can_be_tried_again(shallow, monkeypatch):
    panel = widgets.denoising_player(shallow, prompt=ASK)
    with monkeypatch.context() as patch:
        patch.setattr(panels, "seeded", lambda seed: 1 / 0)
        assert run(panel, steps=2) == "ZeroDivisionError: division by zero"
    assert run(panel).startswith("Drawn in 2 steps")


def test_two_runs_at_once_hear_their_own_remarks_and_leave_the_warnings_of_the_kernel_alone():
    """The first ends while the second, begun later, still runs: restored filters would be left in disorder."""
    filters, show, seen = list(warnings.filters), warnings.showwarning, []
    doors = {name: (threading.Event(), threading.Event()) for name in "ab"}

    def panel(name):
        def work(run):
            doors[name][0].set()
            assert doors[name][1].wait(60)
            remark(f"of {name}")
            seen.append((warnings.filters == filters, warnings.showwarning is show))
            return "Done."

        return panels.Run(name, [], work, lambda shown: (None, ""))

    runs = {name: panel(name) for name in "ab"}
    for name in "ab":
        runs[name].start.click()
        assert doors[name][0].wait(60)
    for name in "ab":
        doors[name][1].set()
        assert runs[name].wait(60) and line(runs[name]) == f"Done. Note: of {name}."
    assert seen == [(True, True)] * 2 and warnings.filters == filters and warnings.showwarning is show
    with pytest.warns(UserWarning, match="of nobody"):
        remark("of nobody")


def test_a_run_leaves_the_pipeline_as_it_was(shallow):
    bar, names = dict(shallow._bar), dict(vars(shallow))
    run(widgets.denoising_player(shallow, prompt=ASK), steps=2)
    assert shallow._bar == bar and vars(shallow) == names


def test_the_race_reads_each_picture_back(shallow, seeded):
    panel = widgets.sampler_race(shallow, prompt=ASK, samplers=("ancestral", "confident"))
    said = run(panel, steps=5, seed=1, **{"pictures each": 2})
    assert said == "4 of 4 pictures; all samplers have the same seeds."
    assert panel.progress.value == panel.progress.max == 20
    call = {"guidance_scale": shallow.guidance_scale, "output_type": "np", "sampler": "confident"}
    for seed in (1, 2):
        image = shallow(ASK, 5, generator=seeded(seed), **call).images[0]
        assert f"seed {seed}: {widgets.verdict(image, ASK)}" in alt(panel).partition("confident")[2]


def test_the_race_counts_evaluations_and_processor_time(shallow, monkeypatch):
    """A clock that only the sampler moves on: two pictures take 1 and 3 seconds, and the row says their mean."""
    clock = itertools.accumulate([0, 1, 0, 3])
    monkeypatch.setattr(panels, "process_time", lambda: next(clock))
    panel = widgets.sampler_race(shallow, prompt=ASK, samplers=("entropy_bounded",))
    run(panel, steps=4, **{"pictures each": 2})
    row = re.search(
        r"entropy_bounded (\d)(?: to (\d))? evaluations 2\.0 s of processor (\d) of 2 as asked:", alt(panel)
    )
    assert row and 1 <= int(row[1]) <= int(row[2] or row[1]) <= 4
    assert int(row[3]) == len(re.findall(r"seed \d: as asked", alt(panel)))


@pytest.mark.parametrize("name", ["ancestral", "purity", "reference"])
def test_what_a_picture_took_is_what_the_network_was_asked(shallow, name):
    asked, film = [], []
    hook = shallow.transformer.register_forward_hook(lambda *_: asked.append(1))
    panel = panels.Run("", [], lambda run: "", lambda shown: (None, ""))
    try:
        took = panel.generate(shallow, panels.Request(shallow, ASK), name, film)
    finally:
        hook.remove()
    assert took.nfe == len(asked) and took.seconds > 0
    assert [t for t, _ in film] == samplers.find(name).times(shallow.schedule, 25) and film[-1][1].shape == (1, 64)


def test_a_new_figure_is_shown_with_its_own_layout():
    panel = panels.Panel("", [], lambda shown: (plots.rows_of_pictures(shape), "some words"))
    for rows, columns in ((1, 2), (2, 1)):  # as many panels, at other places
        shape = {f"row {row}": [(np.zeros((2, 2, 3)), "")] * columns for row in range(rows)}
        panel.refresh()
        assert len({round(ax.get_position().x0, 3) for ax in panel._shown.figure.axes}) == columns


def test_a_sampler_that_cannot_run_here_does_not_end_the_race(shallow):
    panel = widgets.sampler_race(shallow, prompt=ASK, samplers=("first_hitting", "halton"))
    said = run(panel, steps=2, **{"pictures each": 1})
    assert said.startswith("1 of 2 pictures; all samplers have the same seeds. first_hitting: ")
    assert "halton 2 evaluations" in alt(panel)
    assert run(panel, samplers=()) == "Choose at least one sampler."


def test_a_stopped_race_shows_who_has_arrived(shallow):
    panel = widgets.sampler_race(shallow, prompt=ASK, samplers=("ancestral", "halton"))
    panel.progress.observe(lambda change: panel.stop.click() if change.new == 7 else None, "value")
    assert run(panel, steps=3, **{"pictures each": 2}).startswith("Stopped after 7 of 12 steps")
    assert "ancestral 3 evaluations" in alt(panel) and "halton" not in alt(panel)


def test_verdicts():
    image = scenes.draw(scenes.Scene("white", (scenes.Thing("small", "red", "circle", 8, 8),))) / 255
    assert widgets.verdict(image, ASK) == "as asked"
    assert widgets.verdict(image, "a large blue circle") == "wrong: color, size"
    assert widgets.verdict(image, "a sunset") == ""


# ------------------------------------------------------------------------------------------ in notebooks


def test_a_batch_run_gets_a_picture_and_a_person_the_widget(monkeypatch):
    panel = widgets.posterior_microscope()
    monkeypatch.setattr(panels, "someone_is_there", lambda: False)
    saved = panel._repr_mimebundle_()
    assert set(saved) == {"text/plain", "text/html"} and saved["text/html"].startswith("<img alt=")
    monkeypatch.setattr(panels, "someone_is_there", lambda: True)
    assert VIEW in panel._repr_mimebundle_() and "Posterior microscope" in panel._repr_mimebundle_()["text/plain"]


@pytest.mark.parametrize(
    ("content", "there"), [({"allow_stdin": False}, False), ({"allow_stdin": True}, True), ({}, True)]
)
def test_a_person_is_someone_who_can_be_asked(monkeypatch, content, there):
    shell = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: {"content": content}))
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    assert panels.someone_is_there() is there
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    assert panels.someone_is_there() is False


def test_saved_notebooks_show_their_widgets_without_a_kernel():
    shown = 0
    for path in (Path(__file__).parent.parent / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                assert VIEW not in output.get("data", {}), f"{path.name} was saved from a browser"
                shown += "run this cell in JupyterLab" in output.get("data", {}).get("text/plain", "")
    assert shown >= 3
