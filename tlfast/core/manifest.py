"""The entries of `run.json`, the manifest of a run. To add one, declare it in `ENTRIES`; docs/reference/run-json.md is generated from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NUMBER = (int, float)


@dataclass(frozen=True)
class Entry:
    """An entry of the manifest.

    `kind` is the type of the value, or several. `when` says which runs have the entry; "" stands for all runs except those of early versions.
    """

    kind: type | tuple[type, ...]
    meaning: str
    when: str = ""


ENTRIES: Mapping[str, Entry] = {
    "created": Entry(str, "time at which the run was written, UTC, ISO 8601"),
    "settings": Entry(dict, "all settings by name, with `task` and `strategy`; a chosen depth and number of epochs in place of `auto`"),
    "classes": Entry(list, "names of the classes, in the order of the outputs"),
    "mean": Entry(list, "mean of each colour channel that the normalization subtracts, for values from 0 to 1"),
    "std": Entry(list, "standard deviation of each colour channel, by which the normalization divides"),
    "versions": Entry(dict, "versions of Python, tlfast and the packages that change results"),
    "task_file": Entry(str, "the .py file of the task", "tasks of a file"),
    "data": Entry(
        dict, "`source` and `fingerprint` of the images, `counts` of images by split and class, `unreadable` images with reasons, `notes` on the splits"
    ),
    "weights": Entry(dict, "`source` and `sha256` of the initial weights of the backbone"),
    "teacher": Entry(dict, "`runs` and `sha256` of the teacher", "`--teacher`"),
    "device": Entry(str, "device of the training, such as `cpu` or `cuda:0`"),
    "phases": Entry(list, "for each phase: `name`, rates `lr` and `lowest_lr`, `kept_epoch`, `seconds`, `images_per_second`, `features`, `precision`"),
    "seconds": Entry(NUMBER, "duration of the training, in seconds"),
    "plan": Entry(
        list, "the predicted cost of each depth that was considered", "not with `by_hand`; empty without `--minutes`, `--depth auto` or a long preset"
    ),
    "by_hand": Entry(bool, "true: the network was fitted in Python, so that the settings do not describe the training", "`from_learner`"),
    "onnx": Entry((dict, type(None)), "agreement of `model.onnx` with the network: `images`, `top1`, `largest_difference`, `disagreements`; null without it"),
    "temperature": Entry(NUMBER, "divisor of the logits in the exported files"),
    "scores": Entry(dict, "`accuracy` and `macro_f1` on the valid split, as in `metrics.json`"),
    "files": Entry(dict, "SHA-256 of every file of the run"),
    "exports": Entry(dict, "files that were added later, with their sizes and accuracies", "`tlfast export`"),
    "test_looks": Entry(list, "uses of the test split: `when`, `command`, `images`, `accuracy`", "`--split test`"),
    "hub": Entry(dict, "`repository` and `revision` from which a run was pulled", "pulled runs; added when the file is read"),
    "asked": Entry(dict, "the given `--depth` and `--minutes`, which `settings` hold now", "runs before December 2026"),
}


def check_manifest(manifest: Mapping[str, Any]) -> None:
    """Raise ValueError, KeyError or TypeError for a manifest with missing entries, or with entries of wrong types. Runs of early versions lack some."""
    manifest["settings"]["task"], manifest["classes"]
    for name, entry in ENTRIES.items():
        if name in manifest and not isinstance(manifest[name], entry.kind):
            raise ValueError(f"wrong type of {name}")
    for name in ("mean", "std"):
        if not all(isinstance(value, NUMBER) for value in manifest.get(name, [])):
            raise ValueError(f"wrong type of {name}")
    if not manifest["classes"] or not isinstance(manifest.get("data", {}).get("source", ""), str):
        raise ValueError("no classes, or no source of the images")
