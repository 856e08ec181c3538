from __future__ import annotations

import pytest

import tlfast
from tlfast.core import cache
from tlfast.data import sources


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_tasks_are_those_of_the_registry():
    tasks = tlfast.list_tasks().set_index("name")
    assert tasks.loc["weeds", "classes"] == 9
    assert tasks.loc["weeds", "licence"] == "CC BY 4.0"


def test_import_of_a_csv(tmp_path):
    pixels = " ".join(["7"] * 48 * 48)
    (tmp_path / "fer2013.csv").write_text(f"emotion,pixels,Usage\n3,{pixels},Training\n0,{pixels},PublicTest\n")
    folder = tlfast.import_data("fer", tmp_path / "fer2013.csv")
    assert sorted(path.parent.name for path in folder.rglob("*.png")) == ["angry", "happy"]


def test_downloads_are_those_of_the_command(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(sources, "get_data", lambda task, on_event, address: asked.update(task=task.name, address=address) or tmp_path)
    assert tlfast.get_data("fer", "http://127.0.0.1/fer.zip") == tmp_path
    assert asked == {"task": "fer", "address": "http://127.0.0.1/fer.zip"}
    with pytest.raises(tlfast.UsageError, match="unknown task 'ferr'") as error:
        tlfast.get_data("ferr")
    assert error.value.hint == "Did you mean 'fer'?"


def test_doctor_names_versions():
    assert tlfast.doctor()["versions"]["tlfast"] == tlfast.__version__


def test_cache_is_listed_and_cleared():
    cache.get_or_compute("timings", cache.make_key(x=1), lambda: {"seconds": 1})
    assert tlfast.cache_entries()["kind"].tolist() == ["timings"]
    assert len(tlfast.clear_cache("features")) == 0
    assert len(tlfast.clear_cache(days=1)) == 0
    assert len(tlfast.clear_cache()) == 1
    assert tlfast.cache_entries().empty


@pytest.mark.parametrize("days", [-1, "x", None, float("nan"), True])
def test_days_are_a_number(days):
    cache.get_or_compute("timings", cache.make_key(x=1), lambda: {"seconds": 1})
    with pytest.raises(tlfast.UsageError, match="is not a number of at least 0"):
        tlfast.clear_cache(days=days)
    assert len(tlfast.cache_entries()) == 1
    with pytest.raises(tlfast.UsageError, match="kind=3 is not a text"):
        tlfast.clear_cache(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        lambda: tlfast.get_data(3),
        lambda: tlfast.get_data("weeds", address=3),
        lambda: tlfast.import_data(3, "x"),
        lambda: tlfast.import_data("fer", 3),
        lambda: tlfast.doctor(3),
        lambda: tlfast.runs(out=3),
    ],
)
def test_names_and_paths_of_wrong_types(call):
    with pytest.raises(tlfast.UsageError, match="is not a text"):
        call()
