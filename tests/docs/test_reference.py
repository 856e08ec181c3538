from __future__ import annotations

import configparser
import re

import pytest

from tests.helpers.paths import ROOT
from tlfast import tasks
from tlfast.cli.formatting import list_setting_rows
from tlfast.core.metrics import EPOCH_METRICS, FIGURE_TITLES
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


def test_metrics_table_is_the_declarations():
    each_epoch = {name: "yes" if name in EPOCH_METRICS else "" for name in FIGURE_TITLES}
    assert rows("Metrics") == [[f"`{name}`", title, each_epoch[name]] for name, title in FIGURE_TITLES.items()]


def test_every_dependency_is_listed_with_its_reason():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = config["options"]["install_requires"].split("\n") + "\n".join(config["options.extras_require"].values()).split("\n")
    names = {re.match(r"[\w.-]+", line.strip())[0] for line in wanted if line.strip()}
    listed = {row[0].strip("`"): row for row in rows("Dependencies")}
    assert names == set(listed)
    assert all(len(row[1]) > 10 and row[2] for row in listed.values())


@pytest.mark.parametrize("document", sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))))
def test_every_linked_file_is_there(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    missing = [path for path in re.findall(r"\]\((?!https?://)([^)#]+)", text) if not ((ROOT / document).parent / path).exists()]
    assert not missing


MODULES = re.compile(
    r"`((?:tlfast/|tests/|scripts/|cli/|commands/|training/|export/|evaluation/|inference/|models/|tasks/|data/|core/|strategies/)[\w./]+\.(?:py|html))`"
)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/benchmarks.md"])
def test_every_named_module_is_there(document):
    named = MODULES.findall((ROOT / document).read_text(encoding="utf-8"))
    roots = (ROOT, ROOT / "tlfast", ROOT / "tlfast" / "training")
    assert [name for name in named if not any((root / name).is_file() for root in roots)] == []


def test_benchmarks_that_comments_refer_to_are_there():
    sections = set(re.findall(r"^## (.+)$", (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"), re.MULTILINE))
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "tlfast").rglob("*.py"))]
    named = {name for source in sources for name in re.findall(r'docs/benchmarks\.md, "([^"]+)"', source)}
    assert named <= sections
