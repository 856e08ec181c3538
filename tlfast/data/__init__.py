"""From images to batches: the image table, its sources, its loaders.

Legend of shapes, used in every docstring: n images, b images of a batch, c classes, h and w pixels, d features, v views.
"""

from __future__ import annotations

from .store import Store, open_store
from .table import ImageTable, check_readable, load_table

__all__ = ["ImageTable", "Store", "check_readable", "load_table", "open_store"]
