from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from tlfast.core import TlfastError, UsageError
from tlfast.data import Task
from tlfast.tasks import registry
from tlfast.testing import TINY, draw_image

BIRDS = """
import tlfast

def rows(root, fold):
    return [tlfast.Row(str(path), path.parent.name, "valid" if path.stem in "012" else "train") for path in sorted(root.rglob("*.png"))]

TASK = tlfast.Task(name="birds", title="birds in gardens", classes=("red", "green", "blue"), defaults={defaults}, rows=rows)
"""


TASK = "TASK = tlfast.Task(name='birds', title='birds in gardens', rows=rows)\n"


CATS = """
import shutil, tlfast
TASK = tlfast.Task(name="cats", title="cats", arrange=lambda source, target, beside: shutil.copytree(source, target / "cat"))
"""


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """A file with a task; the tasks that a test loads are forgotten after it."""
    monkeypatch.setattr(registry, "_loaded", {})
    path = tmp_path / "mytask.py"
    path.write_text(BIRDS.replace("{defaults}", repr({**TINY, "epochs": 1})))
    return path


def test_a_task_of_a_file_is_trained_evaluated_and_repeated(cli, birds, folder, monkeypatch):
    assert cli("train", birds, "--data", folder, "--name", "first", "--quiet").code == 0
    monkeypatch.setattr(registry, "_loaded", {})  # as in another process
    evaluated = cli("evaluate", "first", "--json").json
    assert evaluated["evaluation"]["classes"] == ["red", "green", "blue"]
    assert sum(sum(row) for row in evaluated["evaluation"]["confusion"]) == 9
    monkeypatch.setattr(registry, "_loaded", {})
    again = cli("train", "--config", "exports/birds/first/run.json", "--json", "--quiet").json
    assert again["settings"]["task"] == "birds"
    assert again["evaluation"]["confusion"] == evaluated["evaluation"]["confusion"]
    assert registry.train_command("birds", str(folder), {"epochs": 1}) == f"tlfast train {birds} --data {folder} --epochs 1"
    assert registry.train_command("birds", "", {"epochs": 1}, "birds.py") == "tlfast train birds.py --epochs 1"
    assert registry.train_command("fer", "", {"epochs": 1}, "birds.py") == "tlfast train fer --epochs 1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "mytask.py defines no task"),
        ("TASK = 'birds'", "mytask.py defines no task"),
        ("1 / 0", "mytask.py cannot be executed: ZeroDivisionError: division by zero"),
        ("import tlfast\nTASK = tlfast.Task(name='fer', title='mine')", "a task named 'fer' exists already"),
        ("import tlfast\nTASK = tlfast.Task(name='cats', title='cats', classes='cat')", "the classes of the task 'cats' are one string, 'cat'"),
        ("import tlfast\nTASK = tlfast.Task(name='cats', title='cats', full={'depth': 3})", "the settings of the task 'cats' include depth"),
    ],
)
def test_files_without_a_task(birds, text, message):
    birds.write_text(text)
    with pytest.raises(UsageError, match=message):
        registry.find_task(str(birds))


@pytest.mark.parametrize(("rows", "code", "message"), [
    ("[]", 1, "found no image in"),
    ("[tlfast.Row(f'{root}/{n}.png', 'ab'[n % 2], 'val') for n in range(20)]", 2, "'val' is not a split"),
])  # fmt: skip
def test_wrong_rows_of_a_task_file(cli, birds, folder, rows, code, message):
    birds.write_text(f"import tlfast\nTASK = tlfast.Task(name='birds', title='birds', rows=lambda root, fold: {rows})\n")
    refused = cli("train", birds, "--data", folder)
    assert refused.code == code and message in refused.err and str(birds) in refused.err


def test_a_task_file_with_a_dataclass(birds):
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Place:\n    name: str\n"
    birds.write_text(text + birds.read_text())
    assert registry.load_task_file(birds).name == "birds"


def test_an_error_in_the_reader_of_a_task_file_names_the_file(cli, birds, folder):
    birds.write_text("import tlfast\nTASK = tlfast.Task(name='birds', title='birds', rows=lambda root: [])\n")
    refused = cli("train", birds, "--data", folder)
    assert refused.code == 2 and f"rows(root, fold) in {birds} failed: TypeError" in refused.err and "unexpected" not in refused.err


