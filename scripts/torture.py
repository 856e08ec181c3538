"""Kill commands with SIGKILL at random moments and resume them: each must end with the result of an undisturbed command.

    scripts/torture train --kills 25     # whole trainings, killed in every phase, resumed
    scripts/torture all --kills 10       # also the store, an export, predictions into a file, and a comparison

Meanwhile a watcher looks for incomplete files under their final name: a run whose files differ from its manifest, a cache entry that differs from
its description, a truncated file of predictions. Prints one line for each kill, and a table. Exit code 1 if anything differs.

The commands are in torture_cases.py, the watcher in torture_watcher.py.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from torture_cases import CASES, Case, Workplace
from torture_watcher import watch

from tlfast.core.errors import RunError

COLOURS = {"blue": (20, 40, 230), "green": (20, 200, 40), "red": (230, 30, 30)}


@dataclass(frozen=True)
class Reference:
    """Outcome of an undisturbed command, and its seconds."""

    outcome: object
    seconds: float


@dataclass(frozen=True)
class Kill:
    """Result of one kill.

    Attributes:
        killed: False if the command had ended before.
        moment: seconds from its start.
        progress: what the killed command had written.
        problems: differences from the reference, and incomplete files.
    """

    killed: bool
    moment: float
    progress: str
    problems: list[str]


def main() -> int:
    """Run the cases of the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=[*CASES, "all"])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=150, help="images of each of three classes")
    options = parser.parse_args()
    table, failures = [], []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        draw_images(scratch / "images", options.images)
        for name in CASES if options.which == "all" else [options.which]:
            killed, problems = torture(name, options.kills, random.Random(options.seed), scratch)
            table.append(f"{name}: {options.kills} commands, {killed} of them killed, {len(problems)} things wrong")
            failures += problems
    print("\n".join(table))
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def torture(name: str, kills: int, rng: random.Random, scratch: Path) -> tuple[int, list[str]]:
    """Kill one command `kills` times. Returns how many were still running when killed, and the problems."""
    case, killed, failures = CASES[name], 0, []
    reference = run_undisturbed(case, scratch)
    for number in range(1, kills + 1):
        kill = kill_once(case, rng.uniform(0.05, case.kill_before) * reference.seconds, reference, scratch)
        killed += kill.killed
        state = f"{'killed' if kill.killed else 'done before'} at {kill.moment:.1f} of {reference.seconds:.1f} s, {kill.progress}"
        print(f"{name} {number}: {state}: {kill.problems or 'the same'}", flush=True)
        failures += [f"{name} {number}: {problem}" for problem in kill.problems]
    return killed, failures


def run_undisturbed(case: Case, scratch: Path) -> Reference:
    """Run a command twice. Returns its outcome and the shorter time, because the first run also fills the disk cache.

    Raises SystemExit if the outcomes differ.
    """
    seconds, outcomes = [], []
    for _ in range(2):
        with open_workplace(scratch) as place:
            case.prepare(place)
            started = time.perf_counter()
            result = place.finish(case.command)
            seconds.append(time.perf_counter() - started)
            outcomes.append(case.outcome(place, result))
    if outcomes[0] != outcomes[1]:
        raise SystemExit("two undisturbed commands have different outcomes: there is no reference to compare with")
    return Reference(outcomes[0], min(seconds))


def kill_once(case: Case, moment: float, reference: Reference, scratch: Path) -> Kill:
    """Start a command, kill it after `moment` seconds, resume it, and compare its outcome with the reference."""
    with open_workplace(scratch) as place:
        case.prepare(place)
        with watch(place.folder) as incomplete:
            process = place.start(case.command)
            time.sleep(moment)
            killed = process.poll() is None
            process.send_signal(signal.SIGKILL)
            out, _ = process.communicate()
            progress = describe_progress(place)
            try:
                result = place.finish(case.resume(place)) if killed else json.loads(out or "{}")
                problems = [] if case.outcome(place, result) == reference.outcome else [f"not the same after a kill at {moment:.1f} s"]
            except (RuntimeError, OSError, KeyError, RunError) as error:
                problems = [str(error)]
        problems += [*incomplete, *(f"{folder} is left" for folder in place.folder.glob("exports/*/*.unfinished"))]
    return Kill(killed, moment, progress, problems)


def describe_progress(place: Workplace) -> str:
    """Return the checkpoints that a killed training has left."""
    states = sorted(path.name for path in place.folder.glob("exports/*/*.unfinished/*.pt"))
    return f"left {', '.join(states)}" if states else "nothing learned yet"


@contextmanager
def open_workplace(scratch: Path) -> Iterator[Workplace]:
    """Yield a new folder with a link to the images; it is removed afterwards."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    (folder / "images").symlink_to(scratch / "images")
    try:
        yield Workplace(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def draw_images(folder: Path, count: int) -> None:
    """Draw `count` images of each of three classes: a disc of its colour at a random place on noise."""
    rng = random.Random(0)
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for n in range(count):
            image = Image.frombytes("L", (60, 60), bytes(rng.randrange(60, 200) for _ in range(3600))).convert("RGB")
            x, y, r = rng.randint(12, 48), rng.randint(12, 48), rng.randint(4, 8)
            ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=colour)
            image.save(folder / label / f"{n}.png")


if __name__ == "__main__":
    sys.exit(main())
