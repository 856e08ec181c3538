"""Plot of the learning-rate finder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..evaluation.plots import BLUE, RED, save_figure, to_label
from .types import RateCurve

MARGINS = {"left": 0.13, "right": 0.97, "bottom": 0.135, "top": 0.92}  # shares of the figure; measured ones double the time


def plot_rate_curve(curve: RateCurve, path: Path, title: str) -> Path:
    """Plot the loss against the rate, with the rate of the phase marked; return the path. The curve of a failed search may be empty."""
    losses = np.array(curve.losses)
    shown = slice(None, max(2, len(losses) - len(losses) // 12))  # the last losses belong to the divergence that ends the search
    figure = Figure(figsize=(6.4, 4.0))
    axes = figure.subplots(gridspec_kw=MARGINS)
    axes.plot(curve.rates[shown], losses[shown], color=BLUE)
    axes.axvline(curve.rate, color=RED, linestyle="--")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss (smoothed)", title=to_label(title))
    finite = losses[shown][np.isfinite(losses[shown])]
    if finite.size:  # none of a search that failed at once
        low, rise = finite.min(), abs(finite[0] - finite.min())
        axes.set_ylim(low - 0.1 * rise, low + 1.5 * rise + 1e-6)  # limited, because the divergence at the end would flatten the valley
    axes.annotate(f" {curve.rate:.1e}", (curve.rate, 0.97), xycoords=("data", "axes fraction"), color=RED, va="top")
    axes.grid(alpha=0.3)
    return save_figure(figure, path)