@pytest.mark.parametrize("values", ["path, 1 + int(path.stem) % 2", "str(path), path.parent.name"], ids=["paths and numbers", "text"])
def test_rows_of_a_task_file_may_be_paths_and_numbers_of_any_iterable(birds, folder, values):
    birds.write_text(f"import tlfast\ndef rows(root, fold):\n    for path in root.rglob('*.png'):\n        yield tlfast.Row({values})\n{TASK}")
    rows = registry.load_task_file(birds).read_layout(folder, None)
    assert len(rows) == 36 and all(type(row.path) is type(row.label) is str for row in rows)


def test_an_image_in_two_equal_rows_is_one(birds, folder):
    birds.write_text(f"import tlfast\ndef rows(root, fold):\n    return [tlfast.Row('a.png', 'x'), tlfast.Row('a.png', 'x')]\n{TASK}")
    assert len(registry.load_task_file(birds).read_layout(folder, None)) == 1


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("[tlfast.Row('a.png', 'x'), tlfast.Row('a.png', 'x', 'valid')]", "a.png has two labels, splits or groups"),
        ("[('a.png', 'x')]", "('a.png', 'x') is not a Row"),
        ("[tlfast.Row('a.png', '')]", "a.png has no label"),
        ("[tlfast.Row('a.png', 'x', 'holdout')]", "'holdout' is not a split, for a.png"),
        ("iter([])", "found no image in"),
    ],
)
def test_rows_of_a_task_file_that_are_wrong(birds, folder, rows, problem):
    birds.write_text(f"import tlfast\ndef rows(root, fold):\n    return {rows}\n{TASK}")
    with pytest.raises(TlfastError, match=re.escape(problem)) as caught:
        registry.load_task_file(birds).read_layout(folder, None)
    assert f"rows(root, fold) of {birds}" in caught.value.message


def test_tasks_of_entry_points(monkeypatch):
    moths = Task(name="moths", title="moths at night")
    points = [EntryPoint("moths", "mothpack:TASK", registry.ENTRY_POINTS), EntryPoint("lost", "no_such_package:TASK", registry.ENTRY_POINTS)]
    monkeypatch.setitem(sys.modules, "mothpack", SimpleNamespace(TASK=moths))
    monkeypatch.setattr(registry, "entry_points", lambda group: [point for point in points if point.group == group])
    monkeypatch.setattr(registry, "_installed_tasks", registry._installed_tasks.__wrapped__)
    points.append(EntryPoint("digits", "other:TASK", registry.ENTRY_POINTS))
    monkeypatch.setitem(sys.modules, "other", SimpleNamespace(TASK=Task(name="digits", title="other")))
    lost = pytest.warns(UserWarning, match="the entry point lost of tlfast.tasks cannot be loaded: No module named 'no_such_package'")
    with lost, pytest.warns(UserWarning, match="the entry point digits of tlfast.tasks is not used: a task named 'digits' exists already"):
        found = registry.registered_tasks()
    assert found["moths"] is moths and found["digits"].title != "other"


def test_the_name_of_a_task_is_that_of_a_folder():
    with pytest.raises(UsageError, match="the name of the task 'b d' must start with a letter or digit"):
        registry.register_task(Task(name="b d", title="birds"))


def test_the_name_of_a_data_set_of_the_hub_is_kept():
    assert registry.find_task("hf://datasets/user/birds-1.0")[0].name == "birds-1.0"


def test_a_folder_with_the_name_of_an_installed_task_is_another_task(tmp_path):
    (tmp_path / "weeds").mkdir()
    task, path = registry.find_task(str(tmp_path / "weeds"))
    assert (task.name, task.rows, path) == ("weeds-images", None, str(tmp_path / "weeds"))
    assert registry.find_named_task(task.name, path).rows is None
    assert registry.train_command(task.name, path, {}) == f"tlfast train {path}"
    assert registry.find_task("hf://datasets/user/fer")[0].name == "fer-images"


def test_images_of_a_task_of_a_file_can_be_imported(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_loaded", {})
    path = tmp_path / "my task.py"
    path.write_text(CATS)
    missing = cli("train", path)
    assert missing.code == 1 and f"tlfast data import '{path}' SRC" in " ".join(missing.err.split())
    monkeypatch.setattr(registry, "_loaded", {})
    draw_image(tmp_path / "given" / "a.png", (0, 0, 0), 1)
    assert cli("data", "import", path, tmp_path / "given", "--json").json == {"imported to": str(tmp_path / "data" / "cats")}
    assert "has no download" in cli("data", "get", path).err
