"""Kill commands with SIGKILL at random moments and go on with them: each must end with what it gives when nobody disturbs it.

    scripts/torture train --kills 25     # whole trainings, killed in every phase, resumed
    scripts/torture all --kills 10       # also the store, an export, predictions into a file, and a comparison

While they run a watcher looks for anything under a final name that is not whole: a run whose files are not those of its manifest, a folder
of the cache that is not what it says, a file of predictions that is cut off. Prints one line a kill, and a table; exit code 1 where anything differed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tlfast.core import cache, runs  # noqa: E402 (the package of this checkout, installed or not)
from tlfast.core.errors import RunError  # noqa: E402

# The number format is said, for which is the faster on so small a network is a matter of chance.
TRAIN = [
    "train",
    "images",
    "--full",
    "--arch",
    "test_resnet",
    "--weights",
    "none",
    "--size",
    "64",
    "--bs",
    "16",
    "--amp",
    "off",
    "--checkpoint-minutes",
    "0.005",
    "--epochs",
    "9",
]
COLOURS = {"blue": (20, 40, 230), "green": (20, 200, 40), "red": (230, 30, 30)}
LOOK_EVERY = 0.02  # seconds between two looks of the watcher


@dataclass
class Place:
    """A folder to work in, with its own cache, and what the watcher has to say of it."""

    folder: Path
    complaints: list[str] = field(default_factory=list)

    def start(self, command: list[str]) -> subprocess.Popen:
        environment = {**os.environ, "TLFAST_CACHE": str(self.folder / "cache"), "PYTHONPATH": str(ROOT)}
        whole = [sys.executable, "-m", "tlfast", *command, "--quiet", "--json"]
        return subprocess.Popen(whole, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, command: list[str]) -> dict:
        """Run a command to its end and return what it says. Raises RuntimeError where it fails."""
        process = self.start(command)
        out, err = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}\n{err}")
        return json.loads(out) if out.strip() else {}


@dataclass(frozen=True)
class Case:
    """One command to be killed: what goes before it, the command, how to go on with it, and what must come out the same."""

    before: Callable[[Place], None]
    command: list[str]
    again: Callable[[Place], list[str]]
    outcome: Callable[[Place, dict], object]


def draw(folder: Path, each: int) -> None:
    """Draw `each` images of three classes: a disc somewhere on noise."""
    rng = random.Random(0)
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for n in range(each):
            image = Image.frombytes("L", (60, 60), bytes(rng.randrange(60, 200) for _ in range(3600))).convert("RGB")
            x, y, r = rng.randint(12, 48), rng.randint(12, 48), rng.randint(4, 8)
            ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=colour)
            image.save(folder / label / f"{n}.png")


def metrics(place: Place, said: dict) -> object:
    """Return a training's figures, of every epoch and of the run, and its weights; seconds left out."""
    history = [[row[name] for name in row if name != "seconds"] for phase in said["phases"] for row in phase["epochs"]]
    weights = load_file(place.folder / said["folder"] / "model.safetensors")
    return said["evaluation"], history, {name: array.tobytes() for name, array in weights.items()}


def resumed(command: list[str]) -> Callable[[Place], list[str]]:
    """Return what goes on with a killed training; killed before it had claimed its name, it begins anew."""
    return lambda place: [*command, "--resume"] if list(place.folder.glob("exports/*/*.unfinished/journal.json")) else command


def one_run(place: Place) -> None:
    place.finish([*TRAIN[:-2], "--name", "it", "--epochs", "2"])


def exported(place: Place, said: dict) -> object:
    run = runs.find("it", str(place.folder / "exports"), verified=True)
    return sorted(run.manifest["exports"]), run.manifest["exports"]["model.int8.onnx"]["accuracy"]


def predicted(place: Place, said: dict) -> object:
    return (place.folder / "answers.csv").read_text()


def compared(place: Place, said: dict) -> object:
    arms = [[arm[name] for name in ("name", "accuracy", "macro_f1", "accuracy_interval")] for arm in said["arms"]]
    return said["verdict"].partition(", in ")[0], arms


def answering(place: Place) -> list[str]:
    begun = (place.folder / "answers.csv.partial").exists()
    if (place.folder / "answers.csv").exists():  # it was done, and killed on its way out
        return NOTHING
    return [*PREDICT, "--resume"] if begun else PREDICT


def exporting(place: Place) -> list[str]:
    return NOTHING if "model.int8.onnx" in runs.find("it", str(place.folder / "exports")).manifest.get("exports", {}) else EXPORT


