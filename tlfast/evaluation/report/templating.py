"""Jinja environment of the pages and of the model card."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from ...core.errors import make_printable
from ...core.metrics import format_threshold

PALETTE_SIZE = 6  # colours of charts, declared in templates/base.html
DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # characters that would reverse the text after a name


def template_environment() -> Environment:
    """Return an environment for `templates/`; HTML is escaped, Markdown is not. Characters that change the direction of text become escape sequences.

    Filters: `percent` formats shares, 0.5 -> "50.0 %"; `threshold` formats thresholds of the probability; `plain` makes a name safe in Markdown.
    """
    loader = PackageLoader(__package__ or "", "templates")
    environment = Environment(loader=loader, autoescape=lambda name: str(name).endswith(".html"), finalize=_escape_direction)
    environment.globals["direction"] = DIRECTION.pattern
    environment.filters["plain"] = lambda text: re.sub(r"([|*_`\[\]~\\])", r"\\\1", str(escape(make_printable(text))))
    environment.filters["threshold"] = format_threshold
    environment.filters["percent"] = lambda value, digits=1: f"{100 * value:.{digits}f} %"
    return environment


def _escape_direction(value: Any) -> Any:
    """Return a value of a template without characters of DIRECTION. Markup consists of values that were escaped already."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return DIRECTION.sub(lambda found: ascii(found[0])[1:-1], value)
