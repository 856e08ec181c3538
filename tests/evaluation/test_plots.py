"""Figures: confusion matrices of many classes and long names, and comparisons with perfect arms and unusual names."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from PIL import Image

from tlfast.evaluation import plots


def test_the_diagonal_of_a_matrix_of_many_classes_is_dark(tmp_path):
    figure = plots.draw_confusion_matrix(np.eye(400, dtype=int), [f"class {i}" for i in range(400)])
    picture = np.asarray(Image.open(plots.save_figure(figure, tmp_path / "m.png")).convert("L"))
    left = picture[:, : picture.shape[1] // 2]
    assert (left < 100).sum() > 400 * 18  # of the 27 pixels of a cell
    assert [len(plots.draw_confusion_matrix(np.eye(n, dtype=int), ["c"] * n).axes[0].get_xticks(minor=True)) for n in (120, 121)] == [121, 0]


def test_long_names_are_cut():
    figure = plots.draw_confusion_matrix(np.eye(2, dtype=int), ["Pneumonoultramicroscopicsilico of miners", "b"])
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["Pneumonoultramicroscopicsil…", "b"]


def test_arms_with_perfect_accuracy_and_unusual_names_are_drawn(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: shown.extend(figure.axes[0].get_legend().get_texts()) or path)
    arms = [SimpleNamespace(name=name, accuracy=1.0, accuracy_interval=(0.95, 1 - 1e-16), seconds=1.0) for name in ("_mine", "$5_$", "full")]
    plots.plot_pareto(SimpleNamespace(arms=arms, task="t", judged_on="valid"), tmp_path / "p.png", "seconds")
    assert [text.get_text() for text in shown] == [" _mine", r"\$5_\$", "full"]
