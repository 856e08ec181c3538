"""Settings in the files of earlier versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .setting_checks import FINDER, check_run_name

if TYPE_CHECKING:
    from .settings import Declaration

FORMER_NAMES = {"middle": "depth"}  # strategy names of earlier versions
HEAD = "head"  # a setting that files lack in which `lr: auto` means the finder


def convert_earlier(values: Mapping[str, Any], declared: Mapping[str, Declaration]) -> dict[str, Any]:
    """Return the settings of a `run.json` or a journal, in which those of an earlier version mean what they meant there.

    Version 0.1.0 saved the best epoch, and its `lr: auto` was the suggestion of the learning-rate finder. It accepted empty values, which had no
    effect except for `out`, the current folder, and names of runs that are refused now. The name of a run is also that of its folder.
    """
    converted = {"keep": "best", **values}
    if HEAD not in values and values.get("lr") == "auto":
        converted["lr"] = FINDER
    for name, value in values.items():
        if value == "" and name in declared:
            converted[name] = "." if name == "out" else declared[name].default
    if isinstance(values.get("name"), str) and check_run_name(values["name"]):
        converted["name"] = ""
    return converted
