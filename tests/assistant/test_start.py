"""What a start leaves out: imports of what is never used here, which would be a third of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

LOOK = """
import ast, inspect, sys
parsed, parse = [], ast.parse
ast.parse = lambda source, *more, **named: (parsed.append(source), parse(source, *more, **named))[1]
import adapters.worker, assistant.mynah
find = inspect.getfile
import assistant.ui.app, gradio
assert "bitsandbytes" in sys.modules and "torch._inductor.lowering" not in sys.modules, "no compiler"
assert not [code for code in parsed if "class Textbox" in str(code)], "Gradio wrote no stubs"
assert inspect.getfile is find and find(gradio.Textbox).endswith("textbox.py"), "all is as it was"
"""


def test_no_compiler_is_imported_and_no_stubs_are_written() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
