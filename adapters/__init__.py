"""The policy and its updates: one shared quantized base, one LoRA adapter a person."""
