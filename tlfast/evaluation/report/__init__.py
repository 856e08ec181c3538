"""HTML pages, each in one file, and model cards: of a run, of a comparison and of a data check.

May import what `evaluation` may, besides Jinja. Read `page`, then `sections` for the parts of a report.
"""

from typing import TYPE_CHECKING

from ...core.lazy import lazy_exports

if TYPE_CHECKING:
    from .check_page import render_check_page
    from .comparison_page import render_comparison_page
    from .inputs import Evidence, StoredEvaluation, read_evaluation
    from .page import render_card, write_report

__all__ = [
    "Evidence",
    "StoredEvaluation",
    "read_evaluation",
    "render_card",
    "render_check_page",
    "render_comparison_page",
    "write_report",
]

if not TYPE_CHECKING:  # with a module __getattr__ a type checker accepts any name
    __getattr__ = lazy_exports(
        __name__,
        {
            "check_page": ["render_check_page"],
            "comparison_page": ["render_comparison_page"],
            "inputs": ["Evidence", "StoredEvaluation", "read_evaluation"],
            "page": ["render_card", "write_report"],
        },
    )
