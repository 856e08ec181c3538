"""Weights & Biases: a run on its server, or offline in `wandb/`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from .base import PICTURES, RunInfo, Status


class WeightsAndBiases:
    """Writes config, figures, pictures, and one artifact with the other files."""

    name: ClassVar[str] = "wandb"
    title: ClassVar[str] = "Weights & Biases"
    package: ClassVar[str] = "wandb"
    install: ClassVar[str] = 'pip install "tlfast[wandb]"'
    place: ClassVar[str] = "your account, after `wandb login`; with `WANDB_MODE=offline` the folder `wandb/`, below `WANDB_DIR`; `WANDB_PROJECT`"
    logs_load: ClassVar[bool] = True

    def start(self, run_id: str, config: RunInfo) -> None:
        import wandb

        training = os.getppid()  # whose load is measured
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or config.project,
            id=config.key,
            name=run_id,
            group=config.group or None,
            resume="allow",
            config=dict(config.values),
            settings=wandb.Settings(silent=True, console="off", x_stats_pid=training),
        )
        self.key, self.step = config.key, 0

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.step = step
        self.run.log(dict(values), step=step)

    def file(self, path: Path) -> None:
        import wandb

        if path.suffix in PICTURES:
            self.run.log({path.stem: wandb.Image(str(path))}, step=self.step)
        artifact = wandb.Artifact(f"{path.stem}-{self.key}", type="model" if path.suffix in (".onnx", ".safetensors") else "result")
        artifact.add_file(str(path))
        self.run.log_artifact(artifact)

    def end(self, status: Status) -> None:
        self.run.finish(exit_code=0 if status == "finished" else 1)


TRACKER = WeightsAndBiases
