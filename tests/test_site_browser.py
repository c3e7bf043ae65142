"""The site in a browser: pages fit a phone, search and buttons work from a disk, widgets compute as the library.

Skipped where Playwright (from pip) or Chromium (`apt-get install chromium`) is missing; the audit also where
axe-playwright-python is, which brings axe-core.
"""

import contextlib
import itertools
import json
import re
import shutil
import socket

import pytest
import torch

import vqlearn

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")

PATIENCE = 600  # seconds, on a slow machine
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
WHITE = "rgb(255, 255, 255)"


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_api.sync_playwright() as running:
        try:
            options = {"executable_path": found, "args": ["--no-sandbox", "--disable-gpu"], "timeout": 1000 * PATIENCE}
            started = running.chromium.launch(**options)
        except sync_api.Error:
            pytest.skip("no Chromium was found for playwright")
        yield started
        started.close()


@contextlib.contextmanager
def opened(browser, **options):
    """A tab of its own, in which no page may report an error or ask for anything that is not beside it."""
    context = browser.new_context(**{"viewport": DESK, "color_scheme": "light", **options})
    context.set_default_timeout(1000 * PATIENCE)
    tab, trouble = context.new_page(), []
    tab.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    tab.on("request", lambda r: trouble.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
    tab.on("requestfailed", lambda r: trouble.append(r.url) if r.failure != "net::ERR_ABORTED" else None)  # by going on
    yield tab
    context.close()
    assert trouble == []


# ------------------------------------------------------------------------------------------------------- how it looks

OPEN = "document.querySelectorAll('main details').forEach(folded => { folded.open = true; })"
WIDE = "document.documentElement.scrollWidth > window.innerWidth"
SCROLLED = "[...document.querySelectorAll('.formula')].filter(box => box.scrollWidth > box.clientWidth).length"
GROUND = "getComputedStyle(document.body).backgroundColor"
LOAD_MORE = """async address => {
    const told = new Set();
    document.addEventListener("securitypolicyviolation", event => told.add(event.effectiveDirective.split("-")[0]));
    const add = (tag, parts) => document.body.append(Object.assign(document.createElement(tag), parts));
    add("script", {textContent: "window.ran = true"});
    add("script", {src: address + "a.js"});
    add("img", {src: address + "a.png"});
    add("img", {src: "data:image/gif;base64,R0lGODlhAQABAAAAACw="});
    add("link", {rel: "stylesheet", href: address + "a.css"});
    add("iframe", {src: address});
    add("video", {src: address + "a.mp4"});
    await fetch(address).catch(() => null);
    for (let i = 0; i < 100 && told.size < 6; i++) await new Promise(done => setTimeout(done, 50));
    return [[...told].sort(), window.ran === undefined];
}"""


def test_pages_load_whole_and_fit_a_phone_and_a_desk_in_light_and_dark(browser, site_folder):
    paths = [path for path in sorted(site_folder.rglob("*.html")) if path.parent.name not in ("reference", "source")]
    paths += [site_folder / f"reference/{name}.html" for name in ("index", "names", "schedule")]
    paths.append(site_folder / "source/schedule.py.html")
    with opened(browser, viewport=PHONE) as tab:
        for path in paths:
            tab.goto(path.as_uri())
            tab.evaluate(OPEN)
            assert (tab.evaluate(WIDE), tab.evaluate(GROUND)) == (False, WHITE), path.name
        tab.set_viewport_size(DESK)
        tab.emulate_media(color_scheme="dark")
        for path in (*{path.parent: path for path in paths}.values(), site_folder / "06_training_objective.html"):
            tab.goto(path.as_uri())
            assert not tab.evaluate(WIDE) and tab.evaluate(GROUND) != WHITE, path.name
            assert tab.evaluate(SCROLLED) == 0, "a formula is wider than its column"


def test_the_browser_lets_no_page_load_anything_else(browser, site_folder):
    context = browser.new_context()
    context.set_default_timeout(1000 * PATIENCE)
    tab = context.new_page()
    tab.goto((site_folder / "index.html").as_uri())
    with socket.create_server(("127.0.0.1", 0)) as server:
        told, held = tab.evaluate(LOAD_MORE, f"http://127.0.0.1:{server.getsockname()[1]}/")
        context.close()
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # nobody came, or came and asked for nothing
            while True:
                with server.accept()[0] as connection:
                    connection.setblocking(False)
                    assert connection.recv(100) == b""
    assert told == ["connect", "frame", "img", "media", "script", "style"] and held


def test_the_summary_of_equations_is_printed_on_one_page(browser, site_folder):
    with opened(browser) as tab:
        tab.goto((site_folder / "docs" / "teaching" / "equations.html").as_uri())
        assert len(re.findall(rb"/Type\s*/Page\b", tab.pdf(prefer_css_page_size=True))) == 1


# ------------------------------------------------------------------------------------------ what a reader can do


def test_the_reader_chooses_the_colours_and_keeps_them(browser, site_folder):
    with opened(browser) as tab:
        tab.goto((site_folder / "index.html").as_uri())
        tab.get_by_role("button", name="Dark colours").click()
        tab.goto((site_folder / "12_one_page.html").as_uri())
        assert tab.evaluate(GROUND) != WHITE


def test_the_reader_hides_the_code_and_copies_it(browser, site_folder):
    with opened(browser) as tab:
        tab.goto((site_folder / "04_schedules.html").as_uri())
        cell, first = tab.locator(".cell", has_text="display(widgets"), tab.locator(".cell").first
        copy = cell.get_by_role("button", name="Copy this code")
        copy.focus()
        tab.keyboard.press("Enter")
        tab.get_by_text("The code is copied.").wait_for()
        tab.keyboard.press("/")
        tab.keyboard.press("Control+v")
        pasted = tab.get_by_role("searchbox").input_value()
        assert pasted == cell.locator("pre").inner_text().strip()
        tab.keyboard.press("Escape")
        button = tab.get_by_role("button", name="Hide code of this notebook")
        button.focus()
        tab.keyboard.press("Enter")
        assert not first.is_visible() and tab.locator(".output pre").first.is_visible()
        tab.goto((site_folder / "12_one_page.html").as_uri())
        assert not tab.locator(".cell").first.is_visible(), "the choice is kept"
        tab.get_by_role("button", name="Show code of this notebook").click()
        assert tab.locator(".cell").first.is_visible()
        tab.goto((site_folder / "docs" / "course.html").as_uri())
        assert tab.get_by_role("button", name="Copy this code").count() > 5 and tab.locator("#code").count() == 0


def test_the_search_works_from_a_disk_by_the_keyboard(browser, site_folder):
    with opened(browser, viewport=PHONE) as tab:
        tab.goto((site_folder / "docs" / "teaching" / "guide.html").as_uri())
        tab.keyboard.press("/")
        tab.keyboard.type("MaskReplaceSchedule.between")
        tab.locator(".found a").first.wait_for()
        tab.keyboard.press("ArrowDown")
        focused = tab.evaluate("[document.activeElement.textContent, document.activeElement.href]")
        assert focused[0] == "MaskReplaceSchedule.between"
        tab.keyboard.press("Enter")
        tab.wait_for_url("**/reference/schedule.html#MaskReplaceSchedule.between")

        button = tab.get_by_role("button", name="Search")
        button.focus()
        tab.keyboard.press("Enter")
        search = tab.get_by_role("searchbox", name="Search the course, the guides and the reference")
        search.fill("One token, x_0 known: BAYES' rule")
        first = tab.locator(".found li").first
        assert first.locator("a").inner_text() == "5.2 One token, x_0 known: Bayes' rule"
        assert first.locator("small").inner_text() == "05 · The posterior" and first.locator("mark").count() >= 5
        search.fill("Frechet")
        assert "Fréchet" in tab.locator(".found").inner_text(), "accents need not be typed"
        assert not tab.evaluate(WIDE)
        search.fill("posterior nonsensical-word")
        assert tab.locator(".said").inner_text().startswith("No section has all of these words; ")
        search.fill("nonsensical-word")
        assert tab.locator(".said").inner_text() == "Nothing has “nonsensical-word”."
        assert tab.locator(".found li").count() == 0
        tab.keyboard.press("Escape")
        assert not search.is_visible() and tab.evaluate("document.activeElement.id") == "search"


def test_without_scripts_a_page_is_whole_and_has_no_dead_buttons(browser, site_folder):
    with opened(browser, java_script_enabled=False) as tab:
        tab.goto((site_folder / "05_posterior.html").as_uri())
        assert tab.locator("button:visible").count() == 0
        assert tab.locator("[data-widget] img").is_visible() and tab.locator(".cell").first.is_visible()


# ------------------------------------------------------------------------------------------------------ live widgets

SCHEDULE = """({ends, pairs}) => {
    const schedule = vqlearn.toEnds(...ends), jumps = pairs.map(([s, t]) => vqlearn.between(schedule, s, t));
    const shares = ["alpha", "beta", "gamma"].map(name => jumps.map(jump => jump[name]));
    return JSON.stringify([schedule.alphaBar, ...shares]);
}"""
BAYES = """cases => JSON.stringify(cases.map(one => vqlearn.bayes(vqlearn.paper(4, 10), ...one).posterior))"""
ENDS = [(0.0, 0.9), (0.0, 1.0), (0.99, 0.01), (0.3, 0.0), (0.15, 0.85), (0.0, 0.0)]


@pytest.fixture(scope="module")
def mathematics(browser, site_folder):
    with opened(browser) as tab:
        tab.goto((site_folder / "05_posterior.html").as_uri())
        yield tab


@pytest.mark.parametrize("shape", ["straight line", "cosine"])
def test_schedules_of_the_page_are_the_librarys(mathematics, shape):
    line = torch.linspace(0, 1, 21, dtype=torch.float64)
    gone = line if shape == "straight line" else 1 - torch.cos(line * torch.pi / 2)
    pairs = [(s, t) for t in range(21) for s in range(t + 1)]
    for kept, masked in ENDS:
        ours = vqlearn.MaskReplaceSchedule(1 - (1 - kept) * gone, masked * gone, num_codes=4)
        asked = {"ends": [4, 20, kept, masked, shape], "pairs": pairs}
        found = json.loads(mathematics.evaluate(SCHEDULE, asked))
        for theirs, wanted in zip(found, (ours.alpha_bar, *ours.between(*torch.tensor(pairs).T)), strict=True):
            torch.testing.assert_close(torch.tensor(theirs, dtype=torch.float64), wanted, rtol=0, atol=1e-9)


def test_posteriors_of_the_page_are_the_librarys(mathematics):
    schedule = vqlearn.MaskReplaceSchedule.paper(num_codes=4, num_steps=10)
    cases = [(*codes, s, t) for t in range(1, 11) for s in range(t) for codes in itertools.product(range(4), range(5))]
    found = json.loads(mathematics.evaluate(BAYES, cases))
    wanted = posteriors(schedule, cases)
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), wanted, rtol=0, atol=1e-9)


