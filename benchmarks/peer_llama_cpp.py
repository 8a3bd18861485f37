"""Runs where llama-cpp-python is (`make bench-speed`): seconds a token, with a LoRA or without.

    python benchmarks/peer_llama_cpp.py

The first line it reads is {"model", "lora" or null, "prompt": token ids, "tokens", "threads"}. Every further one asks
for one run, and a line answers it, so that whoever asks can take turns with it.
"""

from __future__ import annotations

import json
import sys
import time

from llama_cpp import Llama

asked = json.loads(sys.stdin.readline())
model = Llama(model_path=asked["model"], lora_path=asked["lora"], n_ctx=1024, n_threads=asked["threads"], verbose=False)
for _ in sys.stdin:
    model.reset()
    model.eval(asked["prompt"])
    started = time.perf_counter()
    for _ in range(asked["tokens"]):
        model.eval([model.sample(temp=0.8, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.0)])
    print((time.perf_counter() - started) / asked["tokens"], flush=True)
