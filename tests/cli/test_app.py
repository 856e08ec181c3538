from __future__ import annotations

import errno
import os
import re
import signal
from pathlib import Path

import pytest
import typer

from tests.helpers.command_line import TINY, python
from tests.helpers.paths import ROOT
from tlfast.cli import app
from tlfast.cli.app import main
from tlfast.core import system
from tlfast.testing import draw_image

GROUPS = [("", app.app), ("", app.use_app), ("data", app.data_app), ("cache", app.cache_app)]

COMMANDS = [f"{group} {command.name}".strip() for group, app in GROUPS for command in app.registered_commands]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_line_in_the_readme(command):
    assert re.search(rf"^\|.*`tlfast {command}\b", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


def no_label(folder):
    (folder / "one.csv").write_text("path,label\na.png,\n")
    return folder / "one.csv"


def text_named_jpg(folder):
    for label in "ab":
        draw_image(folder / "texts" / label / "1.jpg", (0, 0, 0), 1)
        (folder / "texts" / label / "2.jpg").write_text("a text")
    return folder / "texts"


def single_image(folder):
    for i in range(3):
        draw_image(folder / "few" / "a" / f"{i}.png", (0, 0, 0), i)
    draw_image(folder / "few" / "b" / "1.png", (0, 0, 0), 1)
    return folder / "few"


def one_class(folder):
    draw_image(folder / "single" / "a" / "1.png", (0, 0, 0), 1)
    return folder / "single"


def empty(folder):
    (folder / "void").mkdir()
    return folder / "void"


# What is typed (a function makes a path), the exit code, and the line that answers.
WRONG = {
    "unknown task": (["train", "fre"], 2, "unknown task 'fre'\n  Did you mean 'fer'?"),
    "unknown path": (["train", "no/such"], 2, "no/such: no such folder or file"),
    "unknown arch": (["train", "digits", "--arch", "mobilenet_v2"], 2, "--arch 'mobilenet_v2' is not a timm model\n  Did you mean"),
    "empty folder": (["train", empty], 1, "no images in"),
    "one class": (["train", one_class], 1, "has only one class, 'a'"),
    "class with one image": (["train", single_image], 1, "class 'b' has 1 image"),
    "text named .jpg": (["train", text_named_jpg, *TINY], 1, "2 of 4 images cannot be read, the first:"),
    "missing CSV column": (
        ["train", no_label, "--path-col", "file"],
        2,
        "one.csv has no column 'file'; it has: path, label\n  Name the column",
    ),
    "label missing": (["train", no_label], 1, "one.csv line 2: no label for a.png"),
    "size 0": (["train", "digits", "--size", "0"], 2, "--size 0 must lie between 8 and 2048"),
    "fold 9": (["train", "digits", "--fold", "9"], 2, "--fold 9 must lie between 0 and 4"),
    "no such device": (["train", "digits", "--device", "mps"], 2, "--device mps: torch finds no such device"),
    "no such weights": (["train", "digits", "--weights", "w.pth"], 2, "--weights w.pth: no such file"),
    "no data yet": (["train", "weeds", "--weights", "none"], 1, "no images of task 'weeds' in data/weeds\n  download them: tlfast data get weeds"),
    "unknown run": (["interpret", "fer"], 1, "no run 'fer' in exports\n  If it is a task or a folder of images, train first: tlfast train fer"),
    "unknown run to predict": (["predict", "20260101-x", "a.png"], 1, "no run '20260101-x' in exports"),
    "path and data": (["train", empty, "--data", "x"], 2, "are given\n  Give the path alone, or a table as --data"),
    "unknown task to import": (["data", "import", "fre", "x"], 2, "unknown task 'fre'"),
    "two strategies": (["train", "digits", "--full", "--partial"], 2, "--full and --partial are both given\n  Give only one of them"),
    "number that is a word": (["train", "digits", "--epochs", "three"], 2, "--epochs 'three' is not a whole number"),
    "number with a comma": (["train", "digits", "--valid-pct", "0,2"], 2, "--valid-pct '0,2' is not a number"),
    "option of a command": (["interpret", "digits", "--k", "0"], 2, "invalid value for '--k': must be greater than or equal to 1\n  See"),
    "unknown option": (["train", "digits", "--epoch", "3"], 2, "no such option: --epoch (Possible options: --"),
    "unknown command": (["trian"], 2, "no such command 'trian'. Did you mean 'train'?\n  See"),
    "missing argument": (["interpret"], 2, "missing argument 'run'\n  See"),
    "no task": (["train"], 2, "no task is given\n  Give a task or the path"),
    "runs of nothing": (["runs", "fer"], 1, "no run 'fer' in exports"),
    "config of nothing": (["train", "digits", "--config", "x.toml"], 2, "--config x.toml: No such file or directory"),
}


@pytest.mark.parametrize("case", WRONG, ids=list(WRONG))
def test_wrong_input_gets_one_clear_line(cli, tmp_path, case):
    typed, code, words = WRONG[case]
    outcome = cli(*(part(tmp_path) if callable(part) else part for part in typed))
    assert (outcome.code, "Traceback" in outcome.err) == (code, False), outcome.err
    assert (words in outcome.err and outcome.err.startswith("error: ")) or f"error: {words}" in outcome.err
    assert outcome.out == ""


def test_errors_as_json_and_with_traceback(cli):
    assert cli("train", "fre", "--json").json == {"error": "unknown task 'fre'", "hint": "Did you mean 'fer'?"}
    outcome = cli("train", "fre", "--debug")
    assert "Traceback" in outcome.err and outcome.code == 2


def test_errors_of_the_parser_as_json(cli):
    outcome = cli("train", "digits", "--epoch", "3", "--json")
    assert outcome.code == 2 and outcome.json["error"].startswith("no such option: --epoch") and "train --help" in outcome.json["hint"]


@pytest.mark.parametrize("group, prefix", [(group, prefix) for prefix, group in GROUPS])
def test_no_option_or_argument_takes_an_empty_value(cli, group, prefix):
    for name, command in typer.main.get_command(group).commands.items():
        arguments = ["digits" for parameter in command.params if parameter.param_type_name == "argument" and parameter.required]
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.is_flag:
                outcome = cli(*prefix.split(), name, *arguments, parameter.opts[0], "")
                assert outcome.code == 2 and outcome.err.count("\n") == 2, (name, parameter.opts)
                assert f"{parameter.opts[0]} is empty" in outcome.err or "valid number" in outcome.err or "valid int" in outcome.err, (name, parameter.opts)


def test_an_empty_argument_is_refused(cli):
    for words, name in ((("train", ""), "TASK"), (("predict", "digits", "a.png", ""), "SOURCES"), (("evaluate", ""), "RUN")):
        outcome = cli(*words)
        assert outcome.code == 2 and f"{name} is empty" in outcome.err and "variable of the shell" in outcome.err
    assert "--allow-host is empty" in cli("serve", "digits", "--allow-host", ",").err


def test_a_path_with_a_table_as_data_names_the_run(cli, folder):
    draw_image(folder / "red" / "copy.png", (0, 0, 0), 1)
    draw_image(folder / "red" / "copy2.png", (0, 0, 0), 1)
    table = cli("data", "check", folder, "--drop", "duplicates", "--json").json["table"]
    trained = cli("train", folder, "--data", table, *TINY, "--epochs", 1, "--no-onnx", "--json")
    assert trained.code == 0 and trained.json["folder"].startswith(f"exports/{folder.name}/"), trained.err
    assert sum(trained.json["data"]["counts"]["train"].values()) + sum(trained.json["data"]["counts"]["valid"].values()) == 37
    refused = cli("train", folder, "--data", folder)
    assert refused.code == 2 and "both the path" in refused.err and "a table as --data" in refused.err


def test_train_takes_a_folder_as_data_without_a_task(cli, folder):
    by_path, by_option = (cli("train", *named, *TINY, "--dry-run", "--json") for named in ([folder], ["--data", folder]))
    assert by_option.code == 0, by_option.err
    assert by_option.json == by_path.json and by_option.json["settings"]["task"] == "pictures"


def test_help_lists_and_checks_import_nothing_heavy(folder):
    heavy = "{'torch', 'fastai', 'timm', 'pandas', 'sklearn', 'matplotlib'}"
    code = f"""
import sys
from pathlib import Path
from typer.testing import CliRunner
from tlfast.cli.app import app
for line in (["--help"], ["train", "--help"], ["tasks"], ["runs"], ["data", "check", {str(folder)!r}]):
    assert CliRunner().invoke(app, line).exit_code == 0, line
print({heavy} & set(sys.modules))
"""
    done = python(code)
    assert done.stdout.strip() == "set()", done.stderr


def test_shell_completion_knows_commands_tasks_and_backbones():
    environment = {"_TLFAST_COMPLETE": "complete_bash", "COMP_WORDS": "tlfast train we", "COMP_CWORD": "2"}
    code = "import sys; sys.argv = ['tlfast']; from tlfast.cli import main; main()"
    assert python(code, **environment).stdout.split() == ["weeds"]
    commands_found = python(code, **{**environment, "COMP_WORDS": "tlfast int", "COMP_CWORD": "1"}).stdout.split()
    assert commands_found == ["interpret"]
    archs_found = python(code, **{**environment, "COMP_WORDS": "tlfast train fer --arch mobilenetv2_1", "COMP_CWORD": "4"}).stdout.split()
    assert archs_found == ["mobilenetv2_100", "mobilenetv2_110d", "mobilenetv2_120d", "mobilenetv2_140"]


def test_the_script_of_the_completion_is_for_the_command(monkeypatch, capsys):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    with pytest.raises(SystemExit):
        app.app(["--show-completion", "bash"], prog_name="python -m tlfast")
    script = capsys.readouterr().out
    assert script.rstrip().endswith("complete -o default -F _tlfast_completion tlfast") and "_TLFAST_COMPLETE=" in script


def test_interrupted_command_ends_with_130(cli, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(system, "package_versions", interrupt)
    outcome = cli("doctor")
    assert outcome.code == 130 and "interrupted" in outcome.err


@pytest.mark.parametrize(("number", "said"), [(errno.EROFS, "cannot write"), (errno.ENOSPC, "cannot write"), (errno.EACCES, "no access to")])
def test_a_run_that_cannot_be_written_to_is_one_clear_error(run, cli, monkeypatch, number, said):
    opened = Path.open

    def refuse(self, *args, **options):
        raise OSError(number, os.strerror(number), str(self))

    def open_to_read(self, mode="r", *args, **options):
        return refuse(self) if "w" in mode else opened(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", open_to_read)
    monkeypatch.setattr(Path, "mkdir", refuse)
    for command in (["interpret", run.folder], ["report", run.folder]):
        outcome = cli(*command)
        assert outcome.code == 1 and said in outcome.err and os.strerror(number) in outcome.err and "unexpected" not in outcome.err


def test_main_hears_a_kill_as_ctrl_c(monkeypatch):
    from tlfast.cli import app

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(app, "app", lambda: signal.raise_signal(signal.SIGTERM))
    try:
        with pytest.raises(KeyboardInterrupt):
            main()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_removed_current_folder_is_one_error(cli, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    outcome = cli("runs")
    assert outcome.code == 2 and "error: the current folder was removed" in outcome.err and "Change to another one" in outcome.err
