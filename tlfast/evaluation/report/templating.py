"""Jinja environment of the pages and of the model card."""

from __future__ import annotations

import re

from jinja2 import Environment, PackageLoader
from markupsafe import escape

from ...core.errors import make_printable

PALETTE_SIZE = 6  # colours of charts, declared in templates/base.html


def template_environment() -> Environment:
    """Return an environment for `templates/`; HTML is escaped, Markdown is not.

    Filters: `percent` formats shares, 0.5 -> "50.0 %"; `plain` makes a name safe in Markdown.
    """
    environment = Environment(loader=PackageLoader(__package__ or "", "templates"), autoescape=lambda name: str(name).endswith(".html"))
    environment.filters["plain"] = lambda text: re.sub(r"([|*_`\[\]~\\])", r"\\\1", str(escape(make_printable(text))))
    environment.filters["percent"] = lambda value, digits=1: f"{100 * value:.{digits}f} %"
    return environment
