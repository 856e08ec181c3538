"""One of the processes of `tlfast train --gpus`: `python -m tlfast.cli.worker FOLDER`. The first one shows progress and the result."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from ..core import torchrun
from ..core.signals import raise_interrupt
from ..core.system import hide_known_warnings

WORKER = "tlfast.cli.worker"  # this module


def main(folder: Path) -> int:
    """Train as one of several processes; their request, result and errors are files in `folder`. Returns the exit code."""
    signal.signal(signal.SIGTERM, raise_interrupt)
    hide_known_warnings()
    from ..commands.train_processes import read_request, run_worker
    from .console import Screen

    training, first = read_request(folder), torchrun.rank() == 0
    screen = Screen(training.quiet or not first, training.as_json)
    try:
        with screen.progress() as on_event:
            result = run_worker(folder, training, on_event)
    except KeyboardInterrupt:  # while the end of another process was handled
        return 1
    if result and first and training.show:
        screen.train_result(result)
    return 0 if result else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
