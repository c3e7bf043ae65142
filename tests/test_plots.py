"""Figures are pure, follow the course's rules, and reach the notebook with their alternative text."""

import base64
import io

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from tests.outputs import EMBEDDED
from vqlearn import plots
from vqlearn.course import style
from vqlearn.course.grids import distinct
from vqlearn.schedule import MaskReplaceSchedule

SCHEDULE = MaskReplaceSchedule.paper(num_codes=4, num_steps=10)


def drawn(figure: Figure) -> Figure:
    figure.canvas.draw()  # a warning or an error of the layout would come here
    return figure


def boxes(ax, chosen) -> list[tuple]:
    """Corner and width of every cell that the chosen patches of a panel draw, each patch being many cells at once."""
    found = []
    for patch in filter(chosen, ax.patches):
        cells = patch.get_path().vertices.reshape(-1, 5, 2)
        found += [(*cell.min(0).tolist(), float(np.ptp(cell[:, 0]))) for cell in cells]
    return found


def hatched(patch) -> bool:
    return bool(patch.get_hatch())


def outlined(patch) -> bool:
    return not patch.get_fill()


def test_tokens_hatches_masks_and_outlines_replaced_ones():
    truth = torch.tensor([[0, 1], [2, 3]])
    grid = torch.tensor([[4, 1], [0, 4]])
    (ax,) = drawn(plots.tokens(grid, 4, truth=truth, numbers=True)).axes
    assert [(round(x), round(y)) for x, y, _ in boxes(ax, hatched)] == [(0, 0), (1, 1)]
    assert [(round(x), round(y)) for x, y, _ in boxes(ax, outlined)] == [(0, 1)]
    assert {patch.get_edgecolor() for patch in filter(outlined, ax.patches)} == {to_rgba(plots.VERMILLION)}
    assert [text.get_text() for text in ax.texts] == ["1", "0"]
    assert ax.images[0].get_array().shape == (2, 2, 3)


def test_codes_are_names_no_two_of_a_figure_share_a_colour():
    for count in (3, 7, 8, 60, 700):
        assert len(set(distinct(count))) == count
    grids = [torch.tensor([[5, 900], [17, 1024]]), torch.tensor([[17, 900], [5, 18]])]
    first, second = (ax.images[0].get_array() for ax in drawn(plots.tokens(grids, 1024)).axes)
    assert (first[0, 1] == second[0, 1]).all() and (first[1, 0] == second[0, 0]).all()
    assert len({tuple(color) for color in second.reshape(4, 3).tolist()}) == 4
    assert to_rgba(plots.VERMILLION)[:3] not in distinct(7), "the colour of outlines"


def test_a_cell_is_the_patch_that_it_decodes_to():
    def decode(tokens):  # a patch of 2 x 2 pixels, black but for one pixel as bright as the code
        side = round(tokens.shape[1] ** 0.5)
        patch = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
        picture = torch.einsum("bhw,yx->bhywx", tokens.view(-1, side, side).float(), patch).flatten(1, 2).flatten(2)
        return picture[:, None].expand(-1, 3, -1, -1) / 5 - 1

    for truth, behind in ((None, 3), (torch.tensor([[3, 7], [9, 3]]), 7)):
        (ax,) = drawn(plots.tokens(torch.tensor([[3, 10], [9, 3]]), 10, truth=truth, decode=decode)).axes
        shown, expected = ax.images[0].get_array(), [[3, 0, behind, 0], [0] * 4, [9, 0, 3, 0], [0] * 4]
        np.testing.assert_allclose(shown[..., 0], np.array(expected) / 10, atol=1e-6)
        assert shown.shape == (4, 4, 3) and len(boxes(ax, hatched)) == 1


