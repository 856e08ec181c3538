"""Settings read from files: TOML configurations, and the `run.json` of an earlier run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import UsageError


def read_config(path: str) -> dict[str, Any]:
    """Read settings from a TOML file. Raises UsageError where it is missing or none."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}", "Give a TOML file of settings, such as: epochs = 5") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not TOML: {error}", "One setting a line, such as: epochs = 5") from None
    return {name.replace("-", "_"): value for name, value in values.items()}


def read_manifest(path: str) -> dict[str, Any]:
    """Read a run's `run.json`. Raises UsageError where it is missing or no such file."""
    try:
        manifest = json.loads(Path(path).read_text(encoding="utf-8"))
        if isinstance(manifest["settings"]["task"], str) and isinstance(manifest["data"]["source"], str):
            return manifest
        raise ValueError("its settings name no task")
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}", "Give the run.json of a run, or a TOML file of settings") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--config {path} is not the run.json of a run ({error})", "Give that of a run, or a TOML file of settings") from None


def settings_to_repeat(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run was made with, but for its name and place, which are taken; and where its images were."""
    return {**{name: value for name, value in manifest["settings"].items() if name not in ("name", "out")}, "data": manifest["data"]["source"]}
