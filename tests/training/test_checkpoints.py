"""A training that was stopped anywhere goes on, and ends as if nothing had happened: the same figures, the same weights."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.command_line import TINY
from tests.helpers.drawing import COLOURS, draw
from tests.helpers.paths import ROOT
from tlfast import tasks
from tlfast.cli.app import main
from tlfast.commands import train
from tlfast.core import files, runs, signals
from tlfast.core import journal as journal_module
from tlfast.core.errors import Interrupted, TrainingError
from tlfast.core.events import Progress
from tlfast.core.journal import Journal
from tlfast.tasks.resolve import resolve_settings
from tlfast.training import checkpoints
from tlfast.training.callbacks import progress

# The number format is said, for which is the faster on so small a network is a matter of chance.
SMALL = {"arch": "test_resnet", "weights": "none", "size": 32, "bs": 8, "lr": "3e-3", "amp": "off", "onnx": False}
WAYS = {
    "partial": {"strategy": "partial", "epochs": 3},
    "head and BatchNorm": {"strategy": "partial", "epochs": 2, "train_bn": True},
    "depth": {"strategy": "depth", "depth": "2", "epochs": 3, "freeze_epochs": 2, "views": 3, "mixup": 0.4, "lr": "auto"},
    "full": {"strategy": "full", "epochs": 3, "freeze_epochs": 2, "lr": "auto"},
    "full with everything": {
        "strategy": "full",
        "epochs": 3,
        "freeze_epochs": 1,
        "mixup": 0.4,
        "ema": True,
        "accumulate": 3,
        "sizes": "24",
        "patience": 2,
        "label_smoothing": 0.1,
        "class_weights": "balanced",
        "metric": "macro_f1",
        "store": "off",
    },
}
# Where it is stopped: at which of a phase's events.
STOPS = {
    "partial": [("backbone: features", 1), ("head", 2), ("head", 5)],
    "head and BatchNorm": [("head and BatchNorm", 4)],
    "depth": [
        ("backbone: features", 3),
        ("upper stages: features", 1),
        ("head", 4),
        ("upper stages: finding the rate", 7),
        ("upper stages", 5),
        ("evaluating", 1),
    ],
    "full": [("backbone: statistics", 2), ("head", 4), ("all layers: finding the rate", 7), ("all layers", 1), ("all layers", 6), ("evaluating", 1)],
    "full with everything": [("all layers", 2), ("all layers", 4), ("all layers", 8)],
}


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C is heard as in a terminal: a shell lets what it puts into the background, such as a whole test run, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("resume") / "pictures"
    for label, colour in COLOURS.items():
        for n in range(12):
            draw(root / label / f"{n}.png", colour, n)
    return root


@pytest.fixture(scope="module")
def undisturbed(pictures, tmp_path_factory):
    """The runs of all ways to train, when nobody stops them."""
    root = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLFAST_CACHE", str(root / "cache"))
        return {way: trained(way, pictures, root / way) for way in WAYS}


def settings_of(way, pictures, out, **more):
    values = {**SMALL, **WAYS[way], **more}
    return resolve_settings(tasks.folder_task(pictures), values.pop("strategy"), {**values, "data": str(pictures), "out": str(out)})


def trained(way, pictures, out, on_event=lambda event: None, resume="", **more):
    return train.train_run(tasks.folder_task(pictures), settings_of(way, pictures, out, **more), on_event, resume)


def stopping_at(phase, count):
    """Return a listener that presses Ctrl-C at an event of a phase, counted from 1."""
    seen = []

    def listen(event):
        if event.phase == phase and isinstance(event, Progress):
            seen.append(event)
            if len(seen) == count:
                signal.raise_signal(signal.SIGINT)

    return listen


def timeless(phase):
    """Return all of a phase but how long it took."""
    about = {name: value for name, value in vars(phase).items() if name not in ("seconds", "images_per_second", "features")}
    return {**about, "epochs": [{**vars(row), "seconds": 0} for row in phase.epochs]}


def assert_equal(result, wanted):
    assert result.evaluation == wanted.evaluation
    assert [timeless(phase) for phase in result.phases] == [timeless(phase) for phase in wanted.phases]
    weights, own = (load_file(Path(each.folder) / "model.safetensors") for each in (wanted, result))
    assert all(torch.equal(own[name], weights[name]) for name in weights)


@pytest.mark.parametrize(("way", "stop"), [(way, stop) for way, stops in STOPS.items() for stop in stops])
def test_stopped_once_it_ends_the_same(way, stop, pictures, undisturbed, tmp_path):
    with pytest.raises(Interrupted, match="interrupted; what was learned is in") as caught:
        trained(way, pictures, tmp_path, stopping_at(*stop))
    folder = journal_module.find(str(tmp_path), "pictures", journal_module.NEWEST)
    assert f"--resume {folder.name.removesuffix('.unfinished')}" in caught.value.hint
    assert not runs.list_folders(str(tmp_path))
    result = trained(way, pictures, tmp_path, resume=journal_module.NEWEST)
    assert_equal(result, undisturbed[way])
    assert result.run == folder.name.removesuffix(".unfinished") and not folder.exists()
    assert [path.name for path in sorted((tmp_path / "pictures").iterdir())] == [result.run, "latest"]


@pytest.mark.parametrize("way", ["full", "full with everything"])
def test_stopped_again_and_again_it_ends_the_same(way, pictures, undisturbed, tmp_path, monkeypatch):
    stops, resume = 0, ""
    while True:
        try:
            result = trained(way, pictures, tmp_path, stopping_at("all layers", 2), resume)
            break
        except Interrupted:
            stops, resume = stops + 1, journal_module.NEWEST
    assert stops >= 4
    assert_equal(result, undisturbed[way])


class Killed(BaseException):
    """As a kill: nothing that is there to tidy up after it knows of it."""


@pytest.mark.parametrize(("way", "step"), [("full", 2), ("full", 5), ("full", 7), ("full with everything", 2), ("full with everything", 5)])
def test_killed_with_checkpoints_after_each_step_or_epoch(way, step, pictures, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "LEAST_SECONDS", 0.0)

    def kill(event):
        if event.phase == "all layers" and isinstance(event, Progress) and event.done == step:
            raise Killed

    minutes = 0.0 if step == 5 else 10.0
    with pytest.raises(Killed):
        trained(way, pictures, tmp_path, kill, checkpoint_minutes=minutes)
    folder = journal_module.find(str(tmp_path), "pictures", journal_module.NEWEST)
    kept = [path for path in journal_module.list_states(folder) if ".at-" in path.name]
    assert len(kept) <= checkpoints.KEPT and (kept or step == 2)
    if kept and step == 7:
        kept[-1].write_bytes(kept[-1].read_bytes()[:1000])  # the newest is damaged: the one before it serves
    result = trained(way, pictures, tmp_path, resume=journal_module.NEWEST, checkpoint_minutes=minutes)
    assert_equal(result, undisturbed[way])


def test_a_kill_while_a_name_is_taken_leaves_no_name(tmp_path, monkeypatch):
    def kill(*args):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "rename", kill)
        patch.setattr(journal_module.shutil, "rmtree", lambda *args, **options: None)
        with journal_module.open_journal(str(tmp_path), "a", "mine", {}):
            pass
    (left,) = (tmp_path / "a").iterdir()
    assert left.suffix == journal_module.CLAIM
    journal_module.check_free(str(tmp_path), "a", "mine")
    with journal_module.open_journal(str(tmp_path), "a", "mine", {}) as journal:
        assert journal.run_id == "mine" and left.exists()  # another may be about to take its name
    os.utime(left, (0, 0))
    with journal_module.open_journal(str(tmp_path), "a", "mine", {}), journal_module.open_journal(str(tmp_path), "a", "mine", {}) as second:
        assert second.run_id == "mine-2" and not left.exists()
    assert not any((tmp_path / "a").iterdir())


def test_what_is_done_is_not_done_again(pictures, tmp_path):
    with pytest.raises(Interrupted):
        trained("full", pictures, tmp_path, stopping_at("all layers", 5))
    said = []
    trained("full", pictures, tmp_path, lambda event: said.append((event.phase, getattr(event, "done", 0))), journal_module.NEWEST)
    phases = {phase for phase, _ in said}
    assert "all layers" in phases and not phases & {"head", "backbone: features", "backbone: statistics", "all layers: finding the rate"}


def test_a_second_ctrl_c_does_not_wait():
    with pytest.raises(KeyboardInterrupt), signals.defer_interrupts() as asked:
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("still here")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# What is typed


@pytest.fixture
def stopped(cli, pictures, monkeypatch):
    """A training by command that was stopped in its second epoch."""
    watch = progress.ProgressCallback.after_batch

    def stop(self):
        watch(self)
        if self.training and self.step == 5:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(progress.ProgressCallback, "after_batch", stop)
        outcome = cli("train", pictures, *TINY, "--epochs", 3, "--train-bn", "--name", "mine")
    assert outcome.code == 130
    assert f"tlfast train {pictures} --resume mine" in outcome.err.replace("\n", " ")
    return outcome


@pytest.mark.parametrize("words", [["--resume"], ["--resume", "mine"], ["--resume", "--partial", "--epochs", 3, "--quiet"]])
def test_the_command_that_goes_on(cli, pictures, stopped, words):
    outcome = cli("train", pictures, *words, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["run"] == "mine" and outcome.json["settings"]["train_bn"] is True
    with open(Path(outcome.json["folder"]) / "history.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    again = cli("train", pictures, "--resume")
    assert again.code == 2 and "no interrupted training of pictures in exports" in again.err and "Leave out --resume" in again.err


def test_other_settings_than_it_began_with_are_refused(cli, pictures, stopped):
    outcome = cli("train", pictures, "--epochs", 4, "--resume")
    assert outcome.code == 2 and "--epochs 4: the interrupted training began with 3" in outcome.err
    assert cli("train", pictures, "--full", "--resume").code == 2
    outcome = cli("train", pictures, "--resume", "other")
    assert outcome.code == 2 and "--resume other: no interrupted training of that name" in outcome.err and "There is: mine" in outcome.err


def test_other_images_than_it_began_with_are_refused(cli, folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(progress.ProgressCallback, "after_train", lambda self: signal.raise_signal(signal.SIGINT))
        assert cli("train", folder, *TINY, "--epochs", 3).code == 130
    (folder / "red" / "0.png").unlink()
    outcome = cli("train", folder, "--resume")
    assert outcome.code == 1 and "the images are not those that the interrupted training began with" in outcome.err
    assert cli("train", folder, "--resume", "--json").code == 1  # and it is still there
    assert cli("train", folder, *TINY, "--epochs", 1).code == 0  # a training anew is none of its business


def test_two_cannot_go_on_with_the_same(cli, pictures, stopped):
    folder = journal_module.find("exports", "pictures", "mine")
    with journal_module._lock(folder):
        outcome = cli("train", pictures, "--resume")
    assert outcome.code == 1 and "is being trained by another process" in outcome.err and folder.is_dir()


def test_what_was_interrupted_is_told_of_and_keeps_its_name(cli, pictures, stopped):
    refused = cli("train", pictures, *TINY, "--epochs", 1, "--name", "mine")
    assert refused.code == 2 and "a training named 'mine' is unfinished" in refused.err and "--resume mine" in refused.err
    other = cli("train", pictures, *TINY, "--epochs", 1)
    assert other.code == 0 and "mine was interrupted: --resume mine goes on with it" in other.err
    assert [journal_module.run_id_of(folder) for folder in journal_module.list_interrupted("exports", "pictures")] == ["mine"]
    with journal_module._lock(journal_module.find("exports", "pictures", "mine")):
        assert journal_module.list_interrupted("exports", "pictures") == []


def test_a_name_is_taken_from_the_beginning(tmp_path):
    with journal_module.open_journal(str(tmp_path), "t", "a", {}) as first, journal_module.open_journal(str(tmp_path), "t", "a", {}) as second:
        assert (first.run_id, second.run_id) == ("a", "a-2")
    assert list((tmp_path / "t").iterdir()) == []


def test_a_training_that_fails_before_it_learned_leaves_nothing(cli, folder):
    outcome = cli("train", folder, *TINY, "--weights", "missing.pth")
    assert outcome.code == 1 or outcome.code == 2
    assert not list(Path("exports").rglob("*.unfinished"))


def test_a_journal_says_a_thing_once(tmp_path):
    journal = Journal(tmp_path)
    assert journal.once("a", lambda: [1]) == [1] and journal.once("a", lambda: [2]) == [1]
    assert json.loads((tmp_path / "journal.json").read_text())["a"] == [1]
    assert Journal().once("a", lambda: 3) == 3


def test_a_checkpoint_executes_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("executed",)

    torch.save({"phase": Evil()}, tmp_path / "head.pt")
    assert checkpoints.load_phase(Journal(tmp_path), "head", torch.nn.Linear(1, 1)) is None


# What goes wrong


def test_a_loss_that_is_no_number_ends_a_phase(pictures, tmp_path, monkeypatch):
    watch = progress.ProgressCallback.after_batch

    def poison(self):
        watch(self)
        if self.training and self.phase == "all layers" and self.step == broken:
            self.learn.loss = self.loss * float("nan")

    monkeypatch.setattr(progress.ProgressCallback, "after_batch", poison)
    said = []
    broken = 5
    result = trained("full", pictures, tmp_path, lambda event: said.append(getattr(event, "note", "")), lr="3e-3")
    assert any("the loss was not a number at step 5: stopped there, the best epoch is kept. Try a lower --lr" in note for note in said)
    assert len(result.phases[1].epochs) == 1
    broken = 1
    with pytest.raises(TrainingError, match="not a number at step 1, before there was an epoch to keep") as caught:
        trained("full", pictures, tmp_path, lr="3e-3", freeze_epochs=0)
    assert "Try a lower --lr than 3.0e-03" in caught.value.hint


def test_out_of_memory_halves_the_batch(pictures, tmp_path, monkeypatch):
    from fastai.learner import Learner

    step, sizes = Learner._do_one_batch, []

    def short(self):
        if self.training and len(self.model) == 2 and len(self.yb[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(self.yb[0]))
        step(self)

    monkeypatch.setattr(Learner, "_do_one_batch", short)
    said = []
    result = trained("full", pictures, tmp_path, lambda event: said.append(getattr(event, "note", "")), lr="3e-3", freeze_epochs=0)
    halved = [note for note in said if note.startswith("out of memory with")]
    assert [note.split()[4] for note in halved] == ["8", "4"] and len(result.phases[0].epochs) == 3
    with pytest.raises(TrainingError, match="does not suffice for --bs 8") as caught:
        trained("full", pictures, tmp_path, lr="3e-3", freeze_epochs=0, auto_bs=False)
    assert "smaller --bs or --size" in caught.value.hint


def test_no_room_for_a_checkpoint_is_said_and_no_end(pictures, tmp_path, monkeypatch):
    def full_disk(path, fill):
        raise OSError(28, "No space left on device")

    keep = files.write_atomic
    monkeypatch.setattr(files, "write_atomic", lambda path, fill: (full_disk if ".at-" in path.name else keep)(path, fill))
    said = []
    trained("full", pictures, tmp_path, lambda event: said.append(getattr(event, "note", "")), lr="3e-3", checkpoint_minutes=0.0)
    assert any("no checkpoint could be written" in note and "No space left on device" in note for note in said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_told_to_stop_says_how_to_go_on(number, pictures, tmp_path):
    command = [sys.executable, "-m", "tlfast", "train", str(pictures), *TINY, "--epochs", "2000", "--train-bn", "--checkpoint-minutes", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("exports/pictures/*.unfinished/*.at-*.pt")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and not out
    assert "interrupted" in err and "--resume" in err and "Traceback" not in err
    assert list(tmp_path.glob("exports/pictures/*.unfinished/*.at-*.pt")) and not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
def test_killed_outright_at_three_moments():
    torture = ROOT / "scripts" / "torture.py"
    done = subprocess.run([sys.executable, str(torture), "train", "--kills", "3", "--images", "60", "--seed", "5"], capture_output=True, text=True)
    assert done.returncode == 0 and "train: 3 commands" in done.stdout and "0 things wrong" in done.stdout, done.stdout + done.stderr


def test_main_hears_a_kill_as_ctrl_c(monkeypatch):
    from tlfast.cli import app

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(app, "app", lambda: signal.raise_signal(signal.SIGTERM))
    try:
        with pytest.raises(KeyboardInterrupt):
            main()
    finally:
        signal.signal(signal.SIGTERM, before)
