"""Sections of the report: one entry and one template each."""

from __future__ import annotations

from tlfast.evaluation.report.sections import SECTIONS
from tlfast.evaluation.report.templating import template_environment


def test_every_section_has_a_template_and_every_template_a_section():
    templates = template_environment().list_templates(filter_func=lambda name: name.startswith("sections/"))
    assert sorted(f"sections/{section.name}.html" for section in SECTIONS) == sorted(templates)
    assert len({section.name for section in SECTIONS}) == len(SECTIONS)
