"""The fake Ollama server: a socket, a thread behind it, and state that outlives a restart."""

import socket
import time
from collections.abc import Iterable
from dataclasses import replace
from types import TracebackType
from typing import Self

from src.testing.fake_ollama.app import create_app
from src.testing.fake_ollama.connection import ClientWatch, ReceivedRequest
from src.testing.fake_ollama.generation import Generator
from src.testing.fake_ollama.models import TINY, FakeModel
from src.testing.fake_ollama.names import ModelName
from src.testing.fake_ollama.pace import Counts, Pace
from src.testing.fake_ollama.pulling import Pulling, Registries
from src.testing.fake_ollama.scheduler import Limits, Scheduler
from src.testing.fake_ollama.serving import ServingThread
from src.testing.fake_ollama.store import Store


class FakeOllama:
    """An Ollama server on a real socket, for as long as the `with` block lasts.

    It holds `models` (`tiny` alone by default) and can pull `pullable`: those whose name has a host come
    from a registry there, the others from the default one. Times are in seconds; `pace` holds them and may
    be changed while the server runs. `requests` keeps every request received.
    """

    def __init__(
        self,
        models: Iterable[FakeModel] = (TINY,),
        *,
        pullable: Iterable[FakeModel] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        version: str = "0.0.0",
        parallel: int = 1,
        max_queue: int = 512,
        max_loaded: int = 3,
        token_delay: float = 0.0,
        token_cpu: float = 0.0,
        load_delay: float = 0.0,
        pull_delay: float = 0.0,
        answer_tokens: int = 32,
    ) -> None:
        self.pace = Pace(token_delay, token_cpu, load_delay, pull_delay, answer_tokens)
        self.limits = Limits(parallel, max_queue, max_loaded)
        self.requests: list[ReceivedRequest] = []
        self._host, self._port, self._version = host, port, version
        self._counts = Counts()
        self._store = Store()
        self._registries = Registries(pullable)
        self._scheduler: Scheduler | None = None
        self._generator: Generator | None = None
        self._thread: ServingThread | None = None
        for model in models:
            self.put(model)

    @property
    def url(self) -> str:
        """The address, without a slash at the end; the port stays the same over a restart."""
        return f"http://{self._host}:{self._port}"

    @property
    def active_generations(self) -> int:
        """Generations that produce tokens now."""
        return self._counts.active

    @property
    def finished_generations(self) -> int:
        """Generations that came to their end."""
        return self._counts.finished

    @property
    def stopped_generations(self) -> int:
        """Generations that ended early because their client left."""
        return self._counts.stopped

    @property
    def model_loads(self) -> int:
        """How often a model was loaded, also anew because `num_ctx` and the like changed."""
        return self._counts.loads

    @property
    def waiting_requests(self) -> int:
        """Requests in the queue."""
        return self._scheduler.waiting if self._scheduler else 0

    def put(self, model: FakeModel) -> None:
        """Stores a model, in place of any other under its name."""
        self._store.put(ModelName.parse(model.name), model)

    def remove(self, name: str) -> None:
        """Deletes a model; raises `ApiError` where there is none."""
        self._store.remove(name)

    def start(self) -> Self:
        """Listens; returns once requests are answered."""
        if self._thread:
            raise RuntimeError("the fake Ollama runs already")
        listener = socket.create_server((self._host, self._port))
        self._port = listener.getsockname()[1]
        self._scheduler = Scheduler(self.limits, self.pace, self._counts)
        self._generator = Generator(self._scheduler, self.pace, self._counts)
        pulling = Pulling(self._store, self._registries, self.pace)
        app = create_app(self._store, self._generator, pulling, self._version)
        self._thread = ServingThread(ClientWatch(app, self.requests), listener)
        return self

    def stop(self) -> None:
        """Closes every connection and joins the thread; models stay stored, none stays loaded."""
        if self._thread:
            self._thread.end()
        if self._generator:
            self._generator.close()
        self._thread = self._generator = self._scheduler = None

    def restart(self, **limits: int) -> None:
        """Stops and starts again, with other limits where given: `parallel`, `max_queue`, `max_loaded`."""
        self.limits = replace(self.limits, **limits)
        self.stop()
        self.start()

    def kill_runner(self) -> int:
        """Ends every loaded model under its requests, as a crash would; returns how many there were."""
        return self._thread.call(self._scheduler.kill) if self._thread and self._scheduler else 0

    def wait_until_idle(self, seconds: float = 5.0) -> bool:
        """Waits until nothing is generated and nobody waits; returns whether it came to that."""
        end = time.monotonic() + seconds
        while self.active_generations or self.waiting_requests:
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
