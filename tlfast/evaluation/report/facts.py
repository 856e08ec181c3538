"""Facts on a run that the report and the model card share: names, headline figures, provenance and the command that repeats the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ... import tasks
from ...core import DataSettings, RunRecord, Settings
from ...core.cache import NAME
from ...core.metrics import FIGURE_TITLES, HEADLINES, flatten_metrics
from ...core.setting_fields import Role
from ...core.settings import declared_settings, names_with
from ...tasks import resolve_settings

# Settings.strategy_label -> what was trained, with its verb; depths are described by `describe_trained_layers`.
TRAINED_LAYERS = {"partial": "The classifier of `{arch}` was", "full": "All layers of `{arch}` were"}


def collect_facts(run: RunRecord, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that every template may use; `metrics` is the content of `metrics.json`."""
    manifest = run.manifest
    settings = run.settings
    changed, cleaned_file = _changed_settings(run, settings), f"{run.task}-cleaned.csv"
    return {
        "run": run.id,
        "task": run.task,
        "title": _describe_images(run),
        "created": manifest["created"],
        "settings": manifest["settings"],
        "chose_epoch": settings.keeps_best and metrics["split"] == "valid" and not manifest.get("by_hand"),
        "training": "fine-tuning by hand" if manifest.get("by_hand") else f"{run.strategy} fine-tuning",
        "trained": f"Layers of `{settings.arch}`, chosen by hand, were" if manifest.get("by_hand") else describe_trained_layers(settings),
        "metrics": metrics,
        "headlines": _list_headlines(metrics),
        "data": manifest["data"],
        "image_licence": _find_image_licence(run),
        "weights": manifest["weights"]["source"],
        "device": manifest["device"],
        "seconds": manifest["seconds"],
        "onnx": manifest.get("onnx"),
        "test_uses": len(manifest.get("test_looks", [])),
        "versions": manifest["versions"],
        "changed": changed,
        "command": _repeat_command(run, settings, changed),
        "cleaned_file": cleaned_file,
        "cleaned_command": _command_on_table(run, settings, changed, cleaned_file),
    }


def describe_trained_layers(settings: Settings) -> str:
    """Return the start of a sentence that names the trained layers.

    For example "The classifier and the top 3 stages of `resnet50` were".
    """
    stages = "topmost stage" if settings.depth == "1" else f"top {settings.depth} stages"
    sentence = TRAINED_LAYERS.get(settings.strategy_label, f"The classifier and the {stages} of `{{arch}}` were")
    return sentence.format(arch=settings.arch)


def _describe_images(run: RunRecord) -> str:
    """Return the title of the task; for other data, the name of its source."""
    known = tasks.registered_tasks().get(run.task)
    if known and not run.manifest["settings"]["data"]:
        return known.title
    source = Path(run.manifest["data"]["source"])
    return f"the DataFrame {run.task}" if NAME.fullmatch(source.stem) else f"the images of {source.name}"  # tables of DataFrames are named by their hash


def _find_image_licence(run: RunRecord) -> str:
    """Return the licence of the images of a known task; "" if there is none."""
    known = tasks.registered_tasks().get(run.task)
    if not known or not known.licence:
        return ""
    return f"{known.licence}, if they are those of the task {run.task}" if run.manifest["settings"]["data"] else known.licence


def _list_headlines(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return title, value and interval of each headline figure; runs of older versions have fewer figures."""
    values = flatten_metrics(metrics)
    titles = {name: FIGURE_TITLES[name] for name in HEADLINES if values.get(name) is not None}
    return [
        {"name": title[0].upper() + title[1:], "value": values[name], "interval": metrics["intervals"].get(name)}  # "ROC AUC" keeps its capitals
        for name, title in titles.items()
    ]


def _changed_settings(run: RunRecord, settings: Settings) -> dict[str, Any]:
    """Return the settings that differ from the defaults of the task and strategy."""
    defaults = resolve_settings(tasks.find_run_task(run.manifest), settings.strategy, {})
    left_out = {"name", "out", *names_with(Role.SHORTHAND)}  # the settings of a preset are values of their own
    values = {name: getattr(settings, name) for name in declared_settings() if name not in left_out}
    return {name: value for name, value in values.items() if value != getattr(defaults, name)}


def _repeat_command(run: RunRecord, settings: Settings, changed: Mapping[str, Any]) -> str:
    """Return the command that repeats the training."""
    if run.manifest.get("by_hand"):
        return "# fitted by hand in Python: no command repeats this run"
    source = changed.get("data") or ("" if run.task in tasks.registered_tasks() else run.manifest["data"]["source"])
    options = {"depth": settings.depth, **{name: value for name, value in changed.items() if name != "data"}}
    return tasks.train_command(run.task, source, options, run.manifest.get("task_file", ""))


def _command_on_table(run: RunRecord, settings: Settings, changed: Mapping[str, Any], table: str) -> str:
    """Return the command that repeats the training on a table of its images, which has the splits and subsets of the run already."""
    if run.manifest.get("by_hand"):
        return tasks.train_command(run.task, table, {})
    of_data = {field.name for field in fields(DataSettings)}
    options = {"depth": settings.depth, **{name: value for name, value in changed.items() if name not in of_data}}
    return tasks.train_command(run.task, table, options, run.manifest.get("task_file", ""))
