"""HTML page of a data check."""

from __future__ import annotations

from collections.abc import Sequence

from ...data import Finding
from .templating import template_environment
from .thumbnails import group_findings

EXAMPLES = 30  # most examples of each kind of finding


def render_check_page(title: str, source: str, findings: Sequence[Finding]) -> str:
    """Return the page: a table of the kinds of findings, and examples of each. `source` names the data."""
    groups = group_findings(findings, EXAMPLES, EXAMPLES)
    return template_environment().get_template("check.html").render(title=title, source=source, groups=groups)
