"""An export is looked over before it is loaded."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

from benchmarks.exported import Direction, unpack

WHOLE = {
    "adapter_config.json": json.dumps({"base_model_name_or_path": "org/base", "r": 8, "target_modules": ["q_proj"]}),
    "adapter_model.safetensors": "",
    "README.md": "# card",
    "manifest.json": json.dumps({"files": {}}),
}


def packed(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def test_a_whole_export_has_no_faults(tmp_path: Path) -> None:
    assert unpack(packed(WHOLE), tmp_path) == []
    assert (tmp_path / "README.md").read_text() == "# card"


def test_a_missing_file_and_a_local_path_are_named(tmp_path: Path) -> None:
    config = json.dumps({"base_model_name_or_path": "/srv/models/base", "r": 8})
    files = {name: text for name, text in WHOLE.items() if name != "manifest.json"} | {"adapter_config.json": config}
    assert unpack(packed(files), tmp_path) == [
        "manifest.json is missing",
        "adapter_config.json names the local path /srv/models/base",
    ]


def test_a_direction_needs_both_the_size_and_the_number() -> None:
    assert Direction(9, 0.4, 0.7).kept
    assert not Direction(9, 0.4, 0.4).kept  # one large change is no direction
    assert not Direction(9, -0.1, 0.6).kept
