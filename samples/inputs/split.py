"""Keeps what the sample models are examined on out of what they learn from."""

import hashlib


def is_held_out(content: str, share: float = 0.2) -> bool:
    """Tell whether a content, named by its text, belongs to the exam; about `share` of all do."""
    digest = hashlib.sha256(content.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
