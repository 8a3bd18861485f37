"""Whether a vLLM server can write for the base here: the same weights and words, room enough, adapters at run time.

Where the folder that it serves can be seen from here the files are compared; in any case the tokens of a text, and how
likely it finds each of them: as likely as the unquantized weights here do, but for kernels and precision. Left out on
purpose: HTTP (vllm.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapters.base_model import BaseFiles, load_unquantized, same_weights
from adapters.files import read_json, sha256_json, whole_folder, write_json
from adapters.policy import Policy
from adapters.versions import fill, manifest_hash
from assistant.vllm_http import Card

Post = Callable[[str, dict[str, Any]], Awaitable[tuple[int, dict[str, Any]]]]  # (path, body) → status, object

LEAST_REPLY = 256  # tokens that must fit after the longest prompt
# Mean difference of log-probabilities, nats a token. On the embedded base the same weights in bf16 and fp32 differ by
# .05; in 4 bits by .7, with two layers in each other's place by .8, with 5% of noise by .6.
TOLERANCE = 0.2
KEPT = "probe.json"
TEXT = (
    "The lighthouse keeper wrote 3,141 letters in his life, and answered each of them twice. “Why?”, they asked him; "
    "he smiled, looked out at the grey sea, and said: because a letter that nobody answers is only half a letter. "
    "def answer(letter): return letter[::-1]  # naïve, 你好"
)


class OwnBase:
    """The base here, as a server is to be. ids: tokens of TEXT; logprobs: of each but the first.

    blank: the folder of an adapter that changes nothing, blank_name: its name there. The base writes with it: in vLLM
    0.32 on a CPU, rows without any adapter get that of a neighbour in the same batch (measured in LOG.md).
    """

    def __init__(self, files: BaseFiles, policy: Policy) -> None:
        """policy: used only now."""
        self.files = files
        self.least_context = policy.renderer.max_prompt_tokens + LEAST_REPLY
        self.ids = policy.renderer.reply_ids(TEXT, ended=False)
        self.logprobs = self._kept(policy)
        self.blank = _blank(files, policy).resolve()
        # Of its folder too: another Mynah at the same server has its own.
        self.blank_name = f"mynah-base-{sha256_json([manifest_hash(self.blank), str(self.blank)])[:12]}"

    async def difference(self, card: Card, post: Post) -> str:
        """What makes a server unfit, empty when nothing does. card: of what it serves as its base."""
        name, root, context = str(card.get("id")), Path(str(card.get("root"))), int(card.get("max_model_len") or 0)
        if context < self.least_context:
            return f"it reads {context} tokens, and {self.least_context} are needed (--max-model-len)"
        status, _ = await post("/v1/load_lora_adapter", {"lora_name": "", "lora_path": ""})
        if status == 404:
            return "it loads no adapters (--enable-lora, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment)"
        if root.is_absolute() and (root / "config.json").is_file():
            models = self.files.folder.parent
            if not await asyncio.to_thread(same_weights, root, self.files.full, models):
                return f"its weights are not those in {self.files.full}"
        _, said = await post("/tokenize", {"model": name, "prompt": TEXT, "add_special_tokens": False})
        if said.get("tokens") != self.ids:
            return "its vocabulary is another"
        # Said twice it is refused, which is just as well.
        await post("/v1/load_lora_adapter", {"lora_name": self.blank_name, "lora_path": str(self.blank)})
        asked = {
            "model": self.blank_name,
            "prompt": self.ids,
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }
        _, said = await post("/v1/completions", asked)
        try:
            off = self._off(said)
        except (KeyError, TypeError, ValueError) as error:
            return f"it does not tell the log-probabilities of a prompt as vLLM does ({type(error).__name__}: {error})"
        if off > TOLERANCE:
            return f"it finds a text {off:.2f} nats a token more or less likely (at most {TOLERANCE})"
        return ""

    def _kept(self, policy: Policy) -> list[float]:
        """The log-probabilities by the unquantized weights, which are loaded once (4 bytes a weight) to find them."""
        if self.files.quantize == "none":
            policy.use(None)
            return _logprobs(policy.model, self.ids)
        path = self.files.folder / KEPT
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = read_json(path)
            if kept["ids"] == self.ids:
                return [float(each) for each in kept["logprobs"]]
        found = _logprobs(load_unquantized(self.files)[0], self.ids)
        with suppress(OSError):  # it is found again next time
            write_json(path, {"ids": self.ids, "logprobs": found})
        return found

    def _off(self, said: dict[str, Any]) -> float:
        """Mean difference of log-probabilities, nats a token."""
        (choice,) = said["choices"]
        places = zip(self.ids[1:], choice["prompt_logprobs"][1:], strict=True)
        found = [float(place[str(token)]["logprob"]) for token, place in places]
        return float(np.abs(np.subtract(found, self.logprobs)).mean())


def _blank(files: BaseFiles, policy: Policy) -> Path:
    """An adapter with B = 0, kept beside the base."""
    folder = files.folder / f"blank-{policy.split}-{policy.config.rank}"
    if not folder.exists():
        policy.new_adapter("blank")
        state = policy.adapter_state("blank")
        policy.drop_adapter("blank")
        try:
            with whole_folder(folder) as draft:
                fill(draft, state, policy.lora_config(), {"base_id": files.base_id})
        except OSError:
            if not folder.exists():  # else another process was faster
                raise
    return folder


def _logprobs(model: Any, ids: list[int]) -> list[float]:
    """Of each token but the first."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0, :-1].float()
    found: list[float] = torch.log_softmax(logits, -1)[range(len(ids) - 1), ids[1:]].tolist()
    return found
