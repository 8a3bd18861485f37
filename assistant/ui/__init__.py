"""The browser app: Gradio pages over the same services as the HTTP API. One page, one file."""

from __future__ import annotations

import inspect
from typing import Any


def _import_gradio() -> None:
    """Import Gradio without the stubs for editors that it writes beside its components whenever it is imported.

    They are half of the time that its import takes. It leaves out classes whose file cannot be found.
    """
    find = inspect.getfile

    def getfile(object: Any) -> str:
        if isinstance(object, type) and object.__module__.startswith("gradio."):
            raise OSError("Gradio's own classes need no stubs.")
        return find(object)

    inspect.getfile = getfile
    try:
        import gradio  # noqa: F401
    finally:
        inspect.getfile = find


_import_gradio()
