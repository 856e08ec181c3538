"""Metrics, against scikit-learn."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from sklearn import metrics as skm

import tests
import tlfast
from tlfast.core.metrics import compute_metrics, flatten_metrics


@st.composite
def cases(draw):
    classes = draw(st.integers(2, 6))
    index = st.integers(0, classes - 1)
    pairs = draw(st.lists(st.tuples(index, index), min_size=2, max_size=60))
    return classes, *map(np.array, zip(*pairs, strict=True))


@given(cases())
@effort(max_examples=250, deadline=None)
@pytest.mark.filterwarnings("ignore")  # scikit-learn warns of classes without predictions
def test_figures_are_scikit_learns(case):
    classes, labels, predicted = case
    found = compute_metrics(skm.confusion_matrix(labels, predicted, labels=range(classes)))
    assert found["accuracy"] == pytest.approx(skm.accuracy_score(labels, predicted))
    assert found["balanced_accuracy"] == pytest.approx(skm.balanced_accuracy_score(labels, predicted))
    macro = skm.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    assert [found[f"macro_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(macro[:3])
    assert found["mcc"] == pytest.approx(skm.matthews_corrcoef(labels, predicted))
    kappa = skm.cohen_kappa_score(labels, predicted)
    assert found["kappa"] == pytest.approx(0.0 if np.isnan(kappa) else kappa)


def test_figures_of_many_matrices_at_once():
    matrices = np.random.default_rng(0).integers(0, 9, (2, 5, 4, 4))
    together = compute_metrics(matrices)
    for name, values in together.items():
        assert values.shape == (2, 5)
        assert values[1, 3] == pytest.approx(compute_metrics(matrices[1, 3])[name])


def test_averages_of_stored_metrics_are_figures():
    stored = {"accuracy": 0.9, "macro": {"name": "macro", "precision": 0.1, "recall": 0.2, "f1": 0.3, "support": 5}}
    assert flatten_metrics(stored) == {**stored, "macro_precision": 0.1, "macro_recall": 0.2, "macro_f1": 0.3}


# Declares one more metric in the source of core/metrics.py, as a contributor would, then runs commands and prints what shows of it.
ONE_MORE = r"""
import importlib.util, json, sys, types
from pathlib import Path

spec = importlib.util.find_spec("tlfast.core.metrics")
source = Path(spec.origin).read_text(encoding="utf-8")
line = 'Metric("error_rate", "error rate", lambda counts: 1 - accuracy(counts), higher_is_better=False, each_epoch=True),'
changed = source.replace("    for metric in (", f"    for metric in ({line}", 1)
assert changed != source
module = importlib.util.module_from_spec(spec)
sys.modules["tlfast.core.metrics"] = module
exec(compile(changed, spec.origin, "exec"), module.__dict__)
import tlfast.core
tlfast.core.metrics = module

from tests.helpers.command_line import TINY, invoke
from tlfast.cli.formatting import list_setting_rows
from tlfast.testing import COLOURS, draw_image

data = "pictures"  # with wrong labels: where all images of a class get the same prediction, figures have no interval
for place, label in enumerate(COLOURS):
    for n in range(24):
        shown = list(COLOURS)[(place + (n % 3 == 0)) % 3]
        draw_image(f"{data}/{label}/{n}.png", COLOURS[shown], n)
train = invoke("train", data, *TINY, "--valid-pct", 0.5, "--epochs", 12, "--metric", "error_rate", "--name", "r", "--no-onnx")
assert train.code == 0, train.err
done = {"train": train.out}
for name, arguments in {"evaluate": ["evaluate", "r"], "report": ["report", "r", "--json"]}.items():
    outcome = invoke(*arguments)
    assert outcome.code == 0, outcome.err
    done[name] = outcome.out
done["evaluation"] = invoke("evaluate", "r", "--json").json["evaluation"]
done["page"] = Path(json.loads(done["report"])["files"][0]).read_text(encoding="utf-8")
done["wrong"] = " ".join(invoke("train", data, "--metric", "errors").err.replace("│", " ").split())
done["settings"] = {flag: meaning for flag, default, meaning in list_setting_rows()}
done["history"] = Path("exports/pictures/r/history.csv").read_text()
done["phase"] = json.loads(Path("exports/pictures/r/run.json").read_text())["phases"][0]
print(json.dumps(done))
"""


def test_one_declaration_adds_a_metric_everywhere(tmp_path):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ONE_MORE], cwd=tmp_path, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    assert "error rate" in shown["train"].splitlines()[0], "the table of epochs"
    rows = list(csv.DictReader(shown["history"].splitlines()))
    assert all(float(row["error_rate"]) == pytest.approx(1 - float(row["accuracy"])) for row in rows)
    rates = [float(row["error_rate"]) for row in rows]
    assert rates[shown["phase"]["kept_epoch"] - 1] == min(rates), "the lower the better"
    assert "'errors' is not one of" in shown["wrong"] and "'error_rate'" in shown["wrong"]
    assert "error_rate" in shown["settings"]["--metric"], "the table of settings in the documentation"
    assert "error rate" in shown["evaluate"]
    assert shown["evaluation"]["error_rate"] == pytest.approx(1 - shown["evaluation"]["accuracy"])
    low, high = shown["evaluation"]["intervals"]["error_rate"]
    assert low <= shown["evaluation"]["error_rate"] <= high
    assert "Error rate" in shown["page"]


def environment():
    """Return the environment of a process that imports the same `tests` and `tlfast` as this one."""
    roots = {str(Path(module.__file__).resolve().parents[1]) for module in (tests, tlfast)}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sorted(roots))}
