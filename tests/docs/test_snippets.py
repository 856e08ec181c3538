"""The commands and the Python of the documentation: all are parsed, and all run but those that say what they need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.example import SybilFailure
from sybil.parsers.markdown import CodeBlockParser

from tests.helpers.documented import run_command, split_command
from tests.helpers.pages import NOT_TESTED, PAGES, Block, blocks, inline_commands, name
from tlfast.cli.app import app
from tlfast.cli.registration import parse_text
from tlfast.core import UsageError
from tlfast.core.setting_values import check_value
from tlfast.core.settings import declared_settings

LANGUAGES = {"console", "sh", "python", "toml", "text", "json", ""}
BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = sorted({(name(block.page), line) for block in BLOCKS for line in block.commands})
INLINE = sorted({(name(page), line) for page in PAGES for line in inline_commands(page)})
# Words of the text that stand for a value, such as `--depth N`.
PLACEHOLDERS = {"N": "2", "M": "2"}
COMMAND = typer.main.get_command(app)
ERROR = '{"error"'  # a block that shows it is one of a command that fails

finished: set[str] = set()  # commands that have run in this process


def parse(line: str) -> tuple[Any, dict[str, Any]]:
    """Parse a line `tlfast ...` without running it; return the command and the values. Raises an error of the parser for an unknown option."""
    command: Any = COMMAND
    arguments = split_command(line)
    context = command.make_context("tlfast", [PLACEHOLDERS.get(word, word) for word in arguments] or ["--help"], resilient_parsing=not arguments)
    while hasattr(command, "commands"):
        words = [*context._protected_args, *context.args]
        found, command, rest = command.resolve_command(context, words)
        context = command.make_context(found, rest, parent=context)
    return command, context.params


def check_command(line: str) -> None:
    _, values = parse(line)
    declared = declared_settings()
    for key, value in values.items():
        if key in declared and value is not None and set(declared) <= set(values):
            check_value(key, parse_text(key, value), declared)


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_command_in_a_block_parses(page, line):
    check_command(line)


@pytest.mark.parametrize(("page", "line"), INLINE)
def test_command_in_the_text_names_a_command_and_its_options(page, line):
    words = split_command(re.sub(r"\.\.\.", "", line))
    command: Any = COMMAND
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        command = command.commands[words.pop(0)]
    options = {option for param in command.params for option in (*param.opts, *param.secondary_opts)} | {"--help", "--install-completion"}
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= options


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{name(block.page)}:{block.line}")
def test_block_is_of_a_known_kind(block: Block):
    assert block.language in LANGUAGES
    if block.language in ("console", "sh") and block.runnable:
        commands = [line for line in block.text.splitlines() if line and not line.startswith("#")] if block.language == "sh" else block.commands
        assert commands == block.commands, f"mark the block as '{NOT_TESTED}...'"


def test_the_parser_of_this_test_refuses_what_the_program_refuses():
    for line in ("tlfast train digits --epoch 3", "tlfast trian digits", "tlfast train digits --depth deep", "tlfast predict digits a.png --top none"):
        with pytest.raises((typer.BadParameter.__base__, UsageError)):
            check_command(line)


def run_commands(example: Example) -> str | None:
    """Evaluate a block of commands: each must end with exit code 0, or fail if the block shows an error.

    A command that several pages show runs once in a test process: they share a folder.
    """
    block = Block(Path(example.path), example.line, str(example.region.lexemes["arguments"]), str(example.parsed))
    for line in block.commands if block.runnable else ():
        if line in finished:
            continue
        outcome = run_command(line)
        if bool(outcome.code) != (ERROR in block.text):
            return f"{line}\n{outcome.err}"
        finished.add(line)
    return None


def run_python(example: Example) -> str | None:
    if str(example.parsed).startswith(NOT_TESTED):
        compile(str(example.parsed), str(example.path), "exec")
        return None
    return PythonEvaluator()(example)


SYBIL = Sybil(parsers=[CodeBlockParser("python", run_python), CodeBlockParser("sh", run_commands), CodeBlockParser("console", run_commands)])
RUNNABLE = [page for page in PAGES if any(block.runnable and block.language in ("python", "sh", "console") for block in blocks(page))]
SKIPPED = {"docs/reference/commands.md"}  # its commands are the examples that tests/cli runs


@pytest.mark.parametrize("page", [page for page in RUNNABLE if name(page) not in SKIPPED], ids=name)
def test_blocks_of_a_page_run_in_order(page, shared_workspace):
    """An example that fails raises SybilFailure. No block is left out: Sybil finds as many as the parser of these tests."""
    examples = list(SYBIL.parse(page).examples())
    for example in examples:
        example.evaluate()
    assert len(examples) == sum(block.language in ("python", "sh", "console") for block in blocks(page)) > 0


@pytest.mark.parametrize(
    "text",
    [
        "```sh\ntlfast tasks --jsn\n```",
        "```console\n$ tlfast runs nothing\nerror: no run\n```",
        '```console\n$ tlfast tasks\n{"error": "none"}\n```',
        "```python\nassert 1 == 2\n```",
    ],
)
def test_a_block_that_does_not_do_as_shown_fails(text, tmp_path, shared_workspace):
    page = tmp_path / "page.md"
    page.write_text(text)
    (example,) = SYBIL.parse(page).examples()
    with pytest.raises((SybilFailure, AssertionError)):
        example.evaluate()
