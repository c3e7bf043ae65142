"""The widgets as a reader meets them: JupyterLab in headless Chromium, sliders moved by the keyboard, play pressed.

Skipped where Playwright (from pip) or Chromium (`apt-get install chromium`, or CHROMIUM names one) is missing.
Screenshots go to the folder that VQLEARN_SHOTS names, else to pytest's temporary folder. Everything here waits for
what is to come, not for a time: on a slow machine it takes longer, and passes.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import matplotlib
import nbformat
import pytest

from vqlearn.course import reduced

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
if CHROMIUM is None:
    pytest.skip("no Chromium here: apt-get install chromium, or set CHROMIUM to its path", allow_module_level=True)

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
PATIENCE = 600  # seconds, after which something hangs for certain
NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
NAME = "widgets.ipynb"
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"autoStartDefaultKernel": True, "windowingMode": "none"},  # all cells in the page
}
PLAYER = """panel = widgets.denoising_player()
stopped = threading.Event()
panel.stop.on_click(lambda _: stopped.set())
panel.progress.observe(lambda change: (change.new, panel.progress.max) == (3, 100) and stopped.wait(), "value")
display(panel)"""  # a run of 100 steps stays at the third until it is stopped, however fast the machine is
CONNECTED = """async () => {
    const context = jupyterapp.shell.currentWidget?.sessionContext;
    await context?.ready;
    const kernel = context?.session?.kernel;
    await kernel?.info;
    return kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""
WATCH = """cell => {
    cell.pictures = new Set();
    const look = () => cell.querySelectorAll(".jp-OutputArea-output img").forEach(img => cell.pictures.add(img.src));
    new MutationObserver(look).observe(cell, {subtree: true, childList: true, attributes: true});
}"""


LAB = """
import sys
sys.modules["rfc3987_syntax"] = None  # see early.py: the server checks no addresses in other alphabets either
from jupyterlab.labapp import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A notebook of what the widgets of three of the course need, one with its text, and of the two players of runs."""
    root = tmp_path_factory.mktemp("lab") / "notebooks"
    root.mkdir()
    cells = []
    for name in ("03_forward_process", "04_schedules", "05_posterior"):
        book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        code = {number: cell.source for number, cell in enumerate(book.cells) if cell.cell_type == "code"}
        shown = [number for number, source in code.items() if "display(widgets." in source]
        chosen = {*shown, *reduced.needed(code, shown)}
        if name == "05_posterior":
            chosen |= {number for number in range(max(shown)) if number not in code}
        cells += [book.cells[number] for number in sorted(chosen)]
    lines = "import threading\n\nfrom vqlearn import plots, widgets\n\nplots.set_style()", PLAYER
    lines += ('display(widgets.sampler_race(samplers=("ancestral", "halton")))',)
    cells += [nbformat.v4.new_code_cell(source) for source in lines]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    whole = nbformat.v4.new_notebook(cells=cells)
    whole.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(whole, root / NAME)
    return root


@pytest.fixture(scope="module")
def lab(folder):
    """The address of a JupyterLab on loopback, and its token."""
    home = folder.parent / "home"
    for plugin, settings in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, places, runtime = secrets.token_hex(16), ("SETTINGS", "WORKSPACES"), home / "runtime"
    env = {**os.environ, "HOME": str(home), "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_PREFER_ENV_PATH": "1"}
    env["JUPYTER_RUNTIME_DIR"] = str(runtime)
    env["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # else a new home has to list all fonts anew
    env |= {f"JUPYTERLAB_{place}_DIR": str(home / place.lower()) for place in places}
    command = [sys.executable, "-c", LAB, "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    command += ["--LabApp.expose_app_in_browser=True"]  # as `jupyterapp`, which knows when a kernel is connected

    def ended_or_answers() -> str | bool:
        for note in runtime.glob("jpserver-*.json"):  # the port may be another one, if somebody was faster
            with contextlib.suppress(ValueError, OSError):  # it is being written, or the server does not answer yet
                address = f"http://127.0.0.1:{json.loads(note.read_text())['port']}"
                urllib.request.urlopen(f"{address}/api/status?token={token}", timeout=PATIENCE).close()
                return address
        return server.poll() is not None

    with open(home / "lab.log", "w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            address = wait_for(ended_or_answers, "server")
            assert server.poll() is None, (home / "lab.log").read_text()[-2000:]
            yield address, token
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(PATIENCE)
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def page(lab):
    """JupyterLab, open in Chromium; `page.troubles` lists its errors and what it asked of others than our server."""
    address, token = lab
    ours = (address, address.replace("http", "ws"), "data:", "blob:")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=1000 * PATIENCE)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(1000 * PATIENCE)
        page.troubles = []
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(ours) else page.troubles.append(asked.url))
        page.goto(f"{address}/lab?token={token}&reset")
        page.locator(".jp-DirListing-item").first.wait_for()
        yield page
        browser.close()


@pytest.fixture(scope="module")
def book(page):
    """The notebook, open and run from top to bottom."""
    page.locator(".jp-DirListing-item", has_text=NAME).dblclick()
    page.locator("#jp-main-dock-panel .lm-TabBar-tab.lm-mod-current", has_text=NAME).wait_for()
    book = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)").first
    book.locator(".jp-Cell").first.wait_for()
    run_all(page, book)
    return book


@pytest.fixture(autouse=True)
def shots(page, tmp_path, request):
    """Where screenshots go, one of the page as the test leaves it; it may raise nothing and ask nobody else."""
    place = Path(os.environ.get("VQLEARN_SHOTS") or tmp_path)
    place.mkdir(parents=True, exist_ok=True)
    yield place
    page.screenshot(path=place / f"{request.node.name}.png")
    assert not page.troubles


def wait_for(what, name: str):
    """Ask `what` until it says something true, and return that."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {PATIENCE} s in vain for: {name}")


def run_all(page, book) -> None:
    page.wait_for_function(CONNECTED)  # a Run All before that is lost
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu").get_by_text("Run All Cells", exact=True).click()
    prompts = book.locator(".jp-CodeCell .jp-InputPrompt")
    done = re.compile(r"\[\d+\]:?")
    wait_for(lambda: all(done.fullmatch(text.strip()) for text in prompts.all_text_contents()), "Run All")
    assert book.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0


def widget(book, name: str):
    """The cell that shows a widget."""
    cell = book.locator(".jp-CodeCell", has=book.page.locator(".widget-vbox")).filter(has_text=f"widgets.{name}(")
    cell.locator(".widget-vbox").first.wait_for()
    cell.scroll_into_view_if_needed()
    return cell


def source(cell) -> str | None:
    """The picture as it is at this moment."""
    return cell.evaluate("cell => cell.querySelector('.jp-OutputArea-output img')?.src")


def words(cell) -> str:
    """Its alternative text."""
    return cell.evaluate("cell => cell.querySelector('.jp-OutputArea-output img')?.alt") or ""


def first_picture(cell) -> str:
    return wait_for(lambda: source(cell), "the first picture")


def changed(cell, before: str | None, what: str) -> str:
    """The picture after it has changed."""
    return wait_for(lambda: (now := source(cell)) is not None and now != before and now, f"a new picture after {what}")


def played(cell, what: str, last: str) -> None:
    """Press play; pictures must come by themselves, and at the end the one whose alternative text begins so."""
    cell.evaluate(WATCH)
    cell.locator(".widget-play button").first.click()
    several = "cell => cell.pictures.size > 1"
    wait_for(lambda: cell.evaluate(several) and words(cell).startswith(last), f"play of {what}")


def keys(page, cell, label: str, *names: str, reads: str) -> None:
    """Press keys on the slider with a label, which must then read so."""
    line = cell.locator(".widget-inline-hbox", has=page.get_by_text(label, exact=True)).first
    line.locator(".noUi-handle").focus()
    for name in names:
        page.keyboard.press(name)
    wait_for(lambda: line.locator(".widget-readout").inner_text() == reads, f"{label} to be {reads}")


def test_the_schedule_explorer_follows_the_keyboard(page, book):
    cell = widget(book, "schedule_explorer")
    first = first_picture(cell)
    keys(page, cell, "masked at t = T", "ArrowLeft", reads="0.89")
    second = changed(cell, first, "a key")
    keys(page, cell, "kept at t = T", *["ArrowRight"] * 15, reads="0.15")
    changed(cell, second, "more keys")
    masked = cell.locator(".widget-inline-hbox", has_text="masked at t = T").locator(".widget-readout")
    wait_for(lambda: masked.inner_text() == "0.85", "the other slider to give way")
    assert words(cell).startswith("Three curves")


def test_the_posterior_microscope_follows_the_keyboard(page, book):
    cell = widget(book, "posterior_microscope")
    before = first_picture(cell)
    for label, key, reads in (
        ("seen token x_t", "ArrowRight", "3"),
        ("clean token x_0", "ArrowRight", "2"),
        ("later time t", "End", "10"),
    ):
        keys(page, cell, label, key, reads=reads)
        before = changed(cell, before, label)
    keys(page, cell, "later time t", "Home", reads="1")
    earlier = cell.locator(".widget-inline-hbox", has_text="earlier time s").locator(".widget-readout")
    wait_for(lambda: earlier.inner_text() == "0", "s to stay earlier than t")


def test_the_corruption_player_plays(page, book):
    cell = widget(book, "corruption_player")
    before = first_picture(cell)
    keys(page, cell, "time t", "ArrowLeft", reads="49")
    changed(cell, before, "a key")
    keys(page, cell, "time t", "End", *["ArrowLeft"] * 8, reads="92")
    drawn = "drawn from q(x_t | x_0), t = "
    wait_for(lambda: words(cell).startswith(f"{drawn}92: "), "the picture of t = 92")
    played(cell, "corruption", f"{drawn}100: ")
    assert re.fullmatch(r"\d+ of 64 tokens are masked and \d+ are replaced.", words(cell).partition(": ")[2])


def test_a_dragged_slider_ends_at_the_picture_of_its_last_value(page, book):
    cell = widget(book, "corruption_player")
    line = cell.locator(".widget-inline-hbox", has=page.get_by_text("time t", exact=True)).first
    track, handle = (line.locator(part).bounding_box() for part in (".noUi-base", ".noUi-handle"))
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    page.mouse.down()
    page.mouse.move(track["x"] + track["width"] / 3, handle["y"], steps=40)
    page.mouse.up()
    t = line.locator(".widget-readout").inner_text()
    assert 20 < int(t) < 45
    wait_for(lambda: f"t = {t}: " in words(cell), "the picture of the last value")


def test_runs_show_progress_stop_and_play(page, book, shots):
    cell = widget(book, "denoising_player")
    line = cell.locator('[role="status"]')
    assert line.inner_text() == "Press Generate." and source(cell) is None
    keys(page, cell, "steps", "End", reads="100")
    cell.get_by_role("button", name="Generate").click()
    wait_for(lambda: cell.locator(".progress-bar").evaluate("bar => bar.offsetWidth") > 0, "progress")
    cell.get_by_role("button", name="Stop").click()
    wait_for(lambda: re.match("Stopped after [123] of 100 steps", line.inner_text()), "the stop")  # it goes no further
    stopped = changed(cell, None, "the stop")
    keys(page, cell, "steps", "Home", *["ArrowRight"] * 7, reads="8")
    cell.get_by_role("button", name="Generate").click()
    wait_for(lambda: line.inner_text().startswith("Drawn in 8 steps"), "the run")
    changed(cell, stopped, "the run")
    wait_for(lambda: words(cell).startswith("after step 8 of 8: x_t at t = 0: "), "the last picture")
    played(cell, "the run", "after step 8 of 8: x_t at t = 0: ")
    page.screenshot(path=shots / "denoising_player.png")

    race = widget(book, "sampler_race")
    keys(page, race, "steps", "Home", "ArrowRight", "ArrowRight", reads="3")
    race.get_by_role("button", name="Generate").click()
    wait_for(lambda: race.locator('[role="status"]').inner_text().startswith("6 of 6 pictures"), "the race")
    assert re.search(r"halton 3 evaluations \d+\.\d s of processor [0-3] of 3 as asked: ", words(race))