def posteriors(schedule, cases: list[tuple[int, int, int, int]]) -> torch.Tensor:
    """q(x_s | x_t, x_0) for cases of x_0, x_t, s and t, `[N, K + 1]`."""
    x_0, x_t, s, t = torch.tensor(cases).T
    known = torch.nn.functional.one_hot(x_0[:, None], schedule.num_codes).double().log()
    return vqlearn.q_posterior(known, x_t[:, None], t, schedule, s=s)[:, 0].exp()


def test_the_schedule_explorer_follows_the_keyboard(browser, site_folder):
    with opened(browser, viewport=PHONE) as tab:
        tab.goto((site_folder / "04_schedules.html").as_uri())
        place = tab.locator("[data-widget=schedule_explorer]")
        assert place.locator("img").count() == 0 and place.locator("svg.tokens").count() == 6
        kept, masked = place.get_by_label("kept at t = T"), place.get_by_label("masked at t = T")
        kept.focus()
        for _ in range(15):
            tab.keyboard.press("ArrowRight")
        assert (kept.input_value(), masked.input_value()) == ("0.15", "0.85"), "the other slider gives way"
        place.get_by_label("on the way").select_option("cosine")
        place.get_by_label("time t").focus()
        tab.keyboard.press("End")
        tab.keyboard.press("ArrowLeft")
        gone = 1 - torch.cos(torch.linspace(0, 1, 101, dtype=torch.float64) * torch.pi / 2)
        schedule = vqlearn.MaskReplaceSchedule(1 - 0.85 * gone, 0.85 * gone, num_codes=4)
        said = place.get_by_role("status").inner_text()
        assert said.startswith("From clean data to t = 99:") and "In the step from 98 to 99:" in said
        numbers = [float(text) for text in re.findall(r"= (\d\.[\de-]+)[,.](?: |$)", said)]
        for found, shares in zip((numbers[:3], numbers[3:]), (schedule.bar(99), schedule.between(98, 99)), strict=True):
            wanted = [shares.alpha, 4 * shares.beta, shares.gamma]
            assert found == pytest.approx([float(share) for share in wanted], abs=5.1e-4)
        assert "0.150 kept, 0.000 replaced, 0.850 masked" in place.locator("svg.chart").get_attribute("aria-label")


