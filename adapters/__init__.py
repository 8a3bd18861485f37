"""The policy and its updates: one shared quantized base, one LoRA adapter a person."""

import os

# oneDNN keeps a compiled kernel for every shape it meets, up to 1,024 of them: some minutes of chat grew a process from
# 0.5 to 1.7 GB. A training step needs some 40, and compiling them anew takes a tenth of a second (LOG.md).
# Read at oneDNN's first use, so it must be set before any model runs.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
