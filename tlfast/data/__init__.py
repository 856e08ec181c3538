"""From images to batches: the image table, its sources, its loaders.

Legend of shapes, used in every docstring: n images, b images of a batch, c classes, h and w pixels, d features, v views.
"""

from __future__ import annotations

from .table import ImageTable, load_table, readable

__all__ = ["ImageTable", "load_table", "readable"]
