"""The Jinja environment of the pages."""

from __future__ import annotations

from markupsafe import Markup

from tlfast.evaluation.report.templating import template_environment


def test_a_name_cannot_reverse_the_text_after_it():
    page = template_environment().from_string("{{ name }}: 1 {{ markup }}")
    assert page.render(name="x\u202ecode\n\U0001f468\u200d\U0001f467", markup=Markup("<b>")) == "x\\u202ecode\n\U0001f468\u200d\U0001f467: 1 <b>"
