"""Take a version elsewhere: a zip for PEFT, vLLM, llama.cpp and Ollama, or merged into the base.

    peft      adapter_config.json, adapter_model.safetensors: byte for byte those of the version
    vllm      the same, and serve.sh, the command that serves it
    gguf      adapter.gguf and a Modelfile
    merged    the unquantized base with the adapter added to its weights, and its tokenizer
    all       README.md (model card: what it is, how it was judged and checked), manifest.json (sha256 and size of each
              file; base id, name, revision and source)

Before anything is handed out, another process loads it as its user would and compares (adapters/export_check.py): it
must do to the log-probabilities of replies what the version does. One at a time, and at a low priority: whoever chats
is served first. The same version gives the same bytes. Left out on purpose: anything about the person but how many
labels the version learned from.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors.numpy import load_file

from adapters.base_model import BaseFiles, origin
from adapters.files import TEMPORARY, read_json, sha256_file, sha256_json, write_json
from adapters.gguf_adapter import write_gguf
from adapters.rendering import DEFAULT_SYSTEM
from adapters.versions import ABOUT, CONFIG, WEIGHTS, verify
from feedback.errors import ExportFailed

Format = Literal["peft", "vllm", "gguf", "merged"]
FORMATS: tuple[Format, ...] = get_args(Format)
# Of what the adapter does, squared: beyond it a bundle is refused; no adapter at all differs by 1, another's by 2. A
# merge rounds its weights to the base's precision, which for an adapter that does little is some percent of that.
MOST_OFF: dict[Format, float] = {"peft": 0.01, "vllm": 0.01, "gguf": 0.01, "merged": 0.25}
ROOT = Path(__file__).resolve().parent.parent

CARD = """---
base_model: {base_name}
library_name: {library}
pipeline_tag: text-generation
tags:
- lora
- mynah
---

# {title}

It shifts {base_name} towards the taste of one person, learned from {labels} acts of feedback. It holds none of their
texts, but can repeat words that it learned from.

## The base it belongs to

| | |
|---|---|
| base id | `{base_id}` |
| revision | `{revision}` |
| source | {source} |

It was trained and judged on these weights; on others of the same name, a fine-tune for one, nothing is known of it.

## Using it

{use}
## How it was judged

{gate}
## How this file was checked

It was loaded in a process of its own, on the unquantized base, on {replies} replies with {tokens} tokens.

| | |
|---|---|
| it does to each token's log-probability what the version does, but for | {off:.2%} (squares; at most {most:.0%}) |
| KL from the version as it is served (base in {quantize}), nats a token | {kl:.3f} |
| the same preference between the version's reply and the base's as there | {agreement:.0%} of {contrasts} |

## Where it comes from

{about}
"""

USE: dict[Format, str] = {
    "peft": """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("the folder or hub id of the base")
model = PeftModel.from_pretrained(base, "the folder this file is in")
```

Do not merge it into a 4-bit base; merge into full precision and measure again.
""",
    "vllm": """```sh
sh serve.sh "the folder or hub id of the base"   # an OpenAI server; the model's name there is {name}
```
""",
    "gguf": """With a GGUF of the base, which is not in here:

```sh
llama-cli -m base.gguf --lora adapter.gguf -sys "{system}"
```

With Ollama, put it beside the Modelfile as base.gguf; then `ollama create {name} -f Modelfile` and `ollama run {name}`.
""",
    "merged": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("the folder this file is in")
tokenizer = AutoTokenizer.from_pretrained("the folder this file is in")
```

The adapter is part of the weights and cannot be taken off.
""",
}

SERVE = """#!/bin/sh
# Serve the base with this adapter; needs vLLM (https://docs.vllm.ai).
exec vllm serve "${{1:?name the folder or hub id of {base}}}" --enable-lora --max-lora-rank {rank} \\
    --lora-modules "{name}=$(cd "$(dirname "$0")" && pwd)"