def test_figures_carry_a_text_of_what_they_show():
    truth = torch.tensor([[0, 1], [2, 3]])
    figure = plots.name_rows(
        plots.album([[torch.tensor([[4, 1], [0, 4]]), truth]] * 2, 4, truth=truth, titles=["$t$ = 9", "t = 0"]),
        ["a", "b"],
    )
    assert figure.get_label() == (
        "2 rows of 2 panels; row 1, t = 9: 2 of 4 tokens masked, 1 replaced; row 1, t = 0: 0 of 4 tokens masked, 0 "
        "replaced; row 2, t = 9: 2 of 4 tokens masked, 1 replaced; row 2, t = 0: 0 of 4 tokens masked, 0 replaced. "
        "row 1 a, row 2 b."
    )
    line = {"bits": ([1, 2, 3], [0.5, 2.0, 1.0]), "flat": ([1, 3], [1, 1])}
    assert plots.curves(line, x_label="t", y_label="$H$").get_label() == (
        "H against t. bits: from 0.5 at 1 to 1 at 3, highest 2 at 2. flat: 1 throughout."
    )
    assert plots.bars([{r"$q(x_s \mid x_0)$": [0.25, 0.75]}], row_titles=["$x_t$ = 1"]).get_label() == (
        "Bar charts. x_t = 1, q(x_s | x_0): codes 0.25, mask 0.75."
    )
    assert plots.matrix({"$Q$": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}).get_label() == (
        "Matrices, column by column. Q, from 0: 1.00, 0.00; from the mask: 0.00, 1.00."
    )
    assert "paper, masked: from 0 at 0 to 0.9 at 10" in plots.schedule_curves(SCHEDULE, titles=["paper"]).get_label()
    assert plots.strip([np.zeros((4, 4, 3))] * 2, ["a", "b"]).get_label() == "2 pictures side by side: a, b."
    assert (
        plots.cells({"x": (np.eye(2), np.eye(2)[:1])})
        .get_label()
        .endswith("x: 1 of 2 codes are the nearest of one of 1 points.")
    )
    assert plots.comparison({"": line}, x_label="t", y_label="H").get_label().startswith("H against t. bits: from 0.5")


def test_tokens_takes_several_grids_and_titles():
    figure = drawn(plots.tokens([torch.zeros(2, 3), np.ones((2, 3))], 4, titles=["t = 1", "t = 0"]))
    assert [ax.get_title() for ax in figure.axes] == ["t = 1", "t = 0"]


def test_album_hatches_and_outlines_a_picture_like_the_grid_above_it():
    truth = torch.tensor([[0, 1], [2, 3]])
    grids, pictures = [torch.tensor([[4, 1], [0, 4]]), truth], [np.zeros((8, 8, 3)), np.ones((8, 8, 3))]
    figure = drawn(plots.album([grids, pictures], 4, truth=truth, titles=["noisy", "clean"]))
    noisy, clean, noisy_picture, clean_picture = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["noisy", "clean", "", ""]
    assert not clean.patches and not clean_picture.patches
    for ax, side in ((noisy, 1), (noisy_picture, 4)):
        assert [(round(x / side), round(y / side)) for x, y, _ in boxes(ax, hatched)] == [(0, 0), (1, 1)]
        assert [(round(x / side), round(y / side)) for x, y, _ in boxes(ax, outlined)] == [(0, 1)]
        hidden = boxes(ax, lambda patch: not hatched(patch) and not outlined(patch))
        assert [width for _, _, width in hidden] == [side, side], "nothing shows through between hatched cells"


def test_album_leaves_a_picture_without_a_grid_above_it_unmarked():
    panels = [np.zeros((4, 4, 3)), torch.tensor([[4, 1], [0, 4]])]
    picture, grid = drawn(plots.album([panels], 4, numbers=True)).axes
    assert not picture.patches and len(boxes(grid, hatched)) == 2
    assert [text.get_text() for text in grid.texts] == ["1", "0"]


def test_schedule_curves_tell_lines_apart_without_colour():
    figure = drawn(plots.schedule_curves(SCHEDULE, MaskReplaceSchedule.released(4, 10), titles=["paper", "released"]))
    for ax in figure.axes:
        assert [line.get_linestyle() for line in ax.lines] == ["-", "--", ":"]
    replaced = figure.axes[0].lines[1].get_ydata()
    assert replaced[-1] == pytest.approx(0.1, abs=1e-4)
    assert len(figure.legends) == 1


def test_one_schedule_has_its_legend_inside_the_figure():
    figure = drawn(plots.schedule_curves(SCHEDULE))
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_curves_have_different_dashes():
    names = ("a", "b", "c", "d")
    figure = drawn(plots.curves({name: ([0, 1], [1, 2]) for name in names}, x_label="t", y_label="rate", log_y=True))
    assert len({line.get_linestyle() for line in figure.axes[0].lines}) == 4
    assert figure.axes[0].get_yscale() == "log"


def test_bars_share_one_scale_and_hatch_the_mask():
    rows = [{"prior": torch.tensor([0.2, 0.3, 0.5]), "likelihood": torch.tensor([1.0, 0.0, 0.0])}]
    figure = drawn(plots.bars(rows, points=rows, row_titles=["x_t = 0"]))
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    for ax in figure.axes:
        assert [bool(bar.get_hatch()) for bar in ax.patches] == [False, False, True]
        assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "mask"]
        assert len(ax.lines) == 1
    assert figure.axes[0].get_ylabel() == "x_t = 0"


