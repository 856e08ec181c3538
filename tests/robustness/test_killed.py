"""Processes that are told to stop, or killed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers.command_line import TINY
from tests.helpers.paths import ROOT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_told_to_stop_says_how_to_go_on(number, folder, tmp_path):
    command = [sys.executable, "-m", "tlfast", "train", str(folder), *TINY, "--epochs", "2000", "--train-bn", "--checkpoint-minutes", "0", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("exports/pictures/*.unfinished/*.at-*.pt")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and json.loads(out)["error"].startswith("interrupted")  # and nothing else: no result, no epoch
    assert "interrupted" in err and "--resume" in err and "Traceback" not in err
    assert list(tmp_path.glob("exports/pictures/*.unfinished/*.at-*.pt")) and not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
def test_killed_outright_at_two_moments():
    torture = ROOT / "scripts" / "torture.py"
    done = subprocess.run([sys.executable, str(torture), "train", "--kills", "2", "--images", "30", "--seed", "5"], capture_output=True, text=True)
    assert done.returncode == 0 and re.search("train: 2 commands, [12] of them killed, 0 things wrong", done.stdout), done.stdout + done.stderr
