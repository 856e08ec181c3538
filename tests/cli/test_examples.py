"""The examples at the end of each command's help, and the panels of the program's help."""

from __future__ import annotations

import re

import pytest

from tests.helpers.documented import run_command
from tlfast.cli import app
from tlfast.cli.examples import EXAMPLES
from tlfast.cli.registration import PANELS
from tlfast.core.settings import declared_settings, flag_name

GROUPS = [("", app.app), ("", app.use_app), ("data", app.data_app), ("cache", app.cache_app)]
COMMANDS = [f"{group} {command.name}".strip() for group, app in GROUPS for command in app.registered_commands]
LINES = [line for lines in EXAMPLES.values() for line in lines]


def test_every_command_has_two_examples_of_itself():
    assert set(EXAMPLES) == set(COMMANDS)
    for name, lines in EXAMPLES.items():
        assert len(lines) == 2 and all(re.match(rf"tlfast {name}\b", line) for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns_and_ends_with_the_examples(cli, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    outcome = cli(*name.split(), "--help")
    assert outcome.code == 0 and "--json" in outcome.out and "…" not in outcome.out
    lines = [line.strip() for line in outcome.out.splitlines() if line.strip()]
    assert lines[-3:] == ["Examples", *EXAMPLES[name]]


def test_help_of_train_lists_every_setting(cli):
    text = cli("train", "--help").out
    assert all(re.search(rf"{flag_name(name)[:20]}[ ,…]", text) for name in declared_settings())


@pytest.mark.parametrize("line", LINES)
def test_example_runs(workspace, line):
    outcome = run_command(line)
    assert outcome.code == 0, outcome.err


def test_help_of_the_program_lists_the_commands_in_panels(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = cli("--help").out
    assert re.findall(r"^╭─ (\w+) ─", text, re.MULTILINE) == ["Options", *PANELS]
    sections = dict(zip(PANELS, re.split(r"^╭─.*$", text, flags=re.MULTILINE)[2:], strict=True))
    listed = {panel: re.findall(r"^│ ([\w-]+)  ", section, re.MULTILINE) for panel, section in sections.items()}
    assert listed["Train"] == ["train", "lr-find", "archs", "compare"] and listed["Use"] == ["predict", "export", "serve", "push", "pull"]
