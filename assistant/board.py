"""An update's metrics for TensorBoard, where the server was started with --tensorboard; otherwise nothing."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

from feedback.errors import NotSupported


class Board:
    """Writes each step of each update once, under the names the worker gave. NotSupported where it is missing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._written: Counter[str] = Counter()
        self._writers: dict[str, Any] = {}
        self._lock = threading.Lock()  # several updates may run at once
        if folder is not None:
            try:
                import torch.utils.tensorboard  # noqa: F401
            except ImportError as error:
                raise NotSupported(
                    "--tensorboard needs the package tensorboard: pip install tensorboard.", param="tensorboard"
                ) from error

    def write(self, update_id: str, steps: list[dict[str, Any]]) -> None:
        """Add the steps that were not written yet."""
        if self._folder is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        with self._lock:
            if update_id not in self._writers:
                self._writers[update_id] = SummaryWriter(self._folder / update_id)
            writer = self._writers[update_id]
        for step in steps[self._written[update_id] :]:
            for name, value in step.items():
                if isinstance(value, int | float) and not isinstance(value, bool) and name != "step":
                    writer.add_scalar(f"{step.get('stage', 'update')}/{name}", value, step.get("step", 0))
        self._written[update_id] = len(steps)
        writer.flush()

    def end(self, update_id: str) -> None:
        """Finish an update's file, for now."""
        with self._lock:
            if (writer := self._writers.pop(update_id, None)) is not None:
                writer.close()

    def close(self) -> None:
        """Finish all files."""
        for update_id in list(self._writers):
            self.end(update_id)
