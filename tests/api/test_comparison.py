from __future__ import annotations

import pytest

import tlfast
from tlfast.testing import TINY


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def small() -> dict:
    return {**TINY, "epochs": 2, "freeze_epochs": 1}


def test_arms_of_all_kinds(pictures, small, tmp_path, monkeypatch):
    result = tlfast.compare(pictures, arms=["partial", 1, "full"], seeds=2, **small)
    assert result.table["name"].tolist() == ["partial", "depth 1", "full"]
    assert (result.table["accuracy_interval_low"] <= result.table["accuracy"]).all()
    assert len(result.differences) == 3
    assert result.learning_curve.empty
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "&lt;html" in result.report()._repr_html_()
    assert result.verdict in repr(result)
    assert "depth 1" in result._repr_html_()


def test_best_is_trained_once_with_the_settings_of_its_arm(pictures, small):
    result = tlfast.compare(pictures, arms={"slow": {"lr": 1e-6}, "fast": {"lr": 3e-3, "epochs": 8}}, **small)
    best = max(result.table.to_dict("records"), key=lambda row: row["accuracy"])
    assert result.best.settings.epochs == {"slow": 2, "fast": 8}[best["name"]]
    assert result.best.metrics["accuracy"].value == pytest.approx(best["accuracy"])
    assert result.best is result.best
    assert len(tlfast.runs()) == 1


def test_an_arm_can_train_all_layers(pictures, small):
    result = tlfast.compare(pictures, arms={"head": {}, "all": {"full": True}}, **{**small, "epochs": 1})
    assert [arm.settings.strategy for arm in result._arms] == ["partial", "full"]


def test_named_arms_are_combined_with_archs(pictures, small):
    options = {name: value for name, value in small.items() if name != "arch"}
    found = tlfast.compare(pictures, arms={"a": {}, "b": {"label_smoothing": 0.1}}, archs=["test_resnet", "test_vit"], **options).table
    assert found["name"].tolist() == ["a test_resnet", "a test_vit", "b test_resnet", "b test_vit"] and found["parameters"].nunique() == 2
    with pytest.raises(tlfast.UsageError, match="the arm 'a' names a backbone, and archs are given"):
        tlfast.compare(pictures, arms={"a": {"arch": "test_vit"}}, archs="test_resnet", **options)


def test_best_is_never_the_baseline_without_training(pictures, small):
    result = tlfast.compare(pictures, arms=["knn", "partial"], **small)
    assert result.table["name"].tolist() == ["knn", "partial"] and result.best.settings.strategy == "partial"
    with pytest.raises(tlfast.UsageError, match="no arm of the comparison is trained"):
        _ = tlfast.compare(pictures, arms=["knn"], seeds=2, **small).best


def test_shares_give_a_learning_curve(pictures, small):
    result = tlfast.compare(pictures, arms=["partial"], shares=(0.5,), **small)
    assert result.learning_curve["share"].tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"folds": 1}, "folds=1 leaves nothing to train on"),
        ({"arms": []}, "arms is empty"),
        ({"shares": (0.0,)}, r"shares \(0\.0, 1\.0\) of the training images are not all above 0"),
        ({"shares": (2.0,)}, r"shares \(1\.0, 2\.0\) of the training images are not all above 0"),
    ],
)
def test_designs_that_cannot_be_compared(pictures, small, wrong, message):
    with pytest.raises(tlfast.UsageError, match=message):
        tlfast.compare(pictures, **small, **wrong)


def test_an_unknown_arm(pictures, small):
    with pytest.raises(tlfast.UsageError, match="'halb' is neither partial, full, a depth, knn nor a TOML file"):
        tlfast.compare(pictures, arms=["halb"], **small)


def test_one_word_in_place_of_a_list(pictures):
    with pytest.raises(tlfast.UsageError, match=r"one arm \(partial\) and nothing to compare it with"):
        tlfast.compare(pictures, arms="partial", quiet=True, **TINY)
    with pytest.raises(tlfast.UsageError, match="seeds='2' is not a whole number"):
        tlfast.compare(pictures, seeds="2", quiet=True, **TINY)


@pytest.mark.parametrize(
    "options", [{"folds": -1}, {"shares": 0.5}, {"shares": ["x"]}, {"archs": 3}, {"arms": {"a": 3, "b": {}}}, {"arms": {1: {}, 2: {}}}], ids=str
)
def test_arguments_of_wrong_types(pictures, options):
    with pytest.raises(tlfast.UsageError):
        tlfast.compare(pictures, **options)
