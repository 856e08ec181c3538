"""Settings from TOML files and from runs."""

from __future__ import annotations

import pytest

from tlfast import tasks
from tlfast.core import config_files
from tlfast.core.errors import UsageError
from tlfast.tasks import resolve

FER = tasks.get_task("fer")


def test_config_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('epochs = 3\nlr = 0.001\nlabel-smoothing = 0\naugment = "none"\n')
    chosen = resolve.resolve_settings(FER, None, {}, config_files.read_config(str(path)))
    assert (chosen.epochs, chosen.rate, chosen.label_smoothing, chosen.augment) == (3, 0.001, 0.0, "none")


@pytest.mark.parametrize(
    ("text", "message"), [("epochs = = 3", "is not TOML"), ("[training]\nepochs = 3\n", r"bad.toml has a heading \[training\]"), (None, "No such file")]
)
def test_bad_config_file(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    if text:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        config_files.read_config(str(path))