"""
MODELFILE = """FROM ./base.gguf
ADAPTER ./adapter.gguf
SYSTEM {system}
"""


@dataclass(frozen=True)
class Checked:
    """What the other process found.

    off: squared difference between what the bundle and the version do to log-probabilities on the unquantized base,
    over the latter squared; kl: from the version where it is served, nats a token, on its replies; agreement: share of
    the contrasts (the version's reply and the base's) whose preference moves the same way as there.
    """

    replies: int
    tokens: int
    contrasts: int
    kl: float
    agreement: float
    off: float


_checked: dict[str, Checked] = {}  # by what was checked
_elsewhere_now = threading.Lock()


def export_version(
    folder: Path, files: BaseFiles, about: Mapping[str, Any], kind: Format, out: Path, work: Path
) -> Checked:
    """Write a version folder as a zip to a file, in one step, once it has been checked.

    about: what the card tells; `gate` may hold the stored checks, `labels` their number; anything else that is a plain
    number or word is listed. work: a folder for what is written meanwhile; nothing of it is left. Raises CorruptFile
    when the version is not what was written, NotSupported for a base that a format does not know, and ExportFailed,
    with the reason, when the bundle does not do what the version does.
    """
    verify(folder)
    base = origin(files)
    kept: dict[str, Any] = read_json(folder / ABOUT) if (folder / ABOUT).exists() else {}
    told = {**kept, **about}
    name = f"mynah-{told.get('version', folder.name)}"
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=work) as scratch:
        bundle = Path(scratch) / "bundle"
        bundle.mkdir()
        _fill(bundle, folder, files, kind, base, name)
        checked = check_bundle(folder, files, kind, bundle)
        (bundle / "README.md").write_text(_card(base, told, kind, name, files, checked), "utf-8")
        hashes = {
            path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in sorted(bundle.iterdir())
        }
        write_json(bundle / "manifest.json", {"base": base, "files": hashes, "format": kind, "version": _plain(told)})
        part = out.with_name(f"{TEMPORARY}{out.name}")
        try:
            _zip(bundle, part)
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
    return checked


def check_bundle(folder: Path, files: BaseFiles, kind: Format, bundle: Path) -> Checked:
    """Load a bundle in a process of its own and compare it with the version. Raises ExportFailed with the reason.

    The same bytes for the same version are checked once in the life of this process; what vLLM is given beside PEFT's
    files is a script.
    """
    content = {path.name: sha256_file(path) for path in sorted(bundle.iterdir()) if path.suffix != ".sh"}
    key = sha256_json([files.base_id, sha256_file(folder / WEIGHTS), content])
    if key in _checked:
        return _checked[key]
    checked = Checked(**_elsewhere("check", folder, files, kind, bundle))
    if not checked.off <= MOST_OFF[kind]:
        raise ExportFailed(
            f"The {kind} export does something else than the version ({checked.off:.0%} of its effect differs, at most "
            f"{MOST_OFF[kind]:.0%} may), so it is not handed out. Please report this."
        )
    _checked[key] = checked
    return checked


def _fill(bundle: Path, folder: Path, files: BaseFiles, kind: Format, base: Mapping[str, str], name: str) -> None:
    """What a format consists of, without card and manifest."""
    lora = read_json(folder / CONFIG) | {"base_model_name_or_path": base["name"], "revision": base["revision"]}
    if kind in ("peft", "vllm"):
        write_json(bundle / CONFIG, lora)
        shutil.copyfile(folder / WEIGHTS, bundle / WEIGHTS)
    if kind == "vllm":
        (bundle / "serve.sh").write_text(SERVE.format(base=base["name"], rank=max(8, lora["r"]), name=name), "utf-8")
    if kind == "gguf":
        model = read_json(files.full / "config.json")
        write_gguf(bundle / "adapter.gguf", load_file(folder / WEIGHTS), lora, model, name)
        (bundle / "Modelfile").write_text(MODELFILE.format(system=json.dumps(DEFAULT_SYSTEM)), "utf-8")
    if kind == "merged":
        _elsewhere("merge", folder, files, kind, bundle)


def _elsewhere(what: str, folder: Path, files: BaseFiles, kind: Format, bundle: Path) -> dict[str, Any]:
    """Run adapters/export_check.py; what it prints last. Raises ExportFailed with the last line of what went wrong."""
    job = {
        "what": what,
        "version": str(folder),
        "bundle": str(bundle),
        "format": kind,
        "base": {key: str(value) for key, value in asdict(files).items()},
    }
    with _elsewhere_now:
        done = subprocess.run(
            [sys.executable, "-m", "adapters.export_check"],
            input=json.dumps(job),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it was ended from outside; there may be too little memory"])[-1]
        raise ExportFailed(f"The {kind} export could not be made: {said[:300]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _card(
    base: Mapping[str, str], about: Mapping[str, Any], kind: Format, name: str, files: BaseFiles, checked: Checked
) -> str:
    checks = about.get("gate") or []
    rows = "".join(
        f"| {c['check']} | {c['value']:.4g} | {c['bound']:.4g} | {'passed' if c['passed'] else 'failed'} |\n"
        for c in checks
    )
    gate = (
        f"| check | value | bound | |\n|---|---|---|---|\n{rows}" if rows else "No checks were handed over with it.\n"
    )
    facts = "\n".join(f"- {key}: {value}" for key, value in sorted(_plain(about).items()))
    merged = "A model with a LoRA adapter merged into it, made by Mynah"
    title = merged if kind == "merged" else "A LoRA adapter made by Mynah"
    return CARD.format(
        base_name=base["name"],
        library={"gguf": "gguf", "merged": "transformers"}.get(kind, "peft"),
        title=title,
        base_id=base["id"],
        revision=base["revision"],
        source=base["source"],
        labels=about.get("labels", "an unknown number of"),
        use=USE[kind].format(name=name, system=DEFAULT_SYSTEM),
        gate=gate,
        quantize={"none": "full precision"}.get(files.quantize, files.quantize.upper()),
        about=facts or "Nothing was handed over with it.",
        most=MOST_OFF[kind],
        **asdict(checked),
    )


def _plain(about: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and short words only: nothing nested, and nothing that could be a path."""
    return {
        name: value
        for name, value in about.items()
        if isinstance(value, int | float) or (isinstance(value, str) and len(value) < 100 and not value.startswith("/"))
    }


def _zip(folder: Path, out: Path) -> None:
    """A zip with a fixed date on every entry, so that the same content gives the same bytes; weights are not packed,
    which would take long and save little."""
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(folder.iterdir()):
            entry = zipfile.ZipInfo(path.name, (1980, 1, 1, 0, 0, 0))
            small = path.stat().st_size < 2**20
            entry.compress_type = zipfile.ZIP_DEFLATED if small else zipfile.ZIP_STORED
            entry.external_attr = 0o644 << 16
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=not small) as target:
                shutil.copyfileobj(source, target, 2**20)
