"""Figures of a network show its own numbers, and say what they show."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

import vqlearn
from vqlearn.course import diagrams


def drawn(figure):
    figure.canvas.draw()  # a warning or an error of the layout would come here
    return figure


def network(**settings):
    sizes = {
        "num_attention_heads": 3,
        "attention_head_dim": 4,
        "num_layers": 5,
        "num_vector_embeds": 8,
        "sample_size": 3,
    }
    return vqlearn.Transformer2DModel(**sizes | settings)


def test_a_block_diagram_has_the_numbers_of_the_network():
    (ax,) = drawn(diagrams.block_diagram(network(cross_attention_dim=6))).axes
    texts = " ".join(text.get_text() for text in ax.texts)
    for piece in ("$N$ = 5 blocks", "$C$ = 12 to $K$ = 7", "$L$ = 9", "3 heads", "$D$ = 6", "time $t$"):
        assert piece in texts
    label = ax.figure.get_label()
    assert "9 tokens out of 7 codes" in label and "5 blocks" in label and "12 numbers" in label


def test_a_network_without_a_text_has_no_such_diagram():
    for settings in ({"num_classes": 2, "cross_attention_dim": None}, {"cross_attention_dim": None}):
        with pytest.raises(ValueError, match=r"network must read a text, this one reads (class|nothing)"):
            diagrams.block_diagram(network(**settings))


def test_maps_are_on_one_scale_and_frame_the_object():
    inside = torch.zeros(4, 4, dtype=torch.bool)
    inside[1:3, 2:] = True
    maps = [inside.double(), torch.full((4, 4), 0.25)]
    figure = drawn(
        diagrams.attention_maps(
            {"red": maps, "blue": maps[::-1]}, ["t = 9", "t = 0"], dict.fromkeys(("red", "blue"), inside)
        )
    )
    panels = figure.axes[:4]
    assert [panel.get_ylabel() for panel in panels] == ["red", "", "blue", ""]
    for panel, values in zip(panels, (*maps, *maps[::-1]), strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), values)
        assert panel.images[0].get_clim() == (0, 1)
        (frame,) = panel.patches
        assert frame.get_bbox().bounds == (1.5, 0.5, 2, 2)
    assert "red: t = 9 1.00 and 0.00, t = 0 0.25 and 0.25." in figure.get_label()


def test_shares_are_those_of_each_total():
    panels = {"weights": {"small": {"a": 1.0, "b": 3.0}, "large": {"a": 3e6, "b": 0.0}}}
    (ax,) = drawn(diagrams.shares(panels)).axes
    spans = [(patch.get_x(), patch.get_width()) for patch in ax.patches]
    assert spans == [(0, 0.25), (0.25, 0.75), (0, 1), (1, 0)]
    assert [text.get_text() for text in ax.texts] == ["25", "75", "4", "100", "3 M"]
    assert len({patch.get_facecolor() for patch in ax.patches}) == len({patch.get_hatch() for patch in ax.patches}) == 2
    assert to_rgba(diagrams.PARTS[0]) == ax.patches[0].get_facecolor()
    assert "weights, large: 3 M, of which a 100.0%, b 0.0%." in ax.figure.get_label()


@pytest.mark.parametrize(
    ("value", "text"), [(12, "12"), (1500, "1.5 k"), (1_359_274_624, "1.36 G"), (2.29e12, "2.29 T")]
)
def test_large_numbers_in_three_digits(value, text):
    assert diagrams.rounded(value) == text
