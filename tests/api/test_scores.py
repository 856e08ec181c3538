from __future__ import annotations

from tlfast.api.scores import Score, Scores

DETAILS = {
    "split": "valid",
    "accuracy": 0.75,
    "macro": {"precision": 0.5, "recall": 0.6, "f1": 0.55},
    "intervals": {"accuracy": [0.7, 0.8]},
    "per_class": [{"name": "a", "precision": 1.0, "recall": 0.5, "f1": 0.67, "support": 4}],
    "roc_auc": None,
}


def test_scores_have_values_and_intervals():
    scores = Scores(DETAILS)
    assert scores["accuracy"] == Score(0.75, 0.7, 0.8)
    assert scores["macro_f1"] == Score(0.55, None, None)
    assert "roc_auc" not in scores
    assert f"{scores['accuracy']:.1%}" == "75.0%"
    assert scores.per_class.loc["a", "support"] == 4
    assert "accuracy                0.7500  (95 %: 0.7000 to 0.8000)" in repr(scores)
    assert "<td>0.75</td><td>0.7</td><td>0.8</td>" in scores._repr_html_()
