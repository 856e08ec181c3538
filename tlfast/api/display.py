"""Objects for a notebook: tables with thumbnails, a confusion matrix and pages. All text from labels and file names is escaped."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..evaluation.report.thumbnails import make_thumbnail

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CLASSES = 60  # classes up to which a confusion matrix is a table in a notebook
PICTURED = 50  # maximum number of rows with thumbnails

# JupyterLab and VS Code set the text colour of an output by their theme; all colours here work on light and dark grounds.
STYLE = """<style>
.tlfast { color: inherit; font-family: system-ui, sans-serif; line-height: 1.4; }
.tlfast table { border-collapse: collapse; margin: .4rem 0; }
.tlfast th, .tlfast td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid rgb(128 128 128 / .35); background: none; color: inherit; }
.tlfast th:first-child, .tlfast td.text { text-align: left; }
.tlfast td.text { max-width: 28rem; overflow-wrap: anywhere; }
.tlfast img { width: 72px; height: 72px; object-fit: contain; display: inline-block; margin: 0; }
.tlfast .row { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.tlfast .chart { width: 21rem; margin: 0; }
.tlfast .chart figcaption { font-weight: 600; }
.tlfast .chart svg { width: 100%; height: auto; display: block; }
.tlfast .chart text { font-size: 12px; fill: currentColor; opacity: .8; }
.tlfast .chart .grid { stroke: currentColor; opacity: .2; }
.tlfast .chart .line { fill: none; stroke-width: 2.2; }
.tlfast .chart .equal, .tlfast .chart .mark { fill: none; stroke: currentColor; opacity: .6; stroke-dasharray: 4 4; }
.tlfast .chart .c0 { stroke: #2f8fd0; } .tlfast .chart circle.c0 { fill: #2f8fd0; fill-opacity: .7; } .tlfast .chart i.c0 { background: #2f8fd0; }
.tlfast .chart .c1 { stroke: #d97a2b; } .tlfast .chart circle.c1 { fill: #d97a2b; fill-opacity: .7; } .tlfast .chart i.c1 { background: #d97a2b; }
.tlfast .chart ul { list-style: none; display: flex; gap: 1rem; margin: .2rem 0; padding: 0; font-size: .85rem; }
.tlfast .chart i { display: inline-block; width: 1.1rem; height: .25rem; margin-right: .4rem; vertical-align: middle; }
.tlfast .note { opacity: .8; font-size: .9rem; }
</style>"""


def wrap_html(*parts: str) -> str:
    """Return the parts in one block with the style of this module."""
    return f'{STYLE}<div class="tlfast">{"".join(parts)}</div>'


def format_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], text: int = 1) -> str:
    """Return an HTML table. The first `text` columns are aligned to the left; floats have four significant digits."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(_format_cell(value, i < text) for i, value in enumerate(row)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _format_cell(value: Any, is_text: bool) -> str:
    return f"<td{' class=text' if is_text else ''}>{escape(format_value(value))}</td>"


def format_value(value: Any) -> str:
    """Return a value as text: floats with four significant digits, missing values as "".

    >>> format_value(0.123456), format_value(None)
    ('0.1235', '')
    """
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return "" if value is None else str(value)


class ImageFrame(pd.DataFrame):
    """A DataFrame of images. In a notebook the rows are shown with thumbnails of the columns `path` and `other`, the first 50 rows at most."""

    @property
    def _constructor(self) -> type[ImageFrame]:
        return type(self)

    def _repr_html_(self) -> str:
        pictured = [name for name in ("path", "other") if name in self.columns]
        if not pictured:
            return str(super()._repr_html_())
        shown = self.head(PICTURED)
        head = "".join(f"<th>{escape(str(name))}</th>" for name in self.columns)
        body = "".join(self._format_row(record, pictured) for record in shown.to_dict("records"))
        rest = f'<p class="note">{len(shown)} of {len(self):,} rows</p>' if len(self) > len(shown) else ""
        return wrap_html(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}")

    @staticmethod
    def _format_row(record: Mapping[Any, Any], pictured: Sequence[str]) -> str:
        cells = []
        for name, value in record.items():
            if name in pictured and value:
                cells.append(f'<td class="text">{_format_picture(str(value))}<br>{escape(Path(str(value)).name)}</td>')
            else:
                cells.append(_format_cell(value, isinstance(value, str)))
        return f"<tr>{''.join(cells)}</tr>"


def _format_picture(path: str) -> str:
    thumbnail = make_thumbnail(path)
    return f'<img src="{thumbnail}" alt="{escape(path, quote=True)}">' if thumbnail else "not readable"


class ConfusionMatrix(pd.DataFrame):
    """Counts of images: rows are actual classes, columns predicted ones. In a notebook the cells are coloured by their share of the row."""

    @property
    def _constructor(self) -> type[ConfusionMatrix]:
        return type(self)

    @classmethod
    def from_counts(cls, counts: Sequence[Sequence[int]], classes: Sequence[str]) -> ConfusionMatrix:
        """Build from counts `[c, c]` and the names of the c classes."""
        return cls(counts, index=pd.Index(classes, name="actual"), columns=pd.Index(classes, name="predicted"))

    def plot(self, title: str = "") -> Figure:
        """Draw counts and shares of each actual class side by side. Returns a matplotlib figure."""
        from ..evaluation.plots import draw_confusion_matrix

        prepare_figures()
        return draw_confusion_matrix(self.to_numpy(), list(self.columns), title)

    def _repr_html_(self) -> str:
        if len(self) > MAX_CLASSES:
            return wrap_html(f"<p class='note'>Confusion matrix of {len(self):,} classes: run.confusion_matrix().plot() draws it.</p>")
        head = "".join(f"<th>{escape(str(name))}</th>" for name in self.columns)
        rows = []
        for name, counts in zip(self.index, self.to_numpy().tolist(), strict=True):
            total = sum(counts) or 1
            cells = "".join(f'<td style="background: rgb(47 143 208 / {0.75 * count / total:.2f})">{count or ""}</td>' for count in counts)
            rows.append(f"<tr><th>{escape(str(name))}</th>{cells}</tr>")
        return wrap_html(f"<table><thead><tr><th>actual \\ predicted</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>")


class Page:
    """An HTML page in a file. In a notebook it is shown in a frame."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Page('{self.path}')"

    def _repr_html_(self) -> str:
        text = escape(self.path.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{text}" title="{escape(str(self.path), quote=True)}" style="width: 100%; height: 40rem; border: 0"></iframe>'


def prepare_figures() -> None:
    """Let a notebook show matplotlib figures. Its backend registers them when pyplot makes the first figure."""
    from matplotlib import pyplot

    if in_notebook():
        pyplot.close(pyplot.figure())


def in_notebook() -> bool:
    """Return whether the code runs in a Jupyter kernel."""
    shell: Any = None
    with suppress(Exception):  # without IPython, or outside of it
        shell = sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")