def test_matrix_writes_every_value():
    values = torch.tensor([[1.0, 0.25], [0.0, 0.75]])
    (ax,) = drawn(plots.matrix({"Q": values}, row=1, column=1)).axes
    assert [text.get_text() for text in ax.texts] == ["1.00", "0.25", "0.00", "0.75"]
    assert len({patch.get_linestyle() for patch in ax.patches}) == 2
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("from", "to")


def test_strip_takes_pictures():
    figure = drawn(plots.strip([np.zeros((4, 4, 3), dtype=np.uint8)] * 3, ["a", "b", "c"]))
    assert len(figure.axes) == 3


def test_loss_curve_reads_a_training_log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,loss,gradient\n" + "".join(f"{i},{1 / i},0.1\n" for i in range(1, 201)))
    ax = drawn(plots.loss_curve(path)).axes[0]
    assert ax.get_yscale() == "log"
    each, mean = ax.lines
    assert len(each.get_xdata()) == 200 and mean.get_xdata()[-1] == 200
    assert mean.get_ydata()[-1] == pytest.approx(np.mean([1 / i for i in range(197, 201)]))


def test_loss_curve_of_one_step_and_of_none(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n1,-0.5\n")
    assert drawn(plots.loss_curve(path)).axes[0].get_yscale() == "linear"
    path.write_text("step,loss\n")
    with pytest.raises(ValueError, match="no steps"):
        plots.loss_curve(path)


@pytest.fixture
def displayed(monkeypatch) -> list[dict]:
    """What is sent to the notebook."""
    found: list[dict] = []
    monkeypatch.setattr("IPython.display.display", lambda data, *, raw: found.append(data))
    return found


def test_show_carries_the_alternative_text(displayed):
    plots.show(plots.strip([np.zeros((4, 4, 3))]), 'a "black" square & nothing else')
    (data,) = displayed
    assert data["text/plain"] == 'a "black" square & nothing else'
    assert 'alt="a &quot;black&quot; square &amp; nothing else"' in data["text/html"]
    assert 'src="data:image/png;base64,iVBOR' in data["text/html"]


def test_show_is_the_same_every_time_and_wants_a_text(displayed):
    figure = plots.schedule_curves(SCHEDULE)
    plots.show(figure, "three curves")
    plots.show(figure, "three curves")
    assert displayed[0] == displayed[1]
    plots.show(figure)
    assert displayed[2]["text/plain"] == figure.get_label()
    with pytest.raises(ValueError, match="alt"):
        plots.show(figure, " ")


def test_set_style_and_drawing_leave_pyplot_alone():
    with matplotlib.rc_context():
        plots.set_style()
        assert not matplotlib.rcParams["axes.spines.top"]
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_cells_tells_used_codes_from_unused_ones_and_names_all():
    vectors, points = torch.tensor([[0.0, 0.0], [4.0, 0.0], [9.0, 9.0]]), torch.tensor([[1.0, 0.0], [3.5, 0.5]])
    figure = drawn(plots.cells({"named": (vectors, points), "again": (vectors, points)}, numbers=True))
    named, again = figure.axes
    assert [ax.get_title() for ax in (named, again)] == ["named", "again"]
    assert [text.get_text() for text in named.texts] == ["code 0", "code 1", "code 2"]
    by_marker = {line.get_marker(): line.get_xydata().tolist() for line in named.lines}
    assert by_marker["s"] == vectors[:2].tolist() and by_marker["x"] == vectors[2:].tolist()
    joined = [line.get_xydata().tolist() for line in named.lines if line.get_marker() == "None"]
    assert joined == [[[1.0, 0.0], [0.0, 0.0]], [[3.5, 0.5], [4.0, 0.0]]]


def test_rows_of_pictures_may_differ_in_length_and_keep_their_names_inside_the_figure():
    rows = {"ancestral\n8 evaluations": [(np.zeros((4, 4, 3)), "seed 0: wrong: count, shape, color")] * 2}
    figure = plots.rows_of_pictures(rows | {"halton": [(np.zeros((4, 4, 3)), "seed 0")]})
    assert "<img" in plots.LiveFigure(figure).picture("laid out and drawn")
    assert [bool(ax.images) for ax in figure.axes] == [True, True, True, False]
    names = [figure.axes[row * 2].yaxis.label.get_window_extent() for row in (0, 1)]
    assert all(box.x0 >= 0 and box.x1 <= figure.axes[0].get_window_extent().x0 for box in names)
    assert "\n" in figure.axes[0].get_title()  # no wider than the picture
    wrong = "seed 0: wrong: count, shape, color"
    assert figure.get_label() == f"ancestral 8 evaluations: {wrong}; {wrong}. halton: seed 0."


def test_words_are_drawn_once_and_no_more_of_them_are_kept_than_a_limit(monkeypatch):
    figure, drawn = Figure(), []
    words = figure.subplots().text(0.5, 0.5, "")
    live = plots.LiveFigure(figure)
    draw = type(words).draw
    monkeypatch.setattr(type(words), "draw", lambda text, *args: drawn.append(text.get_text()) or draw(text, *args))
    monkeypatch.setattr(style, "WORDINGS", 3)

    def shown(text, x=0.5, **look):
        words.set(text=text, x=x, **look)
        return live.picture("words")

    first = shown("12")
    assert shown("12", x=0.6) != first and shown("12") == first and drawn.count("12") == 1
    assert len({first, shown("12", color="red"), shown("12", fontsize=20)}) == 3 and drawn.count("12") == 3
    assert len({first, shown("12", color="black", fontsize=10, alpha=0.5), shown("12", alpha=1, rotation=30)}) == 3
    assert shown("12", visible=False) == shown(" ", visible=True) != first
    for number in range(20):
        shown(str(number))
        assert len(live.written) <= 3


@pytest.mark.parametrize("width", [2.0, 2.37, 3.141, 4.005])
@pytest.mark.parametrize("kind", ["bytes", "opaque bytes", "floats", "smoothed", "upside down"])
def test_a_figure_that_follows_sliders_shows_images_as_they_are_drawn_elsewhere(width, kind):
    figure = Figure(figsize=(width, 1.83), layout="constrained")
    colors = np.random.default_rng(0).integers(256, size=(5, 7, 4), dtype=np.uint8)
    colors[..., 3] = 255
    colors = colors[..., :3] if kind == "opaque bytes" else colors
    smooth = "bilinear" if kind == "smoothed" else "nearest"
    for ax, extent in zip(figure.subplots(1, 2), [(0, 7, 5, 0), (-0.5, 6.5, -0.5, 4.5)], strict=True):
        ax.imshow(colors / 255 if kind == "floats" else colors, interpolation=smooth, extent=extent, aspect="auto")
        if kind == "upside down":
            ax.invert_yaxis()
    (code,) = EMBEDDED.findall(plots.LiveFigure(figure).picture("images"))
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))
    elsewhere = FigureCanvasAgg(figure)
    for ax in figure.axes:
        for artist in ax.get_children():
            artist.set_animated(False)
    elsewhere.draw()
    assert np.array_equal(shown, np.asarray(elsewhere.buffer_rgba())[..., :3])


