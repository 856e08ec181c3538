"""The commands that `scripts/torture` kills: how each is prepared and resumed, and which outcome must be the same.

To add a case, write its functions and add it to `CASES`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tlfast.core import runs  # noqa: E402 (the package of this checkout, installed or not)


@dataclass(frozen=True)
class Workplace:
    """A folder to run commands in, with its own cache."""

    folder: Path

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a tlfast command with --json."""
        environment = {**os.environ, "TLFAST_CACHE": str(self.folder / "cache"), "PYTHONPATH": str(ROOT)}
        words = [sys.executable, "-m", "tlfast", *command, "--quiet", "--json"]
        return subprocess.Popen(words, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, command: list[str]) -> Any:
        """Run a tlfast command and return its JSON result. Raises RuntimeError if it fails."""
        process = self.start(command)
        out, err = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}\n{err}")
        return json.loads(out) if out.strip() else {}


@dataclass(frozen=True)
class Case:
    """One command to kill.

    Attributes:
        command: the command.
        resume: returns the command to run after the kill.
        outcome: returns what must equal that of an undisturbed command, from the JSON result and the files.
        prepare: runs other commands before.
        kill_before: share of the command's time within which it is killed.
    """

    command: list[str]
    resume: Callable[[Workplace], list[str]]
    outcome: Callable[[Workplace, Any], object]
    prepare: Callable[[Workplace], None] = lambda place: None
    kill_before: float = 1.0


# Commands. The number format is fixed: which one is the faster for so small a network is a matter of chance.

NETWORK = ["--arch", "test_resnet", "--weights", "none", "--size", "64", "--bs", "16", "--amp", "off", "--checkpoint-minutes", "0.005"]
FULL = ["train", "images", "--full", *NETWORK]
TRAIN = [*FULL, "--epochs", "9"]
STORE = [*FULL, "--epochs", "1"]
COMPARE = ["compare", "images", *NETWORK, "--epochs", "2", "--arms", "partial,full", "--folds", "2"]
RUN = "it"
PREDICT = ["predict", RUN, "images", "--csv", "answers.csv"]
EXPORT = ["export", RUN, "--quantize", "int8", "--allow-drop"]
NOTHING = ["runs"]  # a command without effect, if the killed one had finished


def train_run(place: Workplace) -> None:
    """Provide the run that the commands predict and export use: it is trained in the first workplace, and copied to the others."""
    root, trained = place.folder.parent, place.folder.parent / "trained"
    if trained.exists():
        shutil.copytree(trained, place.folder / "exports")
        return
    place.finish(["train", str(root / "images"), *FULL[2:], "--name", RUN, "--epochs", "2"])  # absolute, so that a copy finds its images
    shutil.copytree(place.folder / "exports", trained)


# Commands to resume


def resume_training(command: list[str]) -> Callable[[Workplace], list[str]]:
    """Return a function that adds --resume to the command if the killed training has a journal; before that, it starts again."""
    return lambda place: [*command, "--resume"] if list(place.folder.glob("exports/*/*.unfinished/journal.json")) else command


def resume_predict(place: Workplace) -> list[str]:
    """Return the command for what is left of the CSV file."""
    if (place.folder / "answers.csv").exists():  # killed after the file was finished
        return NOTHING
    return [*PREDICT, "--resume"] if (place.folder / "answers.csv.partial").exists() else PREDICT


def resume_export(place: Workplace) -> list[str]:
    """Return the export again, unless the run has it already."""
    return NOTHING if "model.int8.onnx" in runs.find(RUN, str(place.folder / "exports")).manifest.get("exports", {}) else EXPORT


# Outcomes


def training_outcome(place: Workplace, result: Any) -> object:
    """Return the metrics of the run and of every epoch, without seconds, and the weights."""
    history = [[row[name] for name in row if name != "seconds"] for phase in result["phases"] for row in phase["epochs"]]
    weights = load_file(place.folder / result["folder"] / "model.safetensors")
    return result["evaluation"], history, {name: array.tobytes() for name, array in weights.items()}


def export_outcome(place: Workplace, result: Any) -> object:
    """Return the exports that the run lists, and the accuracy of the smaller form."""
    exports = runs.find(RUN, str(place.folder / "exports"), verified=True).manifest["exports"]
    return sorted(exports), exports["model.int8.onnx"]["accuracy"]


def predict_outcome(place: Workplace, result: Any) -> object:
    """Return the content of the CSV file."""
    return (place.folder / "answers.csv").read_text()


def compare_outcome(place: Workplace, result: Any) -> object:
    """Return the verdict, without seconds, and the scores of the arms."""
    arms = [[arm[name] for name in ("name", "accuracy", "macro_f1", "accuracy_interval")] for arm in result["arms"]]
    return result["verdict"].partition(", in ")[0], arms


CASES = {
    "train": Case(TRAIN, resume_training(TRAIN), training_outcome),
    "store": Case(STORE, resume_training(STORE), training_outcome, kill_before=0.6),  # the store is built before the training
    "export": Case(EXPORT, resume_export, export_outcome, train_run),
    "predict": Case(PREDICT, resume_predict, predict_outcome, train_run),
    "compare": Case(COMPARE, lambda place: COMPARE, compare_outcome),
}
