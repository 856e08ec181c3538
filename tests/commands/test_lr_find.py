"""tlfast lr-find: a curve for each phase."""

from __future__ import annotations

import pytest

from tests.helpers.command_line import TINY


@pytest.mark.parametrize(("deep", "last"), [(["--full"], "all layers"), (["--depth", 2], "upper stages")])
def test_lr_find_draws_a_curve_for_each_phase(cli, folder, tmp_path, deep, last):
    tiny = [part for part in TINY if part not in ("--lr", "3e-3")]
    outcome = cli("lr-find", folder, *tiny, *deep, "--json")
    assert outcome.code == 0, outcome.err
    assert list(outcome.json) == ["head", last]
    assert all((tmp_path / found["picture"]).stat().st_size > 5000 and found["suggestion"] > 0 for found in outcome.json.values())
    assert list(cli("lr-find", folder, *TINY, "--json").json) == ["head"]  # a rate that was typed does not stop the search
