"""What the command line shows of a training."""

from __future__ import annotations

from tests.helpers.command_line import TINY


def test_train_prints_its_tables(cli, folder):
    out = cli("train", folder, *TINY, "--epochs", 2).out
    for word in (
        "train loss",
        "macro F1",
        "accuracy",
        "macro average",
        "weighted average",
        "partial fine-tuning of test_resnet",
        "images/s",
        "exports/pictures",
    ):
        assert word in out
