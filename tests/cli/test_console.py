"""What the command line shows of a training."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.command_line import TINY
from tlfast import cli as cli_package
from tlfast.cli import app, console
from tlfast.core import Interrupted, Note, Progress, UsageError
from tlfast.inference.types import Prediction, PredictRow
from tlfast.testing import draw_image


def test_train_prints_its_tables(cli, folder):
    out = cli("train", folder, *TINY, "--epochs", 2).out
    for word in (
        "train loss",
        "macro F1",
        "accuracy",
        "macro average",
        "weighted average",
        "partial fine-tuning of test_resnet",
        "images/s",
        "exports/pictures",
    ):
        assert word in out


def test_control_characters_in_names_do_not_reach_the_terminal(cli, tmp_path):
    for label in ("plain", "[bold]\x1b[31mred $5 $x_"):
        for n in range(6):
            draw_image(tmp_path / "odd" / label / f"{n}\n\x1b]0;title\x07.png", (30 * n, 0, 0), n)
    (tmp_path / "odd" / "plain" / "bad\x1b[2J\n.png").write_bytes(b"no image")
    trained = cli("train", "odd", *TINY, "--name", "r")
    assert trained.code == 1  # one of 13 images is unreadable, which is too many
    (tmp_path / "odd" / "plain" / "bad\x1b[2J\n.png").unlink()
    outcomes = [
        trained,
        cli("train", "odd", *TINY, "--epochs", 1, "--name", "r"),
        cli("interpret", "odd"),
        cli("predict", "odd", "odd"),
        cli("data", "check", "odd"),
    ]
    assert [outcome.code for outcome in outcomes[1:]] == [0, 0, 0, 0], [outcome.err for outcome in outcomes]
    for outcome in outcomes:
        assert not {"\x1b", "\x07"} & set(outcome.out + outcome.err)
    assert r"bad\x1b[2J\n.png" in trained.err
    assert r"[bold]\x1b[31mred" in outcomes[2].out and r"0\n\x1b]0;title\x07.png" in outcomes[3].out


def test_an_interruption_before_the_first_command_has_no_traceback(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "main", interrupt)
    with pytest.raises(SystemExit) as ended:
        cli_package.main()
    assert ended.value.code == Interrupted.exit_code
    assert capsys.readouterr().err == "error: interrupted\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("arguments", ["tasks", "tasks --json", "tasks --help", "--version", "tasks nonsense --json"])
def test_a_full_or_closed_output_gives_no_traceback(arguments):
    code = f"import sys; sys.argv = ['tlfast', *{arguments.split()!r}]; from tlfast.cli import main; main()"
    with open("/dev/full", "w") as full:
        on_full = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    closed = subprocess.run(f"{shlex.join([sys.executable, '-c', code])} >&-", shell=True, stderr=subprocess.PIPE, text=True)
    assert on_full.returncode == 1 and "error: the output cannot be written: No space left on device\n" in on_full.stderr
    assert "Traceback" not in on_full.stderr + closed.stderr and closed.returncode == (2 if "nonsense" in arguments else 0)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_names_that_the_terminal_cannot_show_are_escaped(run, folder, tmp_path, encoding):
    picture = (folder / "red" / "1.png").rename(folder / "日本é.png")
    command = [sys.executable, "-m", "tlfast", "predict", str(run.folder), str(picture)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    shown = subprocess.run(command, capture_output=True, env=environment, check=True).stdout.decode(encoding)
    assert r"\u65e5\u672c" in shown
    found = subprocess.run([*command, "--json"], capture_output=True, env=environment, check=True).stdout.decode(encoding)
    assert json.loads(found)[0]["path"] == str(picture)


def test_an_error_after_the_first_predictions_leaves_valid_json(capsys):
    def rows():
        yield PredictRow("a.png", Prediction("cat", 0.9, {"cat": 0.9, "dog": 0.1}))
        raise UsageError("the disk is full", "Free some space")

    screen = console.Screen(as_json=True)
    with pytest.raises(UsageError) as caught:
        screen.predictions(rows(), None, 0.0)
    screen.error(caught.value)
    out, err = capsys.readouterr()
    assert [row["label"] for row in json.loads(out)] == ["cat"] and "the disk is full" in err


def test_predictions_reach_a_pipe_while_progress_is_on_a_terminal(cli, run, folder, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # the terminal of stderr
    found = cli("predict", run.folder, folder / "red", "--json")
    assert len(found.json) == 12 and "starting" in found.err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert console.Screen().live and not console.Screen(as_json=True).live  # bars would wrap the lines of JSON


def test_names_are_no_emoji(capsys):
    screen = console.Screen()
    screen.note(Note("data", "a:cat:b.jpg"))
    screen.message("run", ":smile:")
    assert capsys.readouterr() == ("run: :smile:\n", "data: a:cat:b.jpg\n")


def test_a_phase_of_unknown_length_has_a_bar_until_the_next_one(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    screen = console.Screen()
    with screen.progress() as bars:
        visible = lambda: [bar.description for bar in bars.bars.tasks if bar.visible]  # noqa: E731
        assert visible() == ["starting"]
        bars(Progress("watching", 0, 0))
        assert visible() == []
        bars(Progress("listing images", 5, 0))
        assert visible() == ["listing images"] and bars.bars.tasks[-1].total is None
        bars(Progress("predicting", 1, 2))
        assert visible() == ["predicting"]
        bars(Progress("predicting", 2, 2))
        assert visible() == []
    assert "listing images" in capsys.readouterr().err


def test_json_is_not_held_back_in_a_pipe(monkeypatch):
    class Pipe(io.StringIO):
        sent = ""

        def flush(self):
            self.sent = self.getvalue()

    monkeypatch.setattr(sys, "stdout", Pipe())
    console.Screen(as_json=True).message("serving at", "http://127.0.0.1:8000")  # the command goes on
    assert json.loads(sys.stdout.sent) == {"serving at": "http://127.0.0.1:8000"}


def test_long_tables_are_cut_off(cli, folder, monkeypatch):
    monkeypatch.setattr(console, "LISTED", 2)
    monkeypatch.setattr(console, "LISTED_CLASSES", 2)
    for number in range(5):
        (folder / "red" / f"{number}.png").write_bytes(b"no image")
    lines = [line.split() for line in cli("data", "check", folder).out.splitlines()]
    assert sum("not an image" in " ".join(line) for line in lines) == 2 and ["3", "more", "..."] in lines
    assert ["1", "more", "...", "..."] in lines and ["all", "30", "6"] in lines and not any(line[:1] == ["red"] for line in lines)