NOTHING, PREDICT = ["runs"], ["predict", "it", "images", "--csv", "answers.csv"]
COMPARE = ["compare", *(word for word in TRAIN[1:-2] if word != "--full"), "--epochs", "2", "--arms", "partial,full", "--folds", "2"]
EXPORT, STORE = ["export", "it", "--quantize", "int8", "--allow-drop"], [*TRAIN[:-2], "--epochs", "1"]
CASES = {
    "train": Case(lambda place: None, TRAIN, resumed(TRAIN), metrics),
    "store": Case(lambda place: None, STORE, resumed(STORE), metrics),
    "export": Case(one_run, EXPORT, exporting, exported),
    "predict": Case(one_run, PREDICT, answering, predicted),
    "compare": Case(lambda place: None, COMPARE, lambda place: COMPARE, compared),
}
FIRST = {"store": 0.6}  # up to which share of the command's time it is killed; the store is built before anything is trained


@contextmanager
def watched(place: Place) -> Iterator[None]:
    """Look again and again whether all that bears a final name is whole."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK_EVERY):
            place.complaints += [said for said in complaints(place.folder) if said not in place.complaints]

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        place.complaints += [said for said in complaints(place.folder) if said not in place.complaints]


def complaints(folder: Path) -> list[str]:
    """Return what lies under a final name and is not whole."""
    found = []
    for manifest in folder.glob("exports/*/*/run.json"):
        if not manifest.parent.name.startswith("."):
            try:
                runs.verify(runs.read(manifest.parent))
            except RunError as error:
                found.append(error.message)
    for about in folder.glob("cache/*/*/about.json"):
        if cache.NAME.fullmatch(about.parent.name):
            sizes = json.loads(about.read_text())["files"]
            found += [f"{about.parent / name} is cut off" for name, size in sizes.items() if (about.parent / name).stat().st_size != size]
    for answers in folder.glob("answers.csv"):
        if not answers.read_text().endswith("\n"):
            found.append(f"{answers} is cut off")
    return found


def torture(name: str, kills: int, rng: random.Random, images: Path, scratch: Path) -> tuple[int, list[str]]:
    """Kill one kind of command so many times; return how many kills met it, and what went wrong."""
    case, failures, met = CASES[name], [], 0
    wanted, seconds = undisturbed(case, images, scratch)
    for number in range(1, kills + 1):
        with fresh(images, scratch) as place:
            case.before(place)
            with watched(place):
                moment = rng.uniform(0.05, FIRST.get(name, 1.0)) * seconds
                process = place.start(case.command)
                time.sleep(moment)
                killed = process.poll() is None
                process.send_signal(signal.SIGKILL)
                said, _ = process.communicate()
                where, met = phase(place), met + killed
                try:
                    said = place.finish(case.again(place)) if killed else json.loads(said or "{}")
                    wrong = [] if case.outcome(place, said) == wanted else [f"not the same after a kill at {moment:.1f} s"]
                except (RuntimeError, OSError, KeyError, RunError) as error:
                    wrong = [str(error)]
            wrong += [*place.complaints, *(f"{left} is left" for left in place.folder.glob("exports/*/*.unfinished"))]
            print(f"{name} {number}: {'killed' if killed else 'done before'} at {moment:.1f} of {seconds:.1f} s, {where}: {wrong or 'the same'}", flush=True)
            failures += [f"{name} {number}: {what}" for what in wrong]
    return met, failures


def undisturbed(case: Case, images: Path, scratch: Path) -> tuple[object, float]:
    """Return what a command gives when nobody kills it, and the seconds it takes: the fewer of two, for the first has everything to load."""
    seconds, outcomes = [], []
    for _ in range(2):
        with fresh(images, scratch) as place:
            case.before(place)
            started = time.perf_counter()
            said = place.finish(case.command)
            seconds.append(time.perf_counter() - started)
            outcomes.append(case.outcome(place, said))
    if outcomes[0] != outcomes[1]:
        raise SystemExit("two undisturbed commands do not give the same: there is nothing to compare with")
    return outcomes[0], min(seconds)


def phase(place: Place) -> str:
    """Say how far a killed training had come, by what it left."""
    states = sorted(path.name for path in place.folder.glob("exports/*/*.unfinished/*.pt"))
    return f"left {', '.join(states)}" if states else "nothing learned yet"


@contextmanager
def fresh(images: Path, scratch: Path) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(dir=scratch))
    (folder / "images").symlink_to(images)
    try:
        yield Place(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=[*CASES, "all"])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=150, help="images of each of three classes")
    given = parser.parse_args()
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        draw(scratch / "images", given.images)
        table = []
        for name in CASES if given.which == "all" else [given.which]:
            met, wrong = torture(name, given.kills, random.Random(given.seed), scratch / "images", scratch)
            table.append((name, met, given.kills, len(wrong)))
            failures += wrong
    for name, met, kills, wrong in table:
        print(f"{name}: {kills} commands, {met} of them killed, {wrong} things wrong")
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
