"""The shape of the package: public names, sizes of functions and files, contracts over packages, strategies known in one place."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PACKAGE = ROOT / "tlfast"
FILES = sorted(PACKAGE.rglob("*.py"))
PACKAGES = sorted(".".join(path.parent.relative_to(ROOT).parts) for path in FILES if path.name == "__init__.py")
MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES if path.name != "__init__.py")
MAX_FILE_LINES, MAX_FUNCTION_LINES, MEDIAN_FUNCTION_LINES = 400, 60, 10
# Where a strategy may be known by its name.
STRATEGY_FILES = {PACKAGE / "core" / "settings.py", *(PACKAGE / "training" / "strategies").glob("*.py")}
STRATEGY_NAMES = {"partial", "depth", "middle", "full"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function, with its decorators."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return node.end_lineno - first + 1


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_resolve(name):
    package = importlib.import_module(name)
    assert len(set(package.__all__)) == len(package.__all__)
    missing = [public for public in package.__all__ if not hasattr(package, public)]
    assert missing == []


@pytest.mark.parametrize("name", PACKAGES)
def test_every_package_says_what_it_is_for(name):
    assert len((importlib.import_module(name).__doc__ or "").strip()) > 20


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_size_of_a_file_and_of_its_functions(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    assert {node.name: length(node) for node in functions(path) if length(node) > MAX_FUNCTION_LINES} == {}


def test_median_size_of_functions():
    lengths = sorted(length(node) for path in FILES for node in functions(path))
    assert lengths[len(lengths) // 2] <= MEDIAN_FUNCTION_LINES


def strategy_comparisons(path: Path) -> list[int]:
    """Return the lines that compare a value with a strategy's name."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            constants = [inner.value for operand in operands for inner in ast.walk(operand) if isinstance(inner, ast.Constant)]
            named = any(isinstance(inner, ast.Attribute) and inner.attr == "strategy" for operand in operands for inner in ast.walk(operand))
            if (named and any(isinstance(value, str) for value in constants)) or (STRATEGY_NAMES - {"depth"}) & {v for v in constants if isinstance(v, str)}:
                lines.append(node.lineno)
        elif isinstance(node, ast.match_case) and any(
            isinstance(inner, ast.Constant) and isinstance(inner.value, str) and inner.value in STRATEGY_NAMES for inner in ast.walk(node.pattern)
        ):
            lines.append(node.pattern.lineno)
    return lines


@pytest.mark.parametrize("path", [path for path in FILES if path not in STRATEGY_FILES], ids=relative)
def test_no_strategy_is_known_by_its_name(path):
    assert strategy_comparisons(path) == []


@pytest.mark.parametrize("line", ['settings.strategy == "full"', 'name in ("partial", "x")', 'settings.strategy != "depth"', '"middle" == name'])
def test_comparisons_with_a_strategy_are_found(tmp_path, line):
    (tmp_path / "a.py").write_text(f"if {line}:\n    pass\n")
    assert strategy_comparisons(tmp_path / "a.py") == [1]


def contract_names() -> list[str]:
    """Return every dotted name of `tlfast` in the configuration of the tools."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r"tlfast(?:\.\w+)+", text)


def test_contracts_and_tools_name_packages_only():
    """A new module in any package needs no edit of pyproject.toml."""
    assert set(contract_names()) & set(MODULES) == set()
    assert set(contract_names()) <= set(PACKAGES)


def test_every_package_has_a_layer():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = re.search(r"layers = (\[.*?\])", text, re.DOTALL)[1]
    names = {name.strip() for layer in ast.literal_eval(layers) for name in layer.split("|")}
    assert {f"tlfast.{name}" for name in names} == {name for name in PACKAGES if name.count(".") == 1}
    assert re.search(r"^exhaustive = true$", text, re.MULTILINE)


def test_packaging_finds_packages_by_itself():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["options"]["packages"].strip() == "find:"
    assert "py_modules" not in config["options"]


def test_test_files_mirror_the_modules():
    """`tests/<package>/test_<module>.py` tests `tlfast/<package>/<module>.py`; other folders of tests are not named after packages."""
    strangers = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        package = path.parent.relative_to(ROOT / "tests")
        modules = list((PACKAGE / package).glob(f"{path.stem.removeprefix('test_')}.*"))  # .py, or page.html
        if package != Path() and (PACKAGE / package / "__init__.py").is_file() and not modules:
            strangers.append(relative(path))
    assert strangers == []


def test_no_test_imports_another_test():
    importing = [
        relative(path) for path in (ROOT / "tests").rglob("*.py") if re.search(r"^\s*(from|import) tests\.(?!helpers)", path.read_text(), re.MULTILINE)
    ]
    assert importing == []
