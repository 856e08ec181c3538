"""`tlfast train --gpus` with two processes on the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from fastai.callback.training import GradientClip
from safetensors import safe_open

import tlfast
from tests.helpers.command_line import TINY
from tlfast.commands.train_processes import HalveBatchError, PeerLostError, run_worker
from tlfast.core import Interrupted, Journal, Settings, UsageError
from tlfast.core.journal import list_states, open_journal, read_facts
from tlfast.core.run_files import PREDICTIONS_FILE
from tlfast.data import Task
from tlfast.data.sources import open_data
from tlfast.tasks import folder_task

TOGETHER = ["--full", "--gpus", "2", "--device", "cpu", "--epochs", "3", "--freeze-epochs", "1", "--bs", "4", "--amp", "off", "--checkpoint-minutes", "0"]
IN_PYTHON = {"full": True, "gpus": 2, "device": "cpu", "epochs": 3, "freeze_epochs": 1, "bs": 4, "amp": "off", "checkpoint_minutes": 0}  # the same
SAME = ["phase", "epoch", "train_loss", "valid_loss", "accuracy", "macro_f1"]  # columns of history.csv without times


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tlfast", *map(str, arguments)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    assert "Traceback" not in err
    return out, err


def wait_for_checkpoint(process: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    """Wait until a training has written a checkpoint."""
    while not list(folder.glob(f"exports/pictures/*.unfinished/{pattern}")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def find_rank(number: int, folder: Path) -> int:
    """Return the process with this rank that trains in `folder`."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            values = (path / "environ").read_bytes().split(b"\0")
            if f"RANK={number}".encode() in values and (path / "cwd").resolve() == folder:
                return int(path.name)
        except OSError:
            continue
    raise AssertionError(f"no process {number}")


def read_history(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "exports" / "pictures" / name / "history.csv")[SAME]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> tuple[Path, tlfast.Run]:
    """The folder of a training by two processes, and its run. The training was started from Python."""
    folder = tmp_path_factory.mktemp("together")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TLFAST_CACHE", str(folder / "cache"))
        run = tlfast.train(pictures, arch="test_resnet", weights="none", size=32, lr=3e-3, name="whole", quiet=True, **IN_PYTHON)
        yield folder, run


def test_two_processes_leave_one_usual_run(undisturbed: tuple[Path, tlfast.Run], cli, pictures: Path) -> None:
    folder, run = undisturbed
    assert sorted(path.name for path in run.folder.parent.iterdir()) == ["latest", "whole"]
    assert run.manifest["settings"]["gpus"] == 2
    assert list(read_history(folder, "whole")["phase"]) == ["head"] + ["all layers"] * 3
    with safe_open(run.folder / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "module." in name]  # noqa: SIM118 (not a dict)
    expected = [row.path for row in open_data(folder_task(pictures), Settings(task="pictures", data=str(pictures))).part("valid")]
    assert list(pd.read_parquet(run.folder / PREDICTIONS_FILE)["path"]) == expected
    evaluated = cli("evaluate", run.folder.resolve(), "--json")
    assert evaluated.code == 0, evaluated.err
    assert evaluated.json["evaluation"]["accuracy"] == read_history(folder, "whole")["accuracy"].max()


def test_a_killed_process_ends_the_training_and_resume_continues_it(undisturbed: tuple[Path, tlfast.Run], cli, tmp_path: Path, pictures: Path) -> None:
    process = start(tmp_path, "train", pictures, *TINY, *TOGETHER, "--name", "whole", "--no-onnx")
    wait_for_checkpoint(process, tmp_path, "all-layers.at-00001-*2.pt")  # within the second epoch
    os.kill(find_rank(1, tmp_path), signal.SIGKILL)
    _, err = finish(process, 1)
    assert "error: the training was ended: process 1 by SIGKILL" in err
    assert err.count("error:") == 1
    assert "--resume whole" in err
    assert cli("train", pictures, "--full", "--resume").code == 0
    pd.testing.assert_frame_equal(read_history(tmp_path, "whole"), read_history(undisturbed[0], "whole"))
    assert not list(tmp_path.glob("exports/pictures/*.unfinished"))


