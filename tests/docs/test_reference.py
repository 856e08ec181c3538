"""The reference pages: generated ones are as the code says, the others name all that there is."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys

import tlfast
from tests.helpers.pages import DOCS
from tests.helpers.paths import ROOT
from tlfast import tasks
from tlfast.cli import app
from tlfast.cli.formatting import list_setting_rows
from tlfast.commands.usual_speeds import KINDS, USUAL_SPEEDS
from tlfast.core import run_files
from tlfast.core.metrics import EPOCH_METRICS, FIGURE_TITLES
from tlfast.tasks import resolve
from tlfast.training.types import MEASURES

REFERENCE = DOCS / "reference"
TABLE = re.compile(r"^\|.*\|\n\|[ |:-]+\|\n((?:\|.*\|\n)*)", re.MULTILINE)


def rows(page: str) -> list[list[str]]:
    """Return the cells of all tables of a reference page, without their headers."""
    lines = "".join(TABLE.findall((REFERENCE / page).read_text(encoding="utf-8"))).splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_generated_pages_are_as_the_code_says():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, ROOT / "scripts" / "docs_reference.py", "--check"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_file_of_a_run_is_described():
    page = (REFERENCE / "run-folder.md").read_text(encoding="utf-8")
    for name, file in vars(run_files).items():
        if name.isupper() and name not in ("HEAD_FILE", "EXAMPLE_FILE"):  # in repositories of the hub, and in bundles
            assert file in page


def test_settings_table_is_the_declarations():
    flags = [[f"`{flag}`", default, meaning] for flag, default, meaning in list_setting_rows()]
    assert [row for row in rows("settings.md") if row[0].startswith("`--")] == flags


def test_tasks_table_is_the_registry():
    found = {row[0]: row for row in rows("tasks.md")}
    for name, task in tasks.registered_tasks().items():
        chosen = resolve.resolve_settings(task, None, {})
        row = found[f"[`{name}`](#{name})"]
        assert row[1:4] == [str(len(task.classes)), f"`{chosen.arch}`", str(chosen.size)]
        assert task.licence in row[4]


def test_metrics_table_is_the_declarations():
    each_epoch = {name: "yes" if name in EPOCH_METRICS else "" for name in FIGURE_TITLES}
    shown = [[row[0], row[1], row[3]] for row in rows("metrics.md")]
    assert shown == [[f"`{name}`", title, each_epoch[name]] for name, title in FIGURE_TITLES.items()]
    assert all(row[4] for row in rows("metrics.md"))


def test_usual_speeds_are_the_declarations():
    """A kind of machine without a figure has a dash in every column."""
    shown = {row[0]: row[1:] for row in rows("speeds.md") if row[0] in KINDS.values() and len(row) == 1 + len(MEASURES)}
    declared = {(usual.kind, usual.measure): f"{usual.per_core:,.0f}" for usual in USUAL_SPEEDS}
    assert shown == {title: [declared.get((kind, name), "-") for name in MEASURES] for kind, title in KINDS.items()}
    assert ["-"] * len(MEASURES) in shown.values()


def test_every_command_has_a_section_with_its_options():
    text = (REFERENCE / "commands.md").read_text(encoding="utf-8")
    groups = [("", app.app), ("", app.use_app), ("data ", app.data_app), ("cache ", app.cache_app)]
    names = [f"{group}{command.name}" for group, typer in groups for command in typer.registered_commands]
    assert sorted(re.findall(r"^## tlfast (.+)$", text, re.MULTILINE)) == sorted(names)


def test_every_public_name_is_on_the_page_of_the_python_api():
    text = (REFERENCE / "python.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^::: tlfast\.(\w+)$", text, re.MULTILINE)) - {"testing"} | set(re.findall(r"`tlfast\.(__\w+__)`", text))
    assert documented == set(tlfast.__all__)


def test_every_dependency_is_listed_with_its_reason():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = config["options"]["install_requires"].split("\n") + "\n".join(config["options.extras_require"].values()).split("\n")
    names = {re.match(r"[\w.-]+", line.strip())[0] for line in wanted if line.strip()}
    listed = {row[0].strip("`"): row for row in rows("dependencies.md")}
    assert names == set(listed)
    assert all(len(row[1]) > 10 and row[2] for row in listed.values())
