"""Runs where llama-cpp-python is: how likely llama.cpp finds replies, with and without an adapter.

python llama_cpp_logprobs.py < asked.json     {"model", "lora" (or null), "sequences": [{"prompt", "reply"}]}
"""

from __future__ import annotations

import json
import sys

import numpy as np
from llama_cpp import Llama

asked = json.load(sys.stdin)
model = Llama(
    model_path=asked["model"], lora_path=asked["lora"], n_ctx=512, logits_all=True, n_threads=2, verbose=False
)
found = []
for each in asked["sequences"]:
    model.reset()
    model.eval(each["prompt"] + each["reply"])
    begin = len(each["prompt"]) - 1
    logits = np.array(model.scores[begin : begin + len(each["reply"])], dtype=np.float64)
    total = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
    found.append((logits[range(len(each["reply"])), each["reply"]] - total).tolist())
print(json.dumps(found))