def test_the_posterior_microscope_follows_the_keyboard(browser, site_folder):
    schedule = vqlearn.MaskReplaceSchedule.paper(num_codes=4, num_steps=10)
    with opened(browser) as tab:
        tab.goto((site_folder / "05_posterior.html").as_uri())
        place = tab.locator("[data-widget=posterior_microscope]")
        for label, key in (("seen token x_t", "End"), ("clean token x_0", "Home"), ("later time t", "End")):
            place.get_by_label(label).focus()
            tab.keyboard.press(key)
        place.get_by_label("earlier time s").focus()
        tab.keyboard.press("End")
        assert place.get_by_label("seen token x_t").get_attribute("aria-valuetext") == "mask"
        said = place.get_by_role("status").inner_text()
        (wanted,) = posteriors(schedule, [(0, 4, 9, 10)])
        assert said == f"Given x_0 = 0 and x_10 = mask, x_9 is most likely mask, with probability {wanted[4]:.3f}."
        shown = place.locator("svg.bars").last.get_attribute("aria-label")
        numbers = [float(number) for number in re.findall(r"(?:\d|mask) (\d\.[\de+-]+)", shown.partition(": ")[2])]
        assert numbers == pytest.approx(wanted.tolist(), abs=5.1e-4)
        place.get_by_label("later time t").focus()
        tab.keyboard.press("Home")
        assert place.get_by_label("earlier time s").input_value() == "0", "s stays earlier than t"


