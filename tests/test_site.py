"""The site of the course: every page is whole, stands alone, and reads well on a phone, in light and dark."""

import importlib
import itertools
import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

import vqlearn
from vqlearn.__main__ import main
from vqlearn.course import copying, markup, reference, site, site_cells, site_search
from vqlearn.course.harmless import harmless

VOID = {"meta", "link", "img", "br", "hr", "input", "col", "path"}


class Page(HTMLParser):
    """What a page is made of: its tags, the text outside of code, and whether every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.ids = [found["id"] for _, found in self.tags if "id" in found]

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        while self.open and self.open[-1] in ("p", "li") and tag != self.open[-1]:
            self.open.pop()
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing at {self.getpos()}"

    def handle_data(self, data):
        if not {"code", "pre", "script", "style", "title"} & set(self.open):
            self.text += data

    def every(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def pages(site_folder) -> dict[Path, Page]:
    return {path: Page(path) for path in site_folder.rglob("*.html")}


def test_each_notebook_is_a_page_and_so_is_the_source_that_it_links(site_folder, pages):
    names = {path.relative_to(site_folder).as_posix() for path in pages}
    assert {f"{path.stem}.html" for path in copying.notebooks()} | {"index.html"} <= names
    assert {"source/transition.py.html", "source/assets-models-scenes-README.md.html"} <= names


def test_every_page_has_title_language_viewport_and_navigation(pages):
    titles = [re.search("<title>(.*?)</title>", page.source)[1] for page in pages.values()]
    assert len(set(titles)) == len(titles) and all(title.endswith(" · vqlearn") for title in titles)
    for path, page in pages.items():
        assert page.every("html")[0]["lang"] == "en-GB"
        assert any(tag.get("name") == "viewport" for tag in page.every("meta"))
        assert len([name for name, _ in page.tags if name == "h1"]) == 1, path
        assert {tag.get("href").split("/")[-1] for tag in page.every("a") if "href" in tag} >= {"index.html"}
        assert page.every("nav") and page.open == [], page.open
        assert len(set(page.ids)) == len(page.ids), path


def test_pages_lead_to_the_next_and_back(site_folder):
    order = ["index.html", *(f"{path.stem}.html" for path in copying.notebooks())]
    for here, there in itertools.pairwise(order):
        assert f'rel="next" href="{there}"' in (site_folder / here).read_text(encoding="utf-8")
        assert f'rel="prev" href="{here}"' in (site_folder / there).read_text(encoding="utf-8")


def test_mathematics_is_set_and_no_tex_is_left(pages):
    assert sum(len(page.every("math")) for page in pages.values()) > 500
    for path, page in pages.items():
        for left in (r"\$", r"\\[A-Za-z(\[]", r"\btag\{"):
            assert not re.search(left, page.text), (path.name, re.search(f".{{0,40}}{left}.{{0,40}}", page.text))


def test_everything_a_page_loads_is_beside_it_and_every_link_is_alive(site_folder, pages):
    files = {str(path) for path in site_folder.rglob("*") if path.is_file()}
    ids = {str(path): set(page.ids) for path, page in pages.items()}
    for path, page in pages.items():
        loaded = {tag.get("src") or tag.get("href") for name in ("img", "script", "link") for tag in page.every(name)}
        linked = {tag["href"] for tag in page.every("a") if "href" in tag}
        for target in loaded | {link for link in linked if not re.match(r"https?:", link)}:
            assert not re.match(r"[a-z]+:|//|/", target), (path.name, target)
            file, _, fragment = target.partition("#")
            there = os.path.normpath(path.parent / file) if file else str(path)
            assert there in files, (path.name, target)
            if fragment and there.endswith(".html"):
                assert unquote(fragment) in ids[there], (path.name, target)
        assert all(len(tag["alt"]) >= 20 for tag in page.every("img") if "images/" in tag["src"])
    for name in ("site.css", *site.SCRIPTS):
        text = (site_folder / name).read_text(encoding="utf-8").replace('"http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?:|@import|url\(|\bfetch\b|XMLHttp", text), name


def test_nothing_of_this_machine_is_on_a_page(site_folder):
    for path in site_folder.rglob("*"):
        if path.suffix in (".html", ".css", ".js", ".json"):
            text = path.read_text(encoding="utf-8")
            assert str(Path.home()) + "/" not in text or str(Path.home()) == "/"
            assert not re.search(r"file://|(?<![\w./:])/(?:home|Users|tmp|root|work)/", text), path


def test_outputs_pictures_and_folded_hints_are_there(site_folder, pages):
    page = pages[site_folder / "05_posterior.html"]
    assert len([tag for tag in page.every("img") if "images/05-" in tag["src"]]) >= 3
    folded = [tag for tag in page.every("details") if tag.get("class") != "menu"]
    assert len(folded) == 8 and not any("open" in tag for tag in folded)
    assert "NBVAL" not in page.source and "not attempted yet" in page.source
    assert 'id="eq-5.1"' in page.source and '<span class="number">(5.1)</span>' in page.source


def test_links_out_of_the_package_go_to_the_project_or_are_words(tmp_path):
    text = site.Site(tmp_path, [], None)
    assert text.link("notebooks/x.ipynb", "x.html", "../README.md") is None
    assert text.link("notebooks/x.ipynb", "x.html", "../vqlearn/nothing.py") is None
    text = site.Site(tmp_path, [], "https://example.org/vqlearn")
    assert text.link("notebooks/x.ipynb", "x.html", "../README.md") == "https://example.org/vqlearn/blob/HEAD/README.md"
    assert text.link("notebooks/x.ipynb", "x.html", "../vqlearn/schedule.py#L3") == "source/schedule.py.html#L3"


def test_mathml():
    assert "<munderover>" in markup.mathml(r"\sum_{k=1}^K p_k \tag{1.2}", block=True)
    assert 'id="eq-1.2"' in markup.mathml(r"x \tag{1.2}", block=True)
    assert "𝐐" in markup.mathml(r"\mathbf{Q}") and "mathvariant" not in markup.mathml(r"\mathbf{Q}")
    assert 'log</mi><mspace width="0.17em"/>' in markup.mathml(r"\log p") and "mspace" not in markup.mathml(r"\log(p)")
    assert "\\" not in markup.mathml(r"\bigl\{ \arg\min_k x \bigr\}")
    with pytest.raises(ValueError, match="no_such_command"):
        markup.mathml(r"\no_such_command x")


@pytest.mark.parametrize(
    "address", ["../a.png", "x/../../a.png", "x/%2E./%2e%2e/a.png", "x%2f..%2fa.png", "/a.png", "//a/b.png"]
)
def test_no_picture_is_taken_from_outside_the_sites_folder(address):
    assert harmless(f'<img src="{address}">') == "<img>"
    assert harmless('<img src="x/a..b.png">') == '<img src="x/a..b.png">'
    assert harmless(f'<img src="../{address}">', deep=1) == "<img>"
    assert harmless('<img src="../x/a.png">', deep=1) == '<img src="../x/a.png">'


RAW = {  # HTML in a notebook -> as it is on a page
    "<script>alert(1)</script>x": "x",
    "<style>p { display: none }</style>x": "x",
    '<img src="a.png" onerror="alert(1)" alt="a">': '<img src="a.png" alt="a">',
    "<svg onload=alert(1)><script>alert(1)</script></svg>": "<p></p>",
    "<math><mtext><table><mglyph><style><img src=x onerror=a()>": "<p><math><mtext><table></table></mtext></math></p>",
    '<p style="color: red" onclick="alert(1)">x</p>': "<p>x</p>",
    '<iframe src="https://example.org"></iframe>': "",
    '<form action="https://example.org"><input name="a">x</form>': "x",
    '<meta http-equiv="refresh" content="0;url=https://example.org">': "",
    '<base href="https://example.org">': "",
    '<link rel="stylesheet" href="https://example.org/a.css">': "",
    '<a href="javascript:alert(1)">x</a>': "<p><a>x</a></p>",
    "<a href='data:text/html,x'>x</a>": "<p><a>x</a></p>",
    "[x](JavaScript:alert(1))": "<p><a>x</a></p>",
    '<img src="https://example.org/a.png" alt="words">': "words",
    'x <img src="//example.org/a.png" alt="words > more"> y': "<p>x words &gt; more y</p>",
    "<img src=https://example.org/a.png>": "",
    "<IMG\nSRC='https://example.org/a.png'\nALT='words'>": "<p>words</p>",
    "![words](https://example.org/a.png)": "<p>words</p>",
    '<video src="https://example.org/a.mp4" poster="https://example.org/a.png"></video>': "<p></p>",
    "<!-- a remark -->x": "x",
    "<details>x": "<details>x\n\n</details>",
    "</article></main>x": "x",
    "<details open><summary>**H**</summary>\n\n*x*\n\n</details>": (
        '<details open=""><summary>**H**</summary>\n\n<p><em>x</em></p>\n</details>'
    ),
    'x<sup>2</sup> <b class="a" id="b">y</b>': '<p>x<sup>2</sup> <b class="a" id="b">y</b></p>',
}


@pytest.mark.parametrize("source", RAW)
def test_html_of_a_notebook_is_cleaned(source):
    text = markup.Text(lambda url: url, lambda url: url if url == "a.png" else None)
    assert text.render(source).strip().replace("</article></main>", "") == RAW[source]


def test_headings_in_the_outline_and_outputs_are_cleaned_too(tmp_path):
    text = markup.Text(lambda url: url)
    text.render("## A <img src=x onerror=alert(1)> <script>alert(1)</script>claim")
    assert text.sections[0][2] == 'A <img src="x"> claim'
    cells = site_cells.Cells(tmp_path, "a")
    for data in ({"text/html": "<b onclick=alert(1)>x</b><script>1</script>"}, {"text/plain": "<script>1</script>"}):
        shown = cells.output({"data": data})
        assert "onclick" not in shown and "<script" not in shown
    shown = cells.output({"text": "\x1b[38;5;200mx\x1b[0m <b>"})
    assert shown == '<pre tabindex="0"><span>x</span> &lt;b&gt;</pre>'


def test_what_was_printed_in_pieces_is_one_box(tmp_path):
    printed = [nbformat.v4.new_output("stream", text=text) for text in ("a\n", "b\n")]
    shown = nbformat.v4.new_output("display_data", data={"text/html": "<b>x</b>"})
    cell = nbformat.v4.new_code_cell("a", outputs=[*printed, shown, printed[0]])
    boxes = re.findall(r'<div class="output">(.*?)</div>', site_cells.Cells(tmp_path, "a").code(cell), re.S)
    assert boxes == ['<pre tabindex="0">a\nb\n</pre>', "<b>x</b>", '<pre tabindex="0">a\n</pre>']


def test_every_page_carries_the_policy_and_nothing_that_it_forbids(pages):
    for path, page in pages.items():
        (policy,) = [tag["content"] for tag in page.every("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
        assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "http" not in policy
        assert page.tags.index(("meta", {"http-equiv": "Content-Security-Policy", "content": policy})) <= 4
        assert not page.every("style") and all("src" in tag for tag in page.every("script")), path
        assert not [tag for name, tag in page.tags if "style" in tag or any(key.startswith("on") for key in tag)], path


def luminance(colour: str) -> float:
    """As WCAG 2.2 defines it."""
    digits = colour.removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_colour_of_code_can_be_read():
    css = (site.assets.FOLDER / "site.css").read_text(encoding="utf-8")
    grounds = re.findall(r"--code: (#\w+)", css)
    light, dark = markup.code_colours().split("@media")
    for ground, rules in ((grounds[0], light), (grounds[1], dark)):
        colours = set(re.findall(r"\.code \.(?!w |err )\w+ \{ color: (#\w+)", rules))
        assert len(colours) > 10
        for colour in colours:
            low, high = sorted((luminance(colour), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (colour, ground)


# ------------------------------------------------------------------------------------------ search


@pytest.fixture(scope="module")
def found(site_folder) -> list[tuple[str, str, str, str]]:
    """What the search knows: page, name of the heading, heading and text of each section."""
    text = (site_folder / "search-index.js").read_text(encoding="utf-8")
    whole = json.loads(text.removeprefix("var vqlearnIndex = ").removesuffix(";\n"))
    return [(whole["pages"][number][0], *section) for number, *section in whole["sections"]]


def test_the_search_knows_every_section_of_every_page(site_folder, pages, found):
    named = {(page, name) for page, name, _, _ in found}
    for path, page in pages.items():
        name = path.relative_to(site_folder).as_posix()
        headings = {tag["id"] for level, tag in page.tags if re.fullmatch("h[1-6]", level) and "id" in tag}
        assert {(name, heading) for heading in headings} <= named, name
        assert name == "index.html" or any(page == name for page, _ in named), name
    assert all(not name or name in pages[site_folder / page].ids for page, name in named)
    assert {"q_posterior", "MaskReplaceSchedule.between"} <= {heading for _, _, heading, _ in found}


def test_the_search_reads_prose_and_formulas_and_no_code(found):
    text = next(text for page, _, heading, text in found if page == "05_posterior.html" and heading.startswith("5.2 "))
    assert "with prior q(x_s∣x_0) and likelihood q(x_t∣x_s)" in text
    code = re.compile(r"assert_close\(|</?(a|b|code|div|math|p|span)\b|Link to this section")
    assert not [text for *_, text in found if code.search(text)]
    index = site_search.Index()
    index.add("a.html", "A", "<h1>A</h1>First.<h2 id='b'>B <a class='anchor' href=''>#</a></h2>1<b>2</b><p>3</p>")
    index.add("b.html", "B", "<h2 id='c'>C</h2><pre>x</pre>")
    assert index.sections == [(0, "", "A", "First."), (0, "b", "B", "12 3"), (1, "c", "C", "")]


# ------------------------------------------------------------------------------------------ reference and guides


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_every_public_name_has_an_entry(site_folder, pages):
    overview = pages[site_folder / "reference/index.html"]
    links = [tag["href"] for tag in overview.every("a") if "#" in tag.get("href", "")]
    for name in set(vqlearn.__all__) - {"__version__"}:
        page, _, fragment = next(link for link in links if link.endswith(f"#{name}")).partition("#")
        assert fragment in pages[site_folder / "reference" / page].ids
        source = pages[site_folder / "reference" / page].source
        entry = re.search(rf'<h2 id="{fragment}">.*?(?=<h2 |</article>)', source, re.S)[0]
        assert "<p>" in entry or 'class="code"' in entry, f"{name} has neither a sentence nor a signature"
    assert "__version__" in overview.ids


def test_every_public_module_has_a_page(site_folder, pages):
    found = {path.relative_to(site_folder / "reference").stem for path in pages if path.parent.name == "reference"}
    assert {"scenes", "exactness", "plots", "checks", "widgets", "schedule", "samplers"} <= found
    for layer in ("networks", "training", "evaluation", "checkpoints"):
        modules = [path for path in (copying.PACKAGE / layer).glob("*.py") if path.stem != "__init__"]
        assert len(modules) >= 2 and {f"{layer}.{path.stem}" for path in modules} & found, layer
    assert not {name for name in found if re.match(r"cli|course|assets|__main__", name)}
    assert all("reference/index.html" in page.source for page in pages.values())


def test_an_entry_has_signature_docstring_and_the_line_of_its_source(site_folder, pages):
    page = pages[site_folder / "reference/transition.html"]
    entry = re.search(r'<h2 id="q_posterior">.*?(?=<h2 )', page.source, re.S)[0]
    shown = markup.plain(entry)
    assert "def q_posterior(" in shown and "log_p_x0: Tensor," in shown and ") -> Tensor" in shown
    assert "torch." not in shown.partition("-> Tensor")[0]
    first = vqlearn.q_posterior.__doc__.splitlines()[0].replace("`", "")
    assert first in " ".join(shown.split())
    number = int(re.search(r'href="\.\./source/transition\.py\.html#L-(\d+)"', entry)[1])
    assert lines(copying.PACKAGE / "transition.py")[number - 1].startswith("def q_posterior(")


def test_a_class_lists_the_methods_that_it_has_from_another_of_the_package(site_folder, pages):
    source = pages[site_folder / "reference/sampling.html"].source
    entry = re.search(r'<h2 id="Corrector">.*?(?=<h2 )', source, re.S)[0]
    assert '<a href="reverse.html#Sampler.start"><code>start</code></a>' in entry and "<h3" in entry
    assert "Sampler.step_law" not in entry, "that is its own"


def test_entries_of_checks_say_what_is_asked_for(site_folder, pages):
    text = markup.plain(
        re.search(r'<h2 id="token_counts">.*?(?=<h2 )', pages[site_folder / "reference/checks.html"].source, re.S)[0]
    )
    assert "token_counts(x_0, x_t, mask_id): how many tokens are kept, replaced and masked" in text


def test_names_in_docstrings_lead_to_their_entries_and_html_in_them_is_text():
    code = {"MaskReplaceSchedule": "#MaskReplaceSchedule"}
    text = markup.Text(lambda url: None, code=code.get, escape=True)
    assert text.inline("`MaskReplaceSchedule`") == '<a href="#MaskReplaceSchedule"><code>MaskReplaceSchedule</code></a>'
    assert text.inline("`s < t`, s < t") == "<code>s &lt; t</code>, s &lt; t"
    assert "&lt;b&gt;" in text.inline("no <b>HTML</b>")
    assert 'class="code"' in text.render(reference._markdown("Example::\n\n    a = 1\n\nEnd."))
    shown = text.render(reference._markdown("Twice a number.\n\n>>> 2 * 3\n6\n\nEnd."))
    assert re.search(r'class="code".*2.*3.*6.*</pre></div>\n<p>End', shown, re.S)


def test_the_index_holds_every_name_in_order(site_folder, pages):
    source = pages[site_folder / "reference/names.html"].source
    names = re.findall(r'<li><a href="[^"]+"><code>([^<]+)</code></a> <small>', source)
    assert names == sorted(names, key=str.lower) and len(names) > 200
    assert {"MaskReplaceSchedule.between", "outcome", "Check.judge", "agreement"} <= set(names)


@pytest.fixture
def little(tmp_path, monkeypatch) -> Path:
    """A place for a site of one notebook and one module, with two guides."""
    monkeypatch.setattr(copying, "notebooks", lambda: list(copying.FOLDERS[1].glob("05_*.ipynb")))
    modules = {"vqlearn.schedule": importlib.import_module("vqlearn.schedule")}
    monkeypatch.setattr(reference, "public_modules", lambda: modules)
    monkeypatch.setattr(site, "GUIDES", tmp_path / "docs")
    (tmp_path / "docs").mkdir()
    picture = next(iter(sorted((site.ROOT / "figures").glob("*.png")))).name
    (tmp_path / "docs" / "a.md").write_text(
        "# First guide\n\nSee [the other](b.md#a-part), [05](../notebooks/05_posterior.ipynb), "
        "[`schedule`](../vqlearn/schedule.py) and [the readme](../README.md).\n\n"
        f"![A picture of several scenes in a row](../figures/{picture})\n\n"
        f'<img src="../figures/{picture}" alt="The same picture once more" width="300">\n\n'
        "Where $s < t$.\n"
    )
    (tmp_path / "docs" / "b.md").write_text("# Second guide\n\n## A part\n\nText.\n")
    (tmp_path / "docs" / "README.md").write_text("# Guides\n\n- [The second](b.md)\n- [The first](a.md)\n")
    (tmp_path / "docs" / "teaching").mkdir()
    (tmp_path / "docs" / "teaching" / "c.md").write_text("# Third guide\n\n[05](../../notebooks/05_posterior.ipynb)\n")
    return tmp_path / "pages"


def test_guides_are_pages_with_their_links_and_pictures(little):
    site.build(little, copying.notebooks())
    page = Page(little / "docs" / "a.html")
    links = [tag["href"] for tag in page.every("a") if "href" in tag]
    assert {"b.html#a-part", "../05_posterior.html", "../source/schedule.py.html"} <= set(links)
    assert not [link for link in links if link.endswith("README.md")] and "the readme" in page.text
    pictures = {tag["alt"]: little / "docs" / tag["src"] for tag in page.every("img") if "images/" in tag["src"]}
    assert set(pictures) == {"A picture of several scenes in a row", "The same picture once more"}
    assert all(path.resolve().is_file() for path in pictures.values())
    assert page.every("math") and "First guide" in re.search("<title>(.*?)</title>", page.source)[1]
    contents = (little / "index.html").read_text().partition("</nav>")[0]
    assert re.findall(r'href="docs/([\w/]+)', contents) == ["README", "b", "a", "teaching/c"]
    assert contents.index(">Guides</p>") < contents.index("docs/README") < contents.index(">Teaching</p>")
    assert 'href="../../05_posterior.html"' in (little / "docs" / "teaching" / "c.html").read_text()


def test_problems_are_two_pages_with_solutions_and_the_statements_alone(little):
    page = little.parent / "docs" / "teaching" / "d.md"
    tasks = "## 1. A sum\n\n(a) What is $1 + 1$?\n\n**Solution.**\n\n(a) Two.\n\n## 2. A task without end\n\nWhy?\n"
    page.write_text(f"# Two problems\n\n**For instructors.** Hide it,\nall of it.\n\nCount. [Third](c.md)\n\n{tasks}")
    site.build(little, copying.notebooks())
    whole, sheet = (Page(little / "docs" / "teaching" / f"d{end}.html") for end in ("", "-statements"))
    assert "Two." in whole.text and "Hide it" in whole.text
    assert not re.search("Solution|Two[.]|Hide|all of it", sheet.text)
    assert re.search(
        r"Two problems: the statements\s.*Count\..*A sum.*What is.*A task without end.*Why", sheet.text, re.S
    )
    contents = (little / "index.html").read_text().partition("</nav>")[0]
    assert re.findall(r'href="docs/teaching/(.*?)\.html">(.*?)<', contents)[1:] == [
        ("d", "Two problems"), ("d-statements", "Two problems: the statements")
    ]  # fmt: skip


def test_the_sheet_has_every_statement_of_the_fifteen_problems():
    source = (site.GUIDES / "teaching" / "problems.md").read_text()
    sheet, headings = site.statements(source), re.findall("^## .*$", source, re.M)
    assert len(headings) == 15 and re.findall("^## .*$", sheet, re.M) == headings
    for part in re.split("^## ", source, flags=re.M)[1:]:
        asked, _, solved = part.partition("\n**Solution.**\n")
        assert asked in sheet and solved and solved.strip() not in sheet
    assert "instructors" not in sheet and "schedule A" in sheet and sheet.count("\n| ") == 16


def test_without_pdoc_the_site_has_no_reference_and_says_so(little, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pdoc", None)
    monkeypatch.delitem(sys.modules, "vqlearn.course.reference")
    monkeypatch.delattr("vqlearn.course.reference")
    site.build(little, copying.notebooks())
    assert "the site has no reference, which needs pdoc: python -m pip install pdoc" in capsys.readouterr().err
    assert not list(little.glob("reference/*")) and "reference/" not in (little / "index.html").read_text()


# ------------------------------------------------------------------------------------------ the folder


def test_a_folder_with_other_things_is_refused_and_an_old_site_is_replaced(little, capsys):
    assert main(["course", "site", str(little)]) == 0
    assert "pages; open " in capsys.readouterr().out
    (little / "05_posterior.html").write_text("old")
    assert main(["course", "site", str(little)]) == 0
    assert (little / "05_posterior.html").stat().st_size > 1000
    (little / "mine.txt").write_text("mine")
    assert main(["course", "site", str(little)]) == 2
    assert "holds 'mine.txt', which is no part of a site" in capsys.readouterr().err
    assert (little / "mine.txt").read_text() == "mine"
    assert sorted(path.name for path in little.parent.iterdir()) == ["docs", "pages"]


def test_a_failure_leaves_the_old_site_as_it_was(little, monkeypatch):
    site.build(little, copying.notebooks())
    before = {path: path.read_bytes() for path in little.rglob("*") if path.is_file()}

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(site, "code_colours", fail)
    with pytest.raises(OSError, match="no space"):
        site.build(little, copying.notebooks())
    assert before == {path: path.read_bytes() for path in little.rglob("*") if path.is_file()}
    assert sorted(path.name for path in little.parent.iterdir()) == ["docs", "pages"]


WRONG_USAGE = {
    "DIR must be a folder, 'file.txt' is a file or a link": ["file.txt"],
    "DIR: there is no folder 'nowhere'": ["nowhere/pages"],
}


@pytest.mark.parametrize("sentence", WRONG_USAGE)
def test_wrong_usage_is_one_sentence_and_status_2(sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("x")
    assert main(["course", "site", *WRONG_USAGE[sentence]]) == 2
    assert sentence.split("'")[0] in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
