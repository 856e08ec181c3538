from __future__ import annotations

import numpy as np
import pandas as pd

from tlfast.api.display import PICTURED, ConfusionMatrix, ImageFrame, Page, format_table
from tlfast.testing import draw_image


def test_an_image_frame_escapes_and_shortens(tmp_path):
    odd = draw_image(tmp_path / "<script>alert(1)<" / "a&b.png", (0, 0, 255), 0)
    frame = ImageFrame({"path": [str(odd)] * 60, "label": ["<b>"] * 60})
    html = frame._repr_html_()
    assert "<script>alert" not in html
    assert "<b>" not in html
    assert "a&amp;b.png" in html
    assert html.count("<img") == PICTURED
    assert "50 of 60 rows" in html


def test_an_image_frame_stays_one_when_filtered(tmp_path):
    frame = ImageFrame({"path": ["x.png", "y.png"], "loss": [1.0, 2.0]})
    assert isinstance(frame[frame["loss"] > 1], ImageFrame)
    assert "not readable" in frame._repr_html_()
    assert isinstance(frame["loss"], pd.Series)
    assert "<img" not in frame[["loss"]]._repr_html_()


def test_a_confusion_matrix_colours_by_the_share_of_its_row():
    matrix = ConfusionMatrix.from_counts([[3, 1], [0, 4]], ["a<b", "c"])
    html = matrix._repr_html_()
    assert "a&lt;b" in html
    assert html.count("/ 0.75)") == 1
    assert html.count("/ 0.56)") == 1
    assert np.trace(matrix.to_numpy()) == 7
    figure = matrix.plot("title")
    assert [axes.get_title() for axes in figure.axes] == ["images", "share of each actual class"]


def test_a_page_is_shown_in_a_frame(tmp_path):
    (tmp_path / "page.html").write_text('<p class="x">text</p>')
    assert "&lt;p class=&quot;x&quot;&gt;" in Page(tmp_path / "page.html")._repr_html_()


def test_tables_show_missing_values_as_nothing():
    assert "<td></td><td></td>" in format_table(("a", "b", "c"), [("x", None, float("nan"))])
