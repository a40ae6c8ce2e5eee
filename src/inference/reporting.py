"""What is told of loaded models: for stats, for the list of cached ones, for readiness."""

from src.core.registry.versions import RegisteredVersion
from src.inference.cache import LoadedModel, ModelCache
from src.inference.types import JsonObject


def loaded_model(cache: ModelCache, entry: LoadedModel) -> JsonObject:
    """Returns the documented facts of one entry; memory in bytes, idle time in seconds."""
    worker, registered = entry.worker, entry.model.registered
    asked = worker.in_flight if worker else 0
    in_flight = min(asked, worker.report.at_once) if worker else 0
    return {
        "version": registered.version if registered else None,
        "task": entry.key.task,
        "engine": entry.key.engine,
        "state": entry.state,
        "reason": cache.reason(entry),
        "pid": worker.pid if worker else None,
        "device": worker.report.device if worker else None,
        "dtype": worker.report.dtype if worker else None,
        "memory_bytes": worker.memory_bytes() if worker else None,
        "loads": cache.loads.get(entry.key, 0),
        "load_seconds": entry.load_seconds,
        "engine_load_seconds": worker.report.seconds if worker else None,
        "in_flight": in_flight,
        "queued": asked - in_flight if worker else entry.in_use,
        "idle_seconds": entry.idle_seconds,
    }


def cached_models(cache: ModelCache) -> list[JsonObject]:
    """Returns the documented list of loaded models."""
    wanted = ("version", "task", "engine", "device", "memory_bytes", "idle_seconds")
    found = []
    for entry in cache.entries():
        if entry.worker is not None:
            facts = loaded_model(cache, entry)
            found.append({"model_name": entry.model.name, **{name: facts[name] for name in wanted}})
    return found


def readiness(cache: ModelCache, name: str, registered: RegisteredVersion) -> tuple[bool, str]:
    """Returns whether a version can answer now, and why (not)."""
    found = [entry for entry in cache.entries() if _is(entry, registered)]
    if not found:
        return True, "not loaded: its first request loads it"
    if any(entry.state == "ready" for entry in found):
        return True, "ready"
    why = cache.reason(found[0])
    return False, f"model '{name}' is {found[0].state}" + (f": {why}" if why else "")


def _is(entry: LoadedModel, registered: RegisteredVersion) -> bool:
    other = entry.model.registered
    return other is not None and (other.name, other.version) == (registered.name, registered.version)
