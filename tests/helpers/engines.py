"""An engine of this process, as if its tasks ran in other processes."""

from __future__ import annotations

import pickle
import sys
from typing import Any, ClassVar

from tlfast.distributed import engines

BIRDS = """
import tlfast

def rows(root, fold):
    return [tlfast.Row(str(path), path.parent.name) for path in sorted(root.rglob("*.png"))]

TASK = tlfast.Task(name="birds", title="birds in gardens", classes=("red", "green", "blue"), rows=rows)
"""


class Recorded(engines.LocalEngine):
    """The engine of this process, as if it were another one. It records the items of its work."""

    in_process = False
    items: ClassVar[list[list[Any]]] = []

    def run(self, work, items):
        self.items.append(list(items))
        sent = pickle.dumps((work, self.items[-1]))
        for name in [name for name in sys.modules if name.startswith("tlfast_task_")]:
            del sys.modules[name]  # another process has not executed the file of the task
        received, parts = pickle.loads(sent)
        return map(received, parts)
