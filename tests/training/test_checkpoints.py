"""A training that was stopped anywhere goes on, and ends as if nothing had happened: the same figures, the same weights."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fastai.callback.core import Callback
from fastai.learner import AvgSmoothLoss
from safetensors.torch import load_file

from tests.helpers.fake_gpu import fake_gpu
from tests.helpers.interruption import WAYS, Killed, stopping_at, train_way
from tlfast.core import Note, files, ignore_event, runs
from tlfast.core import journal as journal_module
from tlfast.core.errors import Interrupted
from tlfast.core.events import Progress
from tlfast.core.journal import Journal
from tlfast.training import checkpoints
from tlfast.training.callbacks.progress import ProgressCallback

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


@pytest.fixture(scope="module")
def undisturbed(pictures, tmp_path_factory):
    """The runs of all ways to train, when nobody stops them."""
    root = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLFAST_CACHE", str(root / "cache"))
        return {way: train_way(way, pictures, root / way) for way in WAYS}


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
    with pytest.raises(Interrupted, match="interrupted; the checkpoints are in") as caught:
        train_way(way, pictures, tmp_path, stopping_at(*stop))
    folder = journal_module.find(str(tmp_path), "pictures", journal_module.NEWEST)
    assert f"--resume {folder.name.removesuffix('.unfinished')}" in caught.value.hint
    assert not runs.list_run_folders(str(tmp_path))
    result = train_way(way, pictures, tmp_path, resume=journal_module.NEWEST)
    assert_equal(result, undisturbed[way])
    assert result.run == folder.name.removesuffix(".unfinished") and not folder.exists()
    assert [path.name for path in sorted((tmp_path / "pictures").iterdir())] == [result.run, "latest"]


@pytest.mark.parametrize("way", ["full", "full with everything"])
def test_stopped_again_and_again_it_ends_the_same(way, pictures, undisturbed, tmp_path, monkeypatch):
    stops, resume = 0, ""
    while True:
        try:
            result = train_way(way, pictures, tmp_path, stopping_at("all layers", 2), resume)
            break
        except Interrupted:
            stops, resume = stops + 1, journal_module.NEWEST
    assert stops >= 4
    assert_equal(result, undisturbed[way])


@pytest.mark.parametrize(("way", "step"), [("full", 2), ("full", 5), ("full", 7), ("full with everything", 2), ("full with everything", 5)])
def test_killed_with_checkpoints_after_each_step_or_epoch(way, step, pictures, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "MIN_SECONDS", 0.0)

    def kill(event):
        if event.phase == "all layers" and isinstance(event, Progress) and event.done == step:
            raise Killed

    minutes = 0.0 if step == 5 else 10.0
    with pytest.raises(Killed):
        train_way(way, pictures, tmp_path, kill, checkpoint_minutes=minutes)
    folder = journal_module.find(str(tmp_path), "pictures", journal_module.NEWEST)
    kept = [path for path in journal_module.list_states(folder) if ".at-" in path.name]
    assert len(kept) <= checkpoints.KEPT and (kept or step == 2)
    if kept and step == 7:
        kept[-1].write_bytes(kept[-1].read_bytes()[:1000])  # the newest is damaged: the one before it serves
    said = []
    result = train_way(way, pictures, tmp_path, said.append, journal_module.NEWEST, checkpoint_minutes=minutes)
    assert_equal(result, undisturbed[way])
    damaged = [event.note for event in said if isinstance(event, Note) and "cannot be read" in event.note]
    assert len(damaged) == (1 if kept and step == 7 else 0)


def test_the_seconds_of_an_interrupted_epoch_count():
    progress, resumed = (ProgressCallback("all layers", ignore_event) for _ in range(2))
    progress.started, progress.train_started = time.perf_counter() - 100, time.perf_counter() - 90
    resumed.load_state_dict(progress.state_dict())
    assert time.perf_counter() - resumed.started > 99 and time.perf_counter() - resumed.train_started > 89


@pytest.mark.parametrize("gpus", [0, 1])
def test_generators_of_gpus_that_this_machine_lacks_are_left_out(gpus, monkeypatch):
    restored = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.append((int(state), device)))
    state = checkpoints._get_random_state() | {"cuda": [torch.tensor(5), torch.tensor(6)], "mps": torch.zeros(16)}
    drawn = torch.rand(3)
    checkpoints._set_random_state(state)
    assert restored == [(5, 0)][:gpus] and torch.equal(torch.rand(3), drawn)


def test_what_is_done_is_not_done_again(pictures, tmp_path):
    with pytest.raises(Interrupted):
        train_way("full", pictures, tmp_path, stopping_at("all layers", 5))
    said = []
    train_way("full", pictures, tmp_path, lambda event: said.append((event.phase, getattr(event, "done", 0))), journal_module.NEWEST)
    phases = {phase for phase, _ in said}
    assert "all layers" in phases and not phases & {"head", "backbone: features", "backbone: statistics", "all layers: finding the rate"}


def test_a_checkpoint_executes_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("executed",)

    torch.save({"phase": Evil()}, tmp_path / "head.pt")
    assert checkpoints.load_phase(Journal(tmp_path), "head", torch.nn.Linear(1, 1), ignore_event) is None


def test_no_room_for_a_checkpoint_is_said_and_no_end(pictures, tmp_path, monkeypatch):
    def full_disk(path, fill):
        raise OSError(28, "No space left on device")

    keep = files.write_atomic
    monkeypatch.setattr(files, "write_atomic", lambda path, fill: (full_disk if ".at-" in path.name else keep)(path, fill))
    said = []
    train_way("full", pictures, tmp_path, lambda event: said.append(getattr(event, "note", "")), lr="3e-3", checkpoint_minutes=0.0)
    assert any("cannot write a checkpoint to" in note and "; training continues without it" in note and "No space left on device" in note for note in said)


def test_the_smoothed_loss_is_restored_in_main_memory():
    with fake_gpu() as gpu:
        with torch.device(gpu):
            model = torch.nn.Linear(2, 2)
        learn = SimpleNamespace(model=model, opt=SimpleNamespace(load_state_dict=lambda state: None), cbs=[])
        learn.recorder = SimpleNamespace(smooth_loss=AvgSmoothLoss())
        state = {"model": model.state_dict(), "optimizer": {"state": [], "hypers": []}, "callbacks": {}, "smooth_loss": [3, 0.5]}
        scaler = {"scale": 65536.0}  # of fp16 on CUDA, resumed on a device without
        checkpoints._restore_state(learn, {**state, "train_iter": 3, "pending": 0, "scaler": scaler})
        assert learn.recorder.smooth_loss.count == 3 and learn.recorder.smooth_loss.val.device.type == "cpu"


def test_the_random_generator_of_mps_is_saved_and_restored(monkeypatch):
    restored = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: torch.arange(4, dtype=torch.uint8))
    monkeypatch.setattr(torch.mps, "set_rng_state", restored.append)
    state = checkpoints._get_random_state()
    checkpoints._set_random_state(state)
    assert len(restored) == 1 and torch.equal(restored[0], torch.arange(4, dtype=torch.uint8))
    checkpoints._set_random_state({name: value for name, value in state.items() if name != "mps"})  # of an earlier version
    assert len(restored) == 1


def test_equal_callbacks_keep_their_own_states_and_new_ones_start_anew():
    class Counter(Callback):
        def __init__(self, count):
            self.count = count

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    class Other(Counter):
        pass

    def learner(*callbacks):
        model, smooth = torch.nn.Linear(1, 1), AvgSmoothLoss()
        smooth.count, smooth.val = 1, torch.tensor(0.5)
        opt = SimpleNamespace(state_dict=lambda: {"state": [], "hypers": []}, load_state_dict=lambda state: None)
        return SimpleNamespace(model=model, opt=opt, cbs=callbacks, recorder=SimpleNamespace(smooth_loss=smooth), train_iter=1)

    resumed = learner(Counter(0), Other(7), Counter(0))
    assert checkpoints._restore_state(resumed, checkpoints._collect_state(learner(Counter(1), Counter(2)))) == ["Other"]
    assert [callback.count for callback in resumed.cbs] == [1, 7, 2]


def test_a_checkpoint_of_more_processes_is_placed_within_the_epoch():
    learn = SimpleNamespace(dls=SimpleNamespace(train=[0]))
    assert checkpoints.place_checkpoint({"batch": 1, "processes": 2}, learn)["batch"] == 1