def test_name_rows_writes_to_the_left_of_each_row():
    figure = plots.album([[np.zeros((4, 4, 3))] * 3] * 2, 4)
    drawn(plots.name_rows(figure, ["upper", "lower"]))
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == ["upper", "lower"]
    assert figure.axes[0].texts and figure.axes[3].texts


def test_growth_names_the_slope_of_each_curve():
    points = {"batch": {n: {"seconds": 0.1 * n, "GB": 2.0 * n**2} for n in (1, 2, 4)}}
    figure = drawn(plots.growth(points))
    assert [ax.get_title() for ax in figure.axes] == ["batch: slope 1.00", "batch: slope 2.00"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["seconds", "GB"]
    assert all(ax.get_xscale() == ax.get_yscale() == "log" for ax in figure.axes)


def test_comparison_tells_its_lines_apart_by_colour_and_marker():
    lines = {"ancestral": ([1, 10, 100], [0.5, 0.05, 0.005]), "halton": ([1, 10, 100], [0.4, 0.04, 0.0])}
    figure = drawn(
        plots.comparison({"one": lines, "two": lines}, x_label="calls", y_label="error", log=True, least=0.01)
    )
    assert [ax.get_title() for ax in figure.axes] == ["one", "two"]
    looks = [{(line.get_color(), line.get_marker()) for line in ax.lines} for ax in figure.axes]
    assert len(looks[0]) == 2 and looks[0] == looks[1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ancestral", "halton"]
    assert figure.axes[0].get_xscale() == "log" and figure.axes[0].get_ylim()[0] == 0


def test_comparison_writes_the_names_of_many_lines_at_their_ends():
    lines = {f"line {n}": ([1, 10], [0.5, 0.0 if n < 3 else 0.1 * n]) for n in range(7)}
    figure = drawn(plots.comparison({"one": lines, "two": lines}, x_label="calls", y_label="error"))
    assert not figure.legends
    for ax in figure.axes:
        assert [text.get_text() for text in ax.texts] == list(lines)
        assert [text.xy[1] for text in ax.texts] == [y[1] for _, y in lines.values()]
        heights = sorted(text.get_position()[1] for text in ax.texts)
        assert min(np.diff(heights)) > 0.05, "none covers another"
        assert {line.get_linestyle() for line in ax.lines} == {"-", "--", ":"}