def test_interrupted_then_resumed_by_one_process(undisturbed: tuple[Path, tlfast.Run], cli, tmp_path: Path, pictures: Path) -> None:
    process = start(tmp_path, "train", pictures, *TINY, *TOGETHER, "--name", "whole", "--no-onnx")
    wait_for_checkpoint(process, tmp_path, "all-layers.at-00001-*1.pt")
    process.send_signal(signal.SIGINT)
    _, err = finish(process, Interrupted.exit_code)
    assert "interrupted; the checkpoints are in" in err and "To resume: tlfast train" in err
    assert err.count("error:") == 1
    assert cli("train", pictures, "--full", "--resume", "--gpus", 1).code == 0
    history, expected = read_history(tmp_path, "whole"), read_history(undisturbed[0], "whole")
    pd.testing.assert_frame_equal(history[:2], expected[:2])  # the head, and the epoch before the interruption
    assert len(history) == len(expected)


def test_torchrun_with_depth(tmp_path: Path, pictures: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tlfast"]
    command += ["train", str(pictures), *TINY, "--depth", "2", "--views", "2", "--epochs", "1", "--freeze-epochs", "1", "--device", "cpu"]
    command += ["--name", "t", "--json", "--sync-bn", "--no-onnx"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == "t"  # of the first process only
    assert json.loads((tmp_path / "exports" / "pictures" / "t" / "run.json").read_text())["settings"]["gpus"] == 2


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["train", "--gpus", 2], "--gpus divides the batches of a backbone among GPUs, but only the head is trained", "use --full or --depth"),
        (["train", "--full", "--gpus", 2], "--gpus 2: torch finds no GPU with CUDA", "--device cpu to train in 2 processes on the cores"),
        (["compare", "--gpus", 2], "--gpus applies to one training", "Leave out --gpus"),
        (["lr-find", "--full", "--gpus", 2], "--gpus 2: lr-find uses one process", "Leave out --gpus"),
        (["train", "--full", "--gpus", 0], "--gpus 0 must lie between 1 and 4096", ""),
    ],
)
def test_where_several_processes_cannot_train(cli, pictures: Path, monkeypatch, arguments: list[object], message: str, hint: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    command, *flags = arguments
    outcome = cli(command, pictures, *TINY, *flags)
    assert outcome.code == 2
    assert message in outcome.err
    assert hint in outcome.err


def test_the_hint_for_a_killed_first_process_names_the_run(tmp_path: Path) -> None:
    from tlfast.commands import train_processes

    train_processes._write_failure(tmp_path, 1, PeerLostError("another process has ended", ""))
    training = train_processes.Training(Task("t", ""), Settings(task="digits", depth="all", name="mine"))
    cause = train_processes._find_cause(tmp_path, training, {0: -9})
    assert cause.message == "the training was ended: process 0 by SIGKILL"
    assert cause.hint == "If memory ran out, use a smaller --bs. To resume: tlfast train digits --resume mine"


def test_callbacks_cannot_be_given_to_other_processes(pictures: Path) -> None:
    with pytest.raises(UsageError, match="cbs are given with gpus=2: other processes cannot receive them"):
        tlfast.train(pictures, full=True, gpus=2, device="cpu", cbs=[GradientClip()])


def test_out_of_memory_starts_again_with_half_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlfast.commands import train, train_processes

    resumed, notes = [], []
    settings = Settings(task="digits", depth="all", out=str(tmp_path), gpus=2, device="cpu")

    def pretend(module: str, argument: str, count: int) -> dict[int, int]:
        request = train_processes.read_request(Path(argument))
        resumed.append(request.resume)
        if len(resumed) == 2:
            (Path(argument) / train_processes.RESULT).write_text("exports/t/run")
            return {}
        error = HalveBatchError("out of memory in process 1 at --bs 64", "", "all layers")
        train._record_halving(journal, settings, error)
        assert error.hint == f"To resume with half the batch: tlfast train digits --out {tmp_path} --resume first"
        train_processes._write_failure(Path(argument), 0, PeerLostError("another process has ended", ""))
        train_processes._write_failure(Path(argument), 1, error)
        return {1: 1}

    monkeypatch.setattr(train_processes, "launch", pretend)
    with open_journal(str(tmp_path), "digits", "first", settings.to_dict()) as journal:
        (journal.folder / "all-layers.at-00001-0000002.pt").touch()
        (journal.folder / "head.pt").touch()
        folder = train_processes.train_in_processes(train_processes.Training(Task("t", ""), settings), "worker", notes.append)
        assert read_facts(journal.folder).halvings == 1
        assert [path.name for path in list_states(journal.folder)] == ["head.pt"]  # the phase starts again
    assert folder == "exports/t/run"
    assert resumed == ["", "first"]
    assert [note.note for note in notes] == [
        "out of memory in process 1 at --bs 64: starting again with half as many images in a batch, and twice as many batches per step"
    ]


def test_a_run_that_was_written_before_ctrl_c_is_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlfast.commands import train_processes

    def finish_and_interrupt(module: str, argument: str, count: int) -> dict[int, int]:
        (Path(argument) / train_processes.RESULT).write_text("exports/t/run")
        train_processes._write_failure(Path(argument), 1, Interrupted("interrupted"))
        raise KeyboardInterrupt

    monkeypatch.setattr(train_processes, "launch", finish_and_interrupt)
    settings = Settings(task="digits", depth="all", out=str(tmp_path), gpus=2, device="cpu")
    assert train_processes.train_in_processes(train_processes.Training(Task("t", ""), settings), "worker", print) == "exports/t/run"


def test_the_memory_of_another_process_runs_out_without_loss_of_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlfast.commands import train

    def fail(session: Any, settings: Settings) -> None:
        first.once("tracking", lambda: {"tensorboard": "id"})
        raise HalveBatchError("out of memory in process 1 at --bs 64", "", "all layers")

    settings = Settings(task="digits", depth="all", out=str(tmp_path))
    with open_journal(str(tmp_path), "digits", "first", settings.to_dict()) as first:
        assert first.folder
        (first.folder / "head.pt").touch()
        monkeypatch.setattr(train, "prepare", lambda *arguments: nullcontext(SimpleNamespace(journal=Journal())))
        shared = settings, read_facts(first.folder), first.folder
        monkeypatch.setattr(train.processes, "receive", lambda: shared)
        monkeypatch.setattr(train, "fit", fail)
        with pytest.raises(HalveBatchError):
            train._assist(Task("t", ""), settings, [])
        assert read_facts(first.folder).halvings == 1 and read_facts(first.folder).get("tracking") == {"tensorboard": "id"}


def test_the_error_of_a_process_has_its_traceback_as_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlfast.commands import train, train_processes

    def fail(*arguments: Any) -> None:
        raise ValueError("unlikely")

    monkeypatch.setattr(train, "train_run", fail)
    training = train_processes.Training(None, None)  # type: ignore[arg-type]
    assert run_worker(tmp_path, training, lambda event: None) is None
    cause = train_processes._find_cause(tmp_path, training, {0: 1})
    assert cause.message == "ValueError: unlikely"
    assert "in fail" in str(cause.__cause__)


def test_the_loss_of_another_process_is_not_the_cause(tmp_path: Path) -> None:
    from tlfast.commands import train_processes
    from tlfast.core import DataError

    train_processes._write_failure(tmp_path, 0, PeerLostError("another process has ended", ""))
    train_processes._write_failure(tmp_path, 1, DataError("a.png is damaged", "Restore it"))
    train_processes._write_failure(tmp_path, 2, Interrupted("interrupted"))
    assert train_processes._find_cause(tmp_path, None, {1: 1}).message == "a.png is damaged"  # type: ignore[arg-type]


def test_a_process_that_ends_before_the_training_is_no_interruption(tmp_path: Path) -> None:
    from tlfast.commands import train_processes
    from tlfast.core import TrainingError

    train_processes._write_failure(tmp_path, 0, Interrupted("interrupted"))  # ended by the agent
    cause = train_processes._find_cause(tmp_path, None, {1: 1})  # type: ignore[arg-type]
    assert isinstance(cause, TrainingError) and cause.message == "the training was ended: process 1 with exit code 1"


def test_a_task_whose_functions_other_processes_cannot_import_is_refused(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(root: Path, fold: int | None) -> None:
        return None

    with pytest.raises(UsageError, match="the task mine cannot be sent to them") as caught:
        tlfast.train(tlfast.dataset(Task("mine", "", rows=read), data=pictures), quiet=True, **IN_PYTHON)
    assert 'tlfast.train("mine.py", ...)' in str(caught.value.hint)
    monkeypatch.setattr(read, "__module__", "__main__")  # as in a notebook or a script
    with pytest.raises(UsageError, match="rows of the task mine is defined in this one"):
        tlfast.train(tlfast.dataset(Task("mine", "", rows=read), data=pictures), quiet=True, **IN_PYTHON)
