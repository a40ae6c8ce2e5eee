"""What the first load of a process does once and keeps, done when this is imported: before workers are forked.

The library compiles a thousand patterns of weight names, and torch opens its vector math, a tenth of a second together.
Seen in transformers 5.23, `conversion_mapping.py`.
"""

from contextlib import suppress

import torch
from transformers import conversion_mapping

with suppress(AttributeError):  # the library's own affair, which it may rename
    conversion_mapping.get_checkpoint_conversion_mapping("llama")
torch.arange(1, 9, dtype=torch.float32).reciprocal().pow(2).mul(2).sum()
