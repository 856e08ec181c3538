from __future__ import annotations

import csv
import errno
import os
import re
from pathlib import Path

import pytest

from tests.helpers.command_line import TINY, python
from tests.helpers.drawing import draw
from tests.helpers.paths import ROOT
from tlfast import tasks
from tlfast.cli import app
from tlfast.core import settings, system

GROUPS = {"": app.app, "data": app.data_app}
COMMANDS = [f"{group} {command.name}".strip() for group, app in GROUPS.items() for command in app.registered_commands]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_a_line_in_the_readme(cli, command):
    outcome = cli(*command.split(), "--help")
    assert outcome.code == 0 and "--json" in outcome.out
    assert re.search(rf"^\| `tlfast {command}\b", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_setting_is_an_option_of_train(cli):
    help_text = cli("train", "--help").out
    for name in settings.declared_settings():
        assert settings.flag_name(name)[:20] in help_text, name


def no_label(folder):
    (folder / "one.csv").write_text("path,label\na.png,\n")
    return folder / "one.csv"


def text_named_jpg(folder):
    for label in "ab":
        draw(folder / "texts" / label / "1.jpg", (0, 0, 0), 1)
        (folder / "texts" / label / "2.jpg").write_text("a text")
    return folder / "texts"


def single_image(folder):
    for i in range(3):
        draw(folder / "few" / "a" / f"{i}.png", (0, 0, 0), i)
    draw(folder / "few" / "b" / "1.png", (0, 0, 0), 1)
    return folder / "few"


def one_class(folder):
    draw(folder / "single" / "a" / "1.png", (0, 0, 0), 1)
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
    "one class": (["train", one_class], 1, "holds one class only, 'a'"),
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
    "no such device": (["train", "digits", "--device", "mps"], 2, "--device mps: torch finds none here"),
    "no such weights": (["train", "digits", "--weights", "w.pth"], 2, "--weights w.pth: no such file"),
    "no data yet": (["train", "weeds", "--weights", "none"], 1, "no images of task 'weeds' in data/weeds\n  download them: tlfast data get weeds"),
    "unknown run": (["interpret", "fer"], 1, "no run 'fer' in exports\n  Train one first: tlfast train fer"),
    "unknown run to predict": (["predict", "20260101-x", "a.png"], 1, "no run '20260101-x' in exports"),
    "path and data": (["train", empty, "--data", "x"], 2, "are given\n  Give a task's name with --data, or the path alone"),
    "unknown task to import": (["data", "import", "fre", "x"], 2, "unknown task 'fre'"),
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


def test_unwritable_out_is_said_before_training(cli, folder, tmp_path):
    (tmp_path / "file").touch()
    outcome = cli("train", folder, *TINY, "--out", tmp_path / "file" / "below")
    assert outcome.code == 1 and "cannot write to" in outcome.err and "--out" in outcome.err


def test_errors_as_json_and_with_traceback(cli):
    assert cli("train", "fre", "--json").json == {"error": "unknown task 'fre'", "hint": "Did you mean 'fer'?"}
    outcome = cli("train", "fre", "--debug")
    assert "Traceback" in outcome.err and outcome.code == 2


def test_typos_of_flags_are_answered_by_the_parser(cli):
    outcome = cli("train", "digits", "--epoch", "3")
    assert outcome.code == 2 and "--epochs" in outcome.err


def test_dry_run_trains_nothing(cli, folder, tmp_path):
    outcome = cli("train", folder, *TINY, "--full", "--dry-run", "--json")
    assert outcome.code == 0
    plan = outcome.json
    assert plan["settings"]["strategy"] == "full" and plan["weights"] == "none (random initialisation)"
    assert plan["data"]["counts"]["train"]["red"] == 10 and plan["parameters"] > 0
    assert not (tmp_path / "exports").exists()
    assert "of which train" in cli("train", folder, *TINY, "--dry-run").out


def test_config_file_and_flags(cli, folder, tmp_path):
    (tmp_path / "mine.toml").write_text('strategy = "full"\narch = "test_resnet"\nweights = "none"\nsize = 48\nepochs = 3\n')
    plan = cli("train", folder, "--config", "mine.toml", "--epochs", 5, "--dry-run", "--json").json["settings"]
    assert (plan["strategy"], plan["size"], plan["epochs"]) == ("full", 48, 5)


def test_train_then_list(cli, folder):
    outcome = cli("train", folder, *TINY, "--epochs", 1, "--json", "--name", "mine")
    assert outcome.code == 0 and outcome.json["run"] == "mine"
    listed = cli("runs", "--json").json
    assert [(row["run"], row["task"], row["accuracy"]) for row in listed] == [("mine", "pictures", outcome.json["evaluation"]["accuracy"])]
    again = cli("train", folder, *TINY, "--name", "mine")
    assert again.code == 2 and "a run named 'mine' exists already" in again.err


def test_deepweeds_shaped_folder_trains_a_resnet50_on_the_official_fold(cli, tmp_path):
    """The whole command of the study, on drawn images: nine classes, five folds of 27 train, 9 val and 9 test images."""
    root = tmp_path / "deepweeds"
    parts = {"train": range(3), "val": range(3, 4), "test": range(4, 5)}
    (root / "labels").mkdir(parents=True)
    names = {}
    for label in range(9):
        for n in range(5):
            names[label, n] = f"201709{10 + n}-10{label:02d}00-{n}.jpg"
            draw(root / "images" / names[label, n], (25 * label, 200, 255 - 25 * label), n)
    for fold in range(5):
        for part, numbers in parts.items():
            lines = [f"{names[label, (n + fold) % 5]},{label}" for label in range(9) for n in numbers]
            (root / "labels" / f"{part}_subset{fold}.csv").write_text("\n".join(["Filename,Label", *lines]) + "\n")
    typed = ["train", "weeds", "--full", "--weights", "none", "--limit", 200, "--epochs", 1, "--size", 64, "--fold", 2, "--data", root]
    outcome = cli(*typed, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["data"]["classes"] == list(tasks.get_task("weeds").classes)
    used = {"train": set(), "valid": set(), "test": set()}
    for row in csv.DictReader((Path(outcome.json["folder"]) / "images.csv").read_text().splitlines()):
        used[row["split"]].add(Path(row["path"]).name)
    for part, split in (("train", "train"), ("val", "valid"), ("test", "test")):
        official = list(csv.DictReader((root / "labels" / f"{part}_subset2.csv").read_text().splitlines()))
        assert used[split] == {row["Filename"] for row in official}
    answer = cli("interpret", "weeds", "--json", "--k", 9, "--split", "test").json
    assert {Path(item["path"]).name for item in answer["top_losses"]} == used["test"]


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


def test_skipped_images_are_named(cli, folder):
    (folder / "red" / "0.png").write_text("no image")
    outcome = cli("train", folder, *TINY, "--epochs", 1)
    assert outcome.code == 0 and f"skipped {folder / 'red' / '0.png'}: not an image that can be read" in outcome.err


@pytest.mark.parametrize(("deep", "last"), [(["--full"], "all layers"), (["--depth", 2], "upper stages")])
def test_lr_find_draws_a_curve_for_each_phase(cli, folder, tmp_path, deep, last):
    tiny = [part for part in TINY if part not in ("--lr", "3e-3")]
    outcome = cli("lr-find", folder, *tiny, *deep, "--json")
    assert outcome.code == 0, outcome.err
    assert list(outcome.json) == ["head", last]
    assert all((tmp_path / found["picture"]).stat().st_size > 5000 and found["suggestion"] > 0 for found in outcome.json.values())
    assert list(cli("lr-find", folder, *TINY, "--json").json) == ["head"]  # a rate that was typed does not stop the search


def test_data_check_names_what_cannot_be_read(cli, folder):
    assert cli("data", "check", folder).code == 0
    (folder / "red" / "0.png").write_text("no image")
    draw(folder / "red" / "grey.png", (0, 0, 0), 5, size=(20, 20))
    outcome = cli("data", "check", folder, "--json")
    assert outcome.code == 1
    summary = outcome.json
    assert summary["sizes"] == {"40x32": 35, "20x20": 1} and summary["modes"] == {"RGB": 36}
    assert [bad["reason"] for bad in summary["unreadable"]] == ["not an image that can be read"]


def test_tasks_and_doctor(cli):
    assert {row["name"] for row in cli("tasks", "--json").json} == set(tasks.registered_tasks())
    facts = cli("doctor", "--json").json
    assert facts["hub"].startswith("https://") and facts["interrupted trainings"] == [] and facts["math libraries"]
    assert facts["versions"]["fastai"] and "cpu" in facts["devices"] and isinstance(facts["problems"], list)


def test_help_lists_and_checks_import_nothing_heavy(folder):
    heavy = "{'torch', 'fastai', 'timm', 'pandas', 'sklearn', 'matplotlib'}"
    code = f"""
import sys
from pathlib import Path
from typer.testing import CliRunner
from tlfast.cli import app
for line in (["--help"], ["train", "--help"], ["tasks"], ["runs"], ["data", "check", {str(folder)!r}]):
    assert CliRunner().invoke(app, line).exit_code == 0, line
print({heavy} & set(sys.modules))
"""
    done = python(code)
    assert done.stdout.strip() == "set()", done.stderr


def test_shell_completion_knows_commands_and_tasks():
    environment = {"_TLFAST_COMPLETE": "complete_bash", "COMP_WORDS": "tlfast train we", "COMP_CWORD": "2"}
    code = "import sys; sys.argv = ['tlfast']; from tlfast.cli import main; main()"
    assert python(code, **environment).stdout.split() == ["weeds"]
    commands_found = python(code, **{**environment, "COMP_WORDS": "tlfast int", "COMP_CWORD": "1"}).stdout.split()
    assert commands_found == ["interpret"]


def test_interrupted_command_ends_with_130(cli, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(system, "package_versions", interrupt)
    outcome = cli("doctor")
    assert outcome.code == 130 and "interrupted" in outcome.err


@pytest.mark.parametrize(("number", "said"), [(errno.EROFS, "cannot write"), (errno.ENOSPC, "cannot write"), (errno.EACCES, "no access to")])
def test_a_run_that_cannot_be_written_to_is_one_clear_error(cli, folder, monkeypatch, number, said):
    run = cli("train", folder, *TINY, "--epochs", 1, "--json").json["folder"]

    def refuse(self, *args, **options):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    for command in (["interpret", run], ["report", run]):
        outcome = cli(*command)
        assert outcome.code == 1 and said in outcome.err and os.strerror(number) in outcome.err and "not expected" not in outcome.err


def test_doctor_says_that_the_cores_are_busy(cli, monkeypatch):
    for load, said in ((0.0, False), (99.0, True)):
        monkeypatch.setattr(system, "load_average", lambda load=load: load)
        problems = cli("doctor", "--json").json["problems"]
        assert any("OMP_WAIT_POLICY=PASSIVE" in problem for problem in problems) == said
