"""Strips the addresses of one package index out of uv.lock.

What stays is a list of pins: anybody's own index or mirror fills the addresses in when uv resolves
again, and uv keeps the pinned versions. `requirements.lock.txt` has the hashes.
"""

import re
import sys
from pathlib import Path


def strip(text: str) -> str:
    """Returns the lock without sdist and wheel addresses, index hosts and the project's own metadata."""
    text = re.sub(r"^sdist = \{.*\}\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^wheels = \[\n(?:.*\n)*?\]\n", "", text, flags=re.MULTILINE)
    text = re.sub(r'registry = "[^"]*"', 'registry = "."', text)
    return re.sub(r"^\[package\.metadata[^\]]*\]\n(?:(?!\[).*\n)*", "", text, flags=re.MULTILINE)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(strip(path.read_text(encoding="utf-8")), encoding="utf-8")
