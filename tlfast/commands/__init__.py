"""The work of the commands: functions that take a task or a run, return a result dataclass and print nothing.

May import every package except `cli`. Read `train`, then `loaded_run`, which the commands for finished runs share.
This file imports nothing, so that importing one command does not load the libraries of the others, such as torch for `predict`.
"""

__all__: list[str] = []
