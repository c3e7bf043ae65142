"""The widgets as a reader meets them: JupyterLab in headless Chromium, sliders moved by the keyboard, play pressed.

Skipped where Playwright (from pip) or Chromium (`apt-get install chromium`, or CHROMIUM names one) is missing.
Screenshots go to the folder that VQLEARN_SHOTS names, else to pytest's temporary folder.
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

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
if CHROMIUM is None:
    pytest.skip("no Chromium here: apt-get install chromium, or set CHROMIUM to its path", allow_module_level=True)

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"autoStartDefaultKernel": True, "windowingMode": "none"},  # all cells in the page
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The notebooks with widgets, up to the last of them, and one with the two players of runs."""
    root = tmp_path_factory.mktemp("lab") / "notebooks"
    root.mkdir()
    for path in NOTEBOOKS.glob("*.ipynb"):
        book = nbformat.read(path, as_version=4)
        found = [number for number, cell in enumerate(book.cells) if "display(widgets." in cell.source]
        if found and path.stem in ("03_forward_process", "04_schedules", "05_posterior"):
            book.cells = book.cells[: found[-1] + 2]
            nbformat.write(book, root / path.name)
    lines = "from vqlearn import plots, widgets\n\nplots.set_style()", "display(widgets.denoising_player())"
    lines += ('display(widgets.sampler_race(samplers=("ancestral", "halton")))',)
    runs = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in lines])
    runs.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(runs, root / "runs.ipynb")
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
    token, places = secrets.token_hex(16), ("SETTINGS", "WORKSPACES")
    env = {**os.environ, "HOME": str(home), "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_PREFER_ENV_PATH": "1"}
    env["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # else a new home has to list all fonts anew
    env |= {f"JUPYTERLAB_{place}_DIR": str(home / place.lower()) for place in places}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    address = f"http://127.0.0.1:{port}"
    with open(home / "lab.log", "w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: server.poll() is not None or answers(f"{address}/api/status?token={token}"), "server", 60)
            assert server.poll() is None, (home / "lab.log").read_text()[-2000:]
            yield address, token
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(15)
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def page(lab):
    """JupyterLab, open in Chromium; `page.troubles` lists its errors and what it asked of others than our server."""
    address, token = lab
    ours = (address, address.replace("http", "ws"), "data:", "blob:")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.troubles = []
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(ours) else page.troubles.append(asked.url))
        page.goto(f"{address}/lab?token={token}&reset")
        page.locator(".jp-DirListing-item").first.wait_for(timeout=60_000)
        yield page
        browser.close()


@pytest.fixture
def shots(tmp_path) -> Path:
    place = Path(os.environ.get("VQLEARN_SHOTS") or tmp_path)
    place.mkdir(parents=True, exist_ok=True)
    return place


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


def wait_for(what, name: str, seconds: float = 30):
    """Ask `what` until it says something true, and return that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s in vain for: {name}")


@contextlib.contextmanager
def opened(page, name: str, shots: Path):
    """A notebook, open and run from top to bottom; the page may raise nothing and ask nobody else."""
    page.locator(".jp-DirListing-item", has_text=name).dblclick()
    page.locator("#jp-main-dock-panel .lm-TabBar-tab.lm-mod-current", has_text=name).wait_for()
    book = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)").first
    book.locator(".jp-Cell").first.wait_for(timeout=60_000)
    run_all(page, book)
    try:
        yield book
    finally:
        page.screenshot(path=shots / f"{Path(name).stem}.png")
    assert not page.troubles


def run_all(page, book) -> None:
    light = book.locator(".jp-Notebook-ExecutionIndicator").first
    quiet = 0
    for _ in range(300):  # the kernel is shortly idle before it connects; a Run All in that gap is lost
        page.wait_for_timeout(200)
        quiet = quiet + 1 if light.get_attribute("data-status") == "idle" else 0
        if quiet == 6:
            break
    assert quiet == 6, "the kernel did not become idle"
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu").get_by_text("Run All Cells", exact=True).click()
    prompts = book.locator(".jp-CodeCell .jp-InputPrompt")
    done = re.compile(r"\[\d+\]:?")
    wait_for(lambda: all(done.fullmatch(text.strip()) for text in prompts.all_text_contents()), "Run All", 120)
    assert book.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0


def widget(book, number: int = 0):
    cell = book.locator(".jp-CodeCell", has=book.page.locator(".widget-vbox")).nth(number)
    cell.locator(".widget-vbox").first.wait_for(timeout=30_000)
    cell.scroll_into_view_if_needed()
    return cell


def source(cell) -> str | None:
    with contextlib.suppress(Exception):  # the image is replaced while it is drawn
        return cell.locator(".jp-OutputArea-output img").first.get_attribute("src", timeout=1000)
    return None


def changed(cell, before: str | None, what: str) -> str:
    """The picture after it has changed."""
    return wait_for(lambda: (now := source(cell)) is not None and now != before and now, f"a new picture after {what}")


def keys(page, cell, label: str, *names: str) -> str:
    """Press keys on the slider with a label, and return what it reads then."""
    line = cell.locator(".widget-inline-hbox", has=page.get_by_text(label, exact=True)).first
    line.locator(".noUi-handle").focus()
    for name in names:
        page.keyboard.press(name)
    return line.locator(".widget-readout").inner_text()


def test_the_schedule_explorer_follows_the_keyboard(page, shots):
    with opened(page, "04_schedules.ipynb", shots) as book:
        cell = widget(book)
        first = source(cell)
        assert keys(page, cell, "masked at t = T", "ArrowLeft") == "0.89"
        second = changed(cell, first, "a key")
        keys(page, cell, "kept at t = T", *["ArrowRight"] * 15)
        changed(cell, second, "more keys")
        masked = cell.locator(".widget-inline-hbox", has_text="masked at t = T").locator(".widget-readout")
        wait_for(lambda: masked.inner_text() == "0.85", "the other slider to give way")
        assert cell.locator("img").first.get_attribute("alt").startswith("Three curves")


def test_the_posterior_microscope_follows_the_keyboard(page, shots):
    with opened(page, "05_posterior.ipynb", shots) as book:
        cell = widget(book)
        before = source(cell)
        for label, key in (
            ("seen token x_t", "ArrowRight"),
            ("clean token x_0", "ArrowRight"),
            ("later time t", "End"),
        ):
            keys(page, cell, label, key)
            before = changed(cell, before, label)
        assert keys(page, cell, "later time t", "Home") == "1"
        earlier = cell.locator(".widget-inline-hbox", has_text="earlier time s").locator(".widget-readout")
        wait_for(lambda: earlier.inner_text() == "0", "s to stay earlier than t")


def test_the_corruption_player_plays(page, shots):
    with opened(page, "03_forward_process.ipynb", shots) as book:
        cell = widget(book)
        before = source(cell)
        assert keys(page, cell, "time t", "ArrowLeft") == "49"
        before = changed(cell, before, "a key")
        cell.locator(".widget-play button").first.click()
        for _ in range(3):
            before = changed(cell, before, "play")
        cell.locator(".widget-play button").first.click()
        words = cell.locator("img").first.get_attribute("alt")
        assert int(re.match(r"t = (\d+): \d+ of 64 tokens are masked", words)[1]) >= 50


def test_runs_show_progress_stop_and_play(page, shots):
    with opened(page, "runs.ipynb", shots) as book:
        cell = widget(book)
        line = cell.locator('[role="status"]')
        assert line.inner_text() == "Press Generate." and source(cell) is None
        keys(page, cell, "steps", "End")  # 100 steps, to have the time to stop
        cell.get_by_role("button", name="Generate").click()
        wait_for(lambda: cell.locator(".progress-bar").evaluate("bar => bar.offsetWidth") > 0, "progress")
        cell.get_by_role("button", name="Stop").click()
        wait_for(lambda: line.inner_text().startswith("Stopped after"), "the stop")
        stopped = changed(cell, None, "the stop")
        keys(page, cell, "steps", "Home", *["ArrowRight"] * 7)
        cell.get_by_role("button", name="Generate").click()
        wait_for(lambda: line.inner_text().startswith("Drawn in 8 steps"), "the run")
        before = changed(cell, stopped, "the run")
        cell.locator(".widget-play button").first.click()
        for _ in range(3):
            before = changed(cell, before, "play")
        page.screenshot(path=shots / "denoising_player.png")

        race = widget(book, 1)
        keys(page, race, "steps", "Home", "ArrowRight", "ArrowRight")
        race.get_by_role("button", name="Generate").click()
        wait_for(lambda: race.locator('[role="status"]').inner_text().startswith("2 of 2 pictures"), "the race")
        assert "halton: " in race.locator("img").first.get_attribute("alt")
