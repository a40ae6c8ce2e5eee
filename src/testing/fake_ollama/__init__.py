"""A fake Ollama server: HTTP on a real socket, with state, proven against recordings of a real one.

    with FakeOllama([TINY, FakeModel("seer", capabilities=("completion", "vision"))]) as server:
        httpx.post(f"{server.url}/api/generate", json={"model": "seer", "prompt": "why", "stream": False})
        assert server.requests[-1].body["prompt"] == "why"

What it says is a function of the model, the prompt and the options. `python -m src.testing.fake_ollama`
serves it from the command line.
"""

from src.testing.fake_ollama.connection import ReceivedRequest
from src.testing.fake_ollama.models import BIGGER, TINY, FakeModel
from src.testing.fake_ollama.pace import Pace
from src.testing.fake_ollama.scheduler import Limits
from src.testing.fake_ollama.server import FakeOllama

__all__ = ["BIGGER", "TINY", "FakeModel", "FakeOllama", "Limits", "Pace", "ReceivedRequest"]
