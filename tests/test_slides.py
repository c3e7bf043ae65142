"""Slides: what a notebook says is on them, none is higher or wider than the screen, and no page asks for a network."""

import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("latex2mathml", reason="the slides need latex2mathml")

from vqlearn.__main__ import main
from vqlearn.course import copying, slides
from vqlearn.course.exercises import exercises

NOTEBOOK = "06_training_objective"  # the longest equations


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("slides") / "slides"
    assert main(["course", "slides", str(folder)]) == 0
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_each_notebook_is_one_page_that_asks_for_nothing(pages):
    assert sorted(pages) == [path.stem for path in copying.notebooks()]
    for page in pages.values():
        assert "default-src 'none'" in page and len(page) < 2_000_000
        shown = re.sub(r"<script>.*?</script>|<style>.*?</style>", "", page, flags=re.S)
        assert not re.search(r'<link|(?:src|srcset|poster)="(?!data:image/png)|url\(', shown)
        styles = "".join(re.findall(r"<style>.*?</style>", page, re.S))
        assert set(re.findall(r"url\((.{5})|@import", styles)) == {"data:"}


def test_every_section_equation_and_figure_is_on_a_slide(pages):
    for path in copying.notebooks():
        page, cells = re.sub("<aside.*?</aside>", "", pages[path.stem], flags=re.S), copying.read(path).cells
        texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
        numbers = re.findall(r"\\tag\{(.+?)\}", slides.DETAILS.sub("", "\n".join(texts).partition("## Check")[0]))
        assert numbers == re.findall(r'<span class="number">\((.+?)\)', page.partition("Check yourself")[0])
        assert len(re.findall("^## ", "\n".join(texts), re.M)) == page.count("<section>\n<section>")
        assert all(
            one.title.replace("`", "") in re.sub("<[^>]*>", "", page)
            for one in exercises(cells)
            if "$" not in one.title
        )
        drawn = [
            output.data.get("text/html", "") for cell in cells for output in cell.get("outputs", []) if "data" in output
        ]
        assert page.count('<div class="figure">') == page.count("<img ") == "".join(drawn).count('src="data:image/png')
        assert "Solution</summary>" not in page and "NBVAL" not in page


PARAGRAPHS = {
    "One sentence that is short.": "One sentence that is short.",
    "First. " + "Word " * 40 + "end.": "First.",
    "Short (see Eq. 8 of the paper). And more.": "Short (see Eq. 8 of the paper). And more.",
    "By $p(x. Y)$ and `a. B` here. " + "Word " * 40: "By $p(x. Y)$ and `a. B` here.",
    "**Figure 1.2.** What it shows. " + "Word " * 40: "**Figure 1.2.** What it shows.",
    "One. Two. Three? Four!": "One. Two. Three? Four!",
}


@pytest.mark.parametrize("paragraph", PARAGRAPHS)
def test_the_first_sentences_of_a_paragraph(paragraph):
    assert slides.lead(paragraph) == PARAGRAPHS[paragraph]


def test_what_goes_on_one_slide():
    text, figure = slides.Block("text", 100), slides.Block("figure", 400, "first")
    caption, question = slides.Block("caption", 300, "below"), slides.Block("question", 100, "last")
    packed = slides._packed([text, text, figure, caption, text, question, text, *[text] * 5])
    assert [*packed] == [
        ["text", "text"],
        ["figure", "caption"],
        ["text", "question"],
        ["text"] * 5,
        ["text"],
    ]


def test_code_is_short_or_folded_and_prints_no_more_than_fits():
    def shown(lines: int, output: str) -> list[str]:
        outputs = [nbformat.v4.new_output("stream", text=output)] if output else []
        cell = nbformat.v4.new_code_cell("\n".join(["x = 1"] * lines), outputs=outputs)
        return [block.html for block in slides._of_code(cell)]

    assert "<details>" not in shown(12, "")[0] and shown(13, "") == []
    code, printed = shown(13, "a <b>\n" * 30)
    assert code.startswith("<details><summary>code</summary>")
    assert printed.count("a &lt;b&gt;") == slides.MOST_OUTPUT and printed.endswith("...</pre>")


def test_wrong_folders_are_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "no" / "where"):
        assert main(["course", "slides", str(folder)]) == 2
        assert "DIR" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- in a browser

BOXES = """() => [...document.querySelectorAll(".fit")].map(box => {
    const slide = box.closest("section"), {h, v} = Reveal.getIndices(slide);
    Reveal.slide(h, v);
    const outer = box.getBoundingClientRect(), shown = e => !e.closest("details") && !e.closest("math");
    const over = [...box.querySelectorAll("*")].filter(shown).map(e => e.getBoundingClientRect()).filter(
        e => e.width && (e.right > outer.right + 2 || e.bottom > outer.bottom + 2));
    const inside = outer.right <= innerWidth && outer.bottom <= innerHeight;
    return {share: +box.dataset.share, over: over.length, inside, figures: box.querySelectorAll("img").length};
})"""


def test_no_slide_overflows_and_the_arrow_keys_turn_them(pages, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    names = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("no Chromium here: apt-get install chromium, or set CHROMIUM to its path")
    file, said = Path(tmp_path, "slides.html"), []
    file.write_text(pages[NOTEBOOK], encoding="utf-8")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 720}, bypass_csp=True)
        page.set_default_timeout(600_000)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if "http" in request.url[:5] else None)
        page.goto(file.as_uri())
        page.wait_for_selector("body[data-ready=yes]")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("Reveal.getSlidePastCount()") == 2
        boxes = page.evaluate(BOXES)
        if shots := os.environ.get("VQLEARN_SHOTS"):
            page.screenshot(path=f"{shots}/slides.png")
        browser.close()
    assert said == [] and len(boxes) > 30 and sum(box["figures"] for box in boxes) > 3
    assert all(box["over"] == 0 and box["inside"] for box in boxes)
    assert min(box["share"] for box in boxes) > 0.6
