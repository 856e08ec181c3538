"""Report of a run as one self-contained HTML page, and its model card.

How the page is built: `inputs` reads what the run stores, `facts` collects what page and card share, `sections` builds the sections, which may
embed images through the `album` and offer `image_choices`, and `templates/report.html` puts them together.

To add a section:

1. In `sections.py`, write a function from `ReportContext` to the values of a template, and add a `Section` to `SECTIONS`.
2. Write `templates/sections/<name>.html`, the content below the heading.

The heading, the anchor and the link in the navigation follow from the `Section`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...core import OnEvent, Progress, RunRecord, ignore_event
from ...core.files import write_text_atomic
from ...core.run_files import CARD_FILE, REPORT_FILE
from .album import Album
from .facts import collect_facts
from .image_choices import ImageChoices
from .inputs import Evidence, StoredEvaluation
from .sections import SECTIONS, ReportContext
from .templating import template_environment


def write_report(run: RunRecord, evaluation: StoredEvaluation, evidence: Evidence, on_event: OnEvent = ignore_event) -> list[Path]:
    """Write `report.html` and `MODEL_CARD.md` into a run and return both paths; for other splits than valid the names end in `_<split>`."""
    album = Album(evaluation.predictions, evaluation.metrics["classes"])
    context = ReportContext(run, evaluation, evidence, album, ImageChoices(evidence.rows))
    facts = collect_facts(run, evaluation.metrics)
    pages = {REPORT_FILE: _render_page(context, facts, on_event), CARD_FILE: _render_card(facts)}
    return [_write_page(run.folder, name, evaluation.metrics["split"], text) for name, text in pages.items()]


def render_card(run: RunRecord, metrics: Mapping[str, Any], **of_hub: Any) -> str:
    """Return the model card of a run in a repository of the hub. `metrics` is the content of `metrics.json`.

    `of_hub` are `repository`, `licence` of the pretrained weights ("" if unknown), `base_model` (their repository, "" for none), and `is_timm`, whether timm
    loads the network.
    """
    return _render_card({**collect_facts(run, metrics), **of_hub})


def _render_card(facts: dict[str, Any]) -> str:
    return template_environment().get_template("model_card.md").render(facts)


def _render_page(context: ReportContext, facts: dict[str, Any], on_event: OnEvent) -> str:
    environment, values = template_environment(), {}
    for number, section in enumerate(sorted(SECTIONS, key=lambda section: section.album_order), 1):
        values[section.name] = section.values(context)
        on_event(Progress("report", number, len(SECTIONS)))
    contents = {name: Markup(environment.get_template(f"sections/{name}.html").render(**facts, **section_values)) for name, section_values in values.items()}
    table = context.choices.pack() if context.choices else ""
    return environment.get_template("report.html").render(**facts, sections=SECTIONS, contents=contents, album=context.album.entries, table=table)


def _write_page(folder: Path, name: str, split: str, text: str) -> Path:
    path = folder / (name if split == "valid" else name.replace(".", f"_{split}."))
    write_text_atomic(path, text)  # the report of a finished run is replaced
    return path
