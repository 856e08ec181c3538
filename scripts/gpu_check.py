"""Check tlfast on the GPU of this machine: the tests marked `gpu`, and short trainings beside the CPU.

Prints a Markdown page and writes it to a file, to be attached to a report of a problem. Exit code 1 if a test or a training fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import torch

from tlfast.commands.doctor import inspect_machine

ROOT = Path(__file__).resolve().parents[1]
TRAININGS = [["--partial"], ["--depth", "2"], ["--full"]]
SETTINGS = ["--arch", "tf_efficientnet_lite0", "--size", "96", "--epochs", "3", "--seed", "0"]


def main() -> int:
    """Run the checks; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/gpu-check", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="gpu-check.md", help="file to write")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else ""
    if not device:
        print("torch finds no GPU here; `tlfast doctor` says why", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        tests, passed = run_tests(Path(folder))
        rows = [run_training(flags, kind, Path(folder)) for flags in TRAININGS for kind in (device, "cpu")]
    page = format_page(tests, rows)
    Path(options.out).write_text(page, encoding="utf-8")
    print(page)
    return 0 if passed and all(row["accuracy"] is not None for row in rows) else 1


def run_tests(folder: Path) -> tuple[list[str], bool]:
    """Run the tests marked `gpu`. Returns one line per test, and whether all passed."""
    report = folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-n", "0", "-p", "no:randomly", "tests/gpu", f"--junitxml={report}"]
    code = subprocess.run(command, cwd=ROOT).returncode
    cases = ElementTree.parse(report).iter("testcase") if report.is_file() else ()
    lines = [] if report.is_file() else [f"the tests could not be started: pytest ended with exit code {code}"]
    for case in cases:
        problem = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        message = "" if problem is None else (problem.get("message") or "").partition("\n")[0][:200]
        state = "passed" if problem is None else f"{problem.tag}: {message}"
        lines.append(f"{case.get('name')}: {state}")
    return lines, code == 0


def run_training(flags: list[str], device: str, folder: Path) -> dict[str, Any]:
    """Train the digits on a device, without cached features. Returns seconds, accuracy and speed; the accuracy is None if the training fails."""
    command = [sys.executable, "-m", "tlfast", "train", "digits", *SETTINGS, *flags, "--device", device, "--out", str(folder / "exports"), "--json", "--quiet"]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "TLFAST_CACHE": cache}, capture_output=True, text=True)
    row: dict[str, Any] = {
        "training": " ".join(flags),
        "device": device,
        "seconds": time.perf_counter() - started,
        "accuracy": None,
        "speed": done.stderr[-300:],
    }
    if done.returncode == 0:
        result = json.loads(done.stdout)
        last = result["phases"][-1]
        row |= {"accuracy": result["evaluation"]["accuracy"], "speed": f"{last['images_per_second']:,.0f}/s, precision {last['precision'] or 'off'}"}
    return row


def format_page(tests: list[str], rows: list[dict[str, Any]]) -> str:
    """Return the page in Markdown."""
    facts = inspect_machine().to_dict()
    lines = ["# tlfast on a GPU", "", *(f"- {name}: {value}" for name, value in facts.items()), "", "## Tests", "", *(f"- {line}" for line in tests)]
    lines += ["", "## Trainings", "", f"`tlfast train digits {' '.join(SETTINGS)}`, without cached features.", ""]
    lines += ["| training | device | seconds | accuracy | training speed |", "|---|---|---|---|---|"]
    for row in rows:
        accuracy = "failed" if row["accuracy"] is None else f"{row['accuracy']:.4f}"
        lines.append(f"| {row['training']} | {row['device']} | {row['seconds']:.1f} | {accuracy} | {' '.join(row['speed'].split())} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
