"""Plot of the learning-rate finder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..evaluation.plots import BLUE, RED, save_figure, to_label
from .types import RateCurve

MARGINS = {"left": 0.13, "right": 0.97, "bottom": 0.135, "top": 0.92}  # shares of the figure; measured ones double the time


def plot_rate_curve(curve: RateCurve, path: Path, title: str) -> Path:
    """Plot the loss against the rate, with the rate of the phase marked; return the path."""
    losses = np.array(curve.losses)
    shown = slice(None, max(2, len(losses) - len(losses) // 12))  # the last losses belong to the divergence that ends the search
    figure = Figure(figsize=(6.4, 4.0))
    axes = figure.subplots(gridspec_kw=MARGINS)
    axes.plot(curve.rates[shown], losses[shown], color=BLUE)
    axes.axvline(curve.rate, color=RED, linestyle="--")
    low, rise = np.nanmin(losses[shown]), abs(losses[0] - np.nanmin(losses[shown]))
    # Limited, because the divergence at the end would flatten the valley.
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss (smoothed)", title=to_label(title), ylim=(low - 0.1 * rise, low + 1.5 * rise + 1e-6))
    axes.annotate(f" {curve.rate:.1e}", (curve.rate, 0.97), xycoords=("data", "axes fraction"), color=RED, va="top")
    axes.grid(alpha=0.3)
    return save_figure(figure, path)
