from __future__ import annotations

import configparser
import re

import pytest

from tests.helpers.paths import ROOT
from tlfast import tasks
from tlfast.cli.formatting import list_setting_rows
from tlfast.tasks import resolve

README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its header."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_settings_table_is_the_declarations():
    assert rows("Settings") == [[f"`{flag}`", default, meaning] for flag, default, meaning in list_setting_rows()]


def test_tasks_table_is_the_registry():
    found = {row[0].strip("`"): row for row in rows("Tasks")}
    for name, task in tasks.registered_tasks().items():
        chosen = resolve.resolve_settings(task, None, {})
        assert found[name][1:4] == [str(len(task.classes)), f"`{chosen.arch}`", str(chosen.size)]
        assert task.licence in found[name][4]


def test_every_dependency_is_listed_with_its_reason():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = config["options"]["install_requires"].split("\n") + "\n".join(config["options.extras_require"].values()).split("\n")
    names = {re.match(r"[\w.-]+", line.strip())[0] for line in wanted if line.strip()}
    listed = {row[0].strip("`"): row for row in rows("Dependencies")}
    assert names == set(listed)
    assert all(len(row[1]) > 10 and row[2] for row in listed.values())


@pytest.mark.parametrize("path", re.findall(r"\]\((?!https?://)([^)#]+)\)", README))
def test_every_linked_file_is_there(path):
    assert (ROOT / path).exists()
