"""A fake Hugging Face hub: HTTP on real sockets, with state and faults on demand.

    with FakeHub([FakeRepo("org/tiny", {"config.json": b"{}", "model.safetensors": weights})]) as hub:
        hub.faults.cut(after=1000, file="model.safetensors")
        snapshot_download("org/tiny", local_dir=folder, endpoint=hub.url)
        assert hub.bytes_sent("model.safetensors") == len(weights)

It speaks the routes that huggingface_hub calls to download, and proves itself by that client. Large files come
from a second address, as they do from a hub's content network. `python -m src.testing.fake_hub` serves a folder
from the command line.
"""

from src.testing.fake_hub.faults import Faults
from src.testing.fake_hub.repos import FakeFile, FakeRepo
from src.testing.fake_hub.requests import ReceivedRequest
from src.testing.fake_hub.server import FakeHub

__all__ = ["FakeFile", "FakeHub", "FakeRepo", "Faults", "ReceivedRequest"]
