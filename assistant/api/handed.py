"""A file that was made for one answer, and goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from assistant.adoption import remove


class HandedOver(FileResponse):
    """A zip in a folder of its own, which is deleted at the end, whatever becomes of the answer: a reader that leaves,
    or a range that the file does not have, too."""

    def __init__(self, path: Path, headers: Mapping[str, str]) -> None:
        super().__init__(path, media_type="application/zip", headers=headers)
        self._folder = path.parent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it and delete it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            remove(self._folder)  # here, not in a thread: who was cancelled may wait for nothing
