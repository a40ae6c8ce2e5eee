"""Our service with the no-op plugin; everything on: guards, logs, metrics, provenance."""

from benchmarks.servers.noop import NoopEngine, NoopHandler
from src.inference.registry import model_registry
from src.main import main

if __name__ == "__main__":
    model_registry.register_handler_manually("noop", "default", NoopHandler)
    model_registry.register_engine("noop", NoopEngine)
    main()