# ----------------------------------------------------------------------------------------------------- accessibility

KINDS = {  # a page of each kind, and what of a long one is left out: the audit takes the longer the more there is
    "index.html": ".cards > :nth-child(n + 4)",
    "04_schedules.html": "article > :not([data-widget])",
    "05_posterior.html": "article > :nth-child(n + 12):not([data-widget], details:nth-of-type(-n + 2))",
    "docs/course.html": "article > :nth-child(n + 24), article tr:nth-child(n + 4)",
    "reference/index.html": ".entries > :nth-child(n + 9)",
    "reference/schedule.html": "article > :nth-child(n + 30)",
    "source/schedule.py.html": "article pre > :nth-child(n + 60)",
}
AUDIT = """async () => (await axe.run({resultTypes: ["violations"], preload: false})).violations
    .filter(found => ["serious", "critical"].includes(found.impact))
    .map(found => [found.id, found.nodes.slice(0, 3).map(node => node.html)])"""


@pytest.mark.parametrize("page", [*KINDS, "search", "contents"])
def test_an_audit_finds_nothing_serious(browser, site_folder, page):
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe-playwright-python is not installed")
    with opened(browser, viewport=PHONE, bypass_csp=True) as tab:
        tab.goto((site_folder / (page if page in KINDS else "docs/teaching/README.html")).as_uri())
        if KINDS.get(page):
            tab.evaluate("which => document.querySelectorAll(which).forEach(part => part.remove())", KINDS[page])
        if page == "search":
            tab.keyboard.press("/")
            tab.keyboard.type("posterior")
            tab.locator(".found a").first.wait_for()
        if page == "contents":
            tab.get_by_text("Contents", exact=True).first.click()
        tab.evaluate(OPEN)
        tab.evaluate(axe.AXE_SCRIPT)
        assert tab.evaluate(AUDIT) == []
        tab.emulate_media(color_scheme="dark")
        tab.set_viewport_size(DESK)
        assert tab.evaluate(AUDIT) == []
