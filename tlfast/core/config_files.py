"""Settings read from files: a TOML configuration, or the `run.json` of an earlier run."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .earlier_settings import convert_earlier
from .errors import UsageError
from .setting_checks import BY_SIZE
from .settings import Internals, declared_settings


def read_config(path: str) -> dict[str, Any]:
    """Read settings by name from a TOML file. Raises UsageError if the file is missing or not TOML."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}", "Give a TOML file of settings, such as: epochs = 5") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"--config {path} is not TOML: {error}", "Write one setting per line, such as: epochs = 5") from None
    if headings := [name for name, value in values.items() if isinstance(value, dict)]:
        raise UsageError(f"--config {path} has a heading [{headings[0]}]", "Write one setting per line, such as: epochs = 5, without headings")
    return {name.replace("-", "_"): value for name, value in values.items()}


def read_manifest(path: str) -> dict[str, Any]:
    """Read the `run.json` of a run. Raises UsageError if the file is missing or not a `run.json`."""
    try:
        manifest: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(manifest["settings"]["task"], str) or not isinstance(manifest["data"]["source"], str):
            raise ValueError("its settings name no task")
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}", "Give the run.json of a run, or a TOML file of settings") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"--config {path} is not the run.json of a run ({error})", "Give the run.json of a run, or a TOML file of settings") from None
    return manifest


def settings_to_repeat(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run and the place of its images.

    Left out are `name` and `out`, because a repeated run gets a folder of its own, `log`, because its trackers may belong to somebody else, and the
    internals, which no user sets, except how the split was drawn.
    """
    left_out = {"name", "out", "log", *(f.name for f in dataclasses.fields(Internals))}
    kept = {name: value for name, value in manifest["settings"].items() if name not in left_out}
    return {**convert_earlier(kept, declared_settings()), "data": manifest["data"]["source"], BY_SIZE: manifest["settings"].get(BY_SIZE, False)}
