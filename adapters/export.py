"""Take a version elsewhere: a zip that plain PEFT loads, with a model card and a manifest.

    adapter_config.json          PEFT's own, naming the base without any local path
    adapter_model.safetensors    fp32 tensors, byte for byte those of the version
    README.md                    model card: what it is, what it needs, how it was judged
    manifest.json                sha256 and size of each file; base id, name, revision and source

The same version gives the same bytes. Left out on purpose: the base's weights, and anything about the person but how
many labels the version learned from.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from adapters.base_model import BaseFiles, origin
from adapters.files import read_json, write_whole
from adapters.versions import ABOUT, CONFIG, WEIGHTS, verify

CARD = """---
base_model: {base_name}
library_name: peft
pipeline_tag: text-generation
tags:
- lora
- mynah
---

# A LoRA adapter made by Mynah

It shifts {base_name} towards the taste of one person, learned from {labels} acts of feedback. It holds none of their
texts.

## The base it belongs to

| | |
|---|---|
| base id | `{base_id}` |
| revision | `{revision}` |
| source | {source} |

It was trained and judged on these weights; on others of the same name, a fine-tune for one, nothing is known of it.

## Loading it

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("the folder or hub id of the base")
model = PeftModel.from_pretrained(base, "the folder this file is in")
```

Do not merge it into a 4-bit base; merge into full precision and measure again.

## How it was judged

{gate}
## Where it comes from

{about}
"""


def export_peft(folder: Path, files: BaseFiles, about: Mapping[str, Any], out: BinaryIO | Path) -> None:
    """Write a version folder as a zip, to a binary stream or to a file in one step.

    about: what the card tells; `gate` may hold the stored checks, `labels` their number; anything else that is a plain
    number or word is listed. Raises CorruptFile when the version is not what was written.
    """
    verify(folder)
    base = origin(files)
    kept: dict[str, Any] = read_json(folder / ABOUT) if (folder / ABOUT).exists() else {}
    told = {**kept, **about}
    config = read_json(folder / CONFIG) | {"base_model_name_or_path": base["name"], "revision": base["revision"]}
    content = {
        CONFIG: _json(config),
        WEIGHTS: (folder / WEIGHTS).read_bytes(),
        "README.md": _card(base, told).encode(),
    }
    hashes = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in sorted(content.items())
    }
    content["manifest.json"] = _json({"base": base, "files": hashes, "version": _plain(told)})
    packed = _zip(content)
    if isinstance(out, Path):
        write_whole(out, packed)
    else:
        out.write(packed)


def _card(base: Mapping[str, str], about: Mapping[str, Any]) -> str:
    checks = about.get("gate") or []
    rows = "".join(
        f"| {c['check']} | {c['value']:.4g} | {c['bound']:.4g} | {'passed' if c['passed'] else 'failed'} |\n"
        for c in checks
    )
    gate = (
        f"| check | value | bound | |\n|---|---|---|---|\n{rows}" if rows else "No checks were handed over with it.\n"
    )
    facts = "\n".join(f"- {name}: {value}" for name, value in sorted(_plain(about).items()))
    return CARD.format(
        base_name=base["name"],
        base_id=base["id"],
        revision=base["revision"],
        source=base["source"],
        labels=about.get("labels", "an unknown number of"),
        gate=gate,
        about=facts or "Nothing was handed over with it.",
    )


def _plain(about: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and short words only: nothing nested, and nothing that could be a path."""
    return {
        name: value
        for name, value in about.items()
        if isinstance(value, int | float) or (isinstance(value, str) and len(value) < 100 and not value.startswith("/"))
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _zip(content: Mapping[str, bytes]) -> bytes:
    """A zip with a fixed date on every entry, so that the same content gives the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(content.items()):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()
