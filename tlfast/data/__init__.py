"""Images as NumPy arrays: the table of images and splits, sources of data sets, stores of decoded images, and data checks.

May import `core`; no torch. Read `types` and `task`, then `table`, `split` and `store`. Shapes in docstrings: n images, b images of a batch, c classes,
h and w pixels, d features, v views.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_exports

if TYPE_CHECKING:
    from .images import open_image
    from .store import Store, open_store
    from .table import ImageTable, check_readable, load_table
    from .task import Source, Task
    from .types import DataSummary, Finding, Preprocessing, Row

__all__ = [
    "DataSummary",
    "Finding",
    "ImageTable",
    "Preprocessing",
    "Row",
    "Source",
    "Store",
    "Task",
    "check_readable",
    "load_table",
    "open_image",
    "open_store",
]

if not TYPE_CHECKING:  # with a module __getattr__ a type checker accepts any name
    __getattr__ = lazy_exports(
        __name__,
        {
            "images": ["open_image"],
            "store": ["Store", "open_store"],
            "table": ["ImageTable", "check_readable", "load_table"],
            "task": ["Source", "Task"],
            "types": ["DataSummary", "Finding", "Preprocessing", "Row"],
        },
    )
