"""ModelExecutor: one (task, engine). Resolves the model, holds it, submits the request to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from src.core.config import Settings
from src.core.errors import PlatformError, ValidationError
from src.core.registry.versions import RegisteredVersion
from src.inference.cache import LoadedModel, ModelCache, ModelKey
from src.inference.catalog import ModelCatalog, servable
from src.inference.engines.base import BaseEngine, Delta
from src.inference.intake import Intake
from src.inference.loading import WorkerPlan, start_worker
from src.inference.model_settings import settings_of
from src.inference.models.base import BaseModelHandler
from src.inference.options import CommonOptions, default_of, validate_options
from src.inference.registry import ModelRegistry
from src.inference.results_key import ResultOf
from src.inference.results_reuse import KeptResult, Lookup, ResultReuse
from src.inference.served import Served, for_engine, is_ours, priority_of, provenance_of, wish
from src.inference.types import Answer, InferenceRequest, JsonObject, OnDelta, ServableModel
from src.inference.workers import failures
from src.inference.workers.base import DeathListener, LoadSpec, Worker
from src.inference.workers.host import class_reference
from src.inference.workers.launching import Launcher

_DEFAULT_TIMEOUT = float(default_of(CommonOptions, "timeout"))
_REMEMBERED = 1000
_NO_LOOKUP = Lookup()
_TEXTS = ("generated_text", "description", "transcription", "analysis")


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the executors of one manager share."""

    settings: Settings
    registry: ModelRegistry
    catalog: ModelCatalog
    cache: ModelCache
    launcher: Launcher
    intake: Intake
    on_host: Callable[[str | None], bool]
    reuse: ResultReuse


class ModelExecutor:
    """Executes requests of one task on one engine; the router keeps it and hands it out again."""

    def __init__(self, task: str, engine_name: str, engine_class: type[BaseEngine], runtime: Runtime) -> None:
        self.task = task
        self.engine_name = engine_name
        self.engine_class = engine_class
        self._runtime = runtime
        self._config = engine_config(engine_class, runtime.settings)
        # The engine of in-house models lives in their workers; this one only answers questions about names.
        self.engine = engine_class(self._config) if self._config else engine_class()
        self._served: dict[tuple[str, str | None, str | None], Served] = {}
        self._in_use = 0
        self._retired = False

    async def execute(self, request: InferenceRequest) -> Answer:
        """Answers one request; raises a `PlatformError`."""
        self._in_use += 1
        try:
            return await self._execute(request)
        finally:
            self._in_use -= 1
            if self._retired:
                await self.retire()

    async def _execute(self, request: InferenceRequest) -> Answer:
        handler_class = self._runtime.registry.handler_for(self.task, request.model_name)
        options = self._options(request.options, handler_class)
        if "timeout" in options:
            # What a caller sets bounds the whole request; the default bounds the inference alone.
            async with _bounded(options["timeout"]):
                return await self._answer(request, handler_class, options)
        return await self._answer(request, handler_class, options)

    async def _answer(
        self, request: InferenceRequest, handler_class: type[BaseModelHandler], options: JsonObject
    ) -> Answer:
        handler = self._checked(handler_class, request.data)
        model = await self._runtime.catalog.locate(request.model_name, self.task, self.engine_name, self.engine)
        if self.engine.is_network:
            return await self._ask_server(handler, model, request, options)
        return await self._ask_worker(handler_class, model, request, options)

    async def retire(self) -> None:
        """Closes what the engine holds open, once no request uses it."""
        self._retired = True
        if not self._in_use:
            await self.close()

    async def close(self) -> None:
        """Closes what the engine holds open."""
        await self.engine.aclose()

    def _options(self, options: JsonObject, handler_class: type[BaseModelHandler]) -> JsonObject:
        schema = self.engine_class.options_schema
        if schema is None or not is_ours(handler_class):
            # A stranger's handler or engine has options that we do not know.
            return {name: value for name, value in options.items() if value is not None}
        checked = validate_options(schema, options)
        self.engine.check_options(checked)
        return checked

    def _checked(self, handler_class: type[BaseModelHandler], data: JsonObject) -> BaseModelHandler:
        """Makes the handler, and refuses bad input before anything is loaded for it."""
        try:
            handler = handler_class()
            handler.validate_input(data, handler_class.required_fields)
        except Exception as exc:
            raise failures.handler_failure(exc, handler_class.__name__) from exc
        return handler

    async def _ask_server(
        self, handler: BaseModelHandler, model: ServableModel, request: InferenceRequest, options: JsonObject
    ) -> Answer:
        name = type(handler).__name__
        data, notes = request.data, list[str]()
        if handler.media:
            data, notes = await self._runtime.intake.encoded(type(handler), request)
        lookup = await self._look_up(self._to_serve(model, type(handler), None, None), data, options)
        if lookup.found is not None:
            return self._kept(lookup, lookup.found, model, request, notes)
        try:
            prepared = handler.preprocess(data, options)
        except Exception as exc:
            raise failures.handler_failure(exc, name) from exc
        try:
            await self.engine.aready(model)
            async with _bounded(options.get("timeout", _DEFAULT_TIMEOUT)):
                raw = await self._asked(model, prepared, request.on_delta)
            facts = {key: raw.pop(key, None) for key in ("digest", "engine_version", "warnings")}
            result = handler.postprocess(raw, options)
        except Exception as exc:
            raise failures.engine_failure(exc, self.engine_class.__name__) from exc
        provenance = provenance_of(model, self.engine_name, facts["digest"], facts["engine_version"])
        warnings = facts["warnings"] or []
        if lookup.key is not None and await self._still_has(model, lookup.digest):
            await lookup.keep(KeptResult(result, warnings, facts["engine_version"]))
        return Answer(result, provenance, [*model.warnings, *notes, *warnings, *lookup.warnings])

    async def _asked(self, model: ServableModel, prepared: JsonObject, on_delta: OnDelta | None) -> Any:
        """Returns a network engine's raw answer, once `on_delta` has had its pieces."""
        inputs, options = prepared["inputs"], prepared.get("options") or {}
        if on_delta is None:
            return await self.engine.ainfer(model, inputs, options)
        raw: Any = None
        async with aclosing(self.engine.astream(model, inputs, options)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Delta):
                    on_delta(piece.text)
                else:
                    raw = piece
        return raw

    async def _ask_worker(
        self,
        handler_class: type[BaseModelHandler],
        model: ServableModel,
        request: InferenceRequest,
        options: JsonObject,
    ) -> Answer:
        data, notes = request.data, list[str]()
        cache = self._runtime.cache
        device, dtype = wish(options, "device"), wish(options, "dtype") or wish(options, "torch_dtype")
        served = self._serving(request.model_name, model, handler_class, device, dtype)
        if handler_class.media and not cache.holds(served.key):
            # A model takes seconds to load: what is no picture at all should not start that.
            await self._runtime.intake.probe(handler_class, request)
        lookup = _NO_LOOKUP
        if not handler_class.media and (served.own.cache_results or "cache" in options):
            # What is kept needs no loaded model; media are decoded as the loaded model wants them.
            lookup = await self._look_up(served, data, options)
            if lookup.found is not None:
                return self._kept(lookup, lookup.found, model, request, notes)
        entry = self._enter(served)
        try:
            worker = entry.worker if entry.worker is not None else await cache.loaded(entry)
            if handler_class.media:
                facts = dict(worker.report.media)
                data, notes = await self._runtime.intake.decoded(handler_class, request, options, facts)
                lookup = await self._look_up(served, data, options)
                if lookup.found is not None:
                    return self._kept(lookup, lookup.found, model, request, notes)
            answer = await worker.infer(
                data,
                for_engine(options) if self.engine_class.options_schema else options,
                None if "timeout" in options else _DEFAULT_TIMEOUT,
                on_delta=request.on_delta,
                priority=priority_of(options, served.own),
            )
            report, provenance = worker.report, served.provenance_by(worker.report)
        finally:
            cache.leave(entry)
        if lookup.key is not None:
            await lookup.keep(
                KeptResult(answer.result, answer.warnings, report.engine_version, report.device, report.dtype)
            )
        return Answer(answer.result, provenance, [*model.warnings, *notes, *answer.warnings, *lookup.warnings])

    async def _look_up(self, served: Served, data: JsonObject, options: JsonObject) -> Lookup:
        """Returns what is kept for a request that wants a kept result."""
        model, handler_class, own = served.model, served.handler_class, served.own
        if not ResultReuse.wanted(options, handler_class, own.cache_results):
            return _NO_LOOKUP
        if self.engine.is_network:
            digest = await self.engine.content_digest(model)
        else:
            digest = model.registered.digest if model.registered else None
        made_by = ResultOf(
            digest=digest,
            model=model.name,
            task=self.task,
            engine=self.engine_name,
            engine_version=self.engine.version(),
            handler=served.key.handler,
            device=wish(options, "device") or own.device or self._config.get("device"),
            dtype=served.key.dtype or own.dtype or self._config.get("torch_dtype"),
        )
        return await self._runtime.reuse.look_up(made_by, data, options, handler_class, self.engine_class)

    async def _still_has(self, model: ServableModel, digest: str | None) -> bool:
        """Whether a server has under a name what it had before it answered: its names move."""
        try:
            return await self.engine.content_digest(model) == digest
        except PlatformError:
            return False

    def _kept(
        self, lookup: Lookup, kept: KeptResult, model: ServableModel, request: InferenceRequest, notes: list[str]
    ) -> Answer:
        """Returns an answer with a kept result, of the version that is asked for."""
        provenance = provenance_of(
            model, self.engine_name, lookup.digest, kept.engine_version, device=kept.device, dtype=kept.dtype
        )
        text = next((kept.result[name] for name in _TEXTS if name in kept.result), None)
        if request.on_delta is not None and isinstance(text, str) and text:
            request.on_delta(text)
        return Answer(kept.result, provenance, [*model.warnings, *notes, *kept.warnings], cached=True)

    def _serving(
        self,
        name: str,
        model: ServableModel,
        handler_class: type[BaseModelHandler],
        device: str | None,
        dtype: str | None,
    ) -> Served:
        served = self._served.get((name, device, dtype))
        if served is None or served.model is not model or served.handler_class is not handler_class:
            served = self._to_serve(model, handler_class, device, dtype)
            if len(self._served) >= _REMEMBERED:
                self._served.clear()
            self._served[name, device, dtype] = served
        return served

    def _to_serve(
        self, model: ServableModel, handler_class: type[BaseModelHandler], device: str | None, dtype: str | None
    ) -> Served:
        key = ModelKey(
            model=model.key if model.registered is None else f"{model.name}@{model.registered.version}:{model.key}",
            engine=self.engine_name,
            task=self.task,
            handler=f"{handler_class.__module__}.{handler_class.__qualname__}",
            device=device,
            dtype=dtype,
        )
        return Served(model, handler_class, key, settings_of(model, self._runtime.settings))

    def hold(self, registered: RegisteredVersion, device: str | None, dtype: str | None) -> LoadedModel:
        """Enters a version in the cache as a request would, until `leave`; one that is missing loads and warms up."""
        handler_class = self._runtime.registry.handler_for(self.task, registered.name)
        return self._enter(self._to_serve(servable(registered), handler_class, device, dtype), warm=True)

    def _enter(self, served: Served, *, warm: bool = False) -> LoadedModel:
        async def load(on_death: DeathListener) -> Worker:
            return await self._load(served.model, served.key, served.handler_class, on_death, warm=warm)

        return self._runtime.cache.enter(served.key, served.model, load)

    async def _load(
        self,
        model: ServableModel,
        key: ModelKey,
        handler_class: type[BaseModelHandler],
        on_death: DeathListener,
        *,
        warm: bool,
    ) -> Worker:
        engine, handler = class_reference(self.engine_class), class_reference(handler_class)
        path = await self._runtime.catalog.files(model)
        own = settings_of(model, self._runtime.settings)
        device = key.device or own.device
        spec = LoadSpec(
            engine=engine or "",
            engine_config=self._config,
            handler=handler or "",
            task=self.task,
            model_name=model.name,
            model_path=str(path) if path else None,
            device=device,
            dtype=key.dtype or own.dtype,
            tags=dict(model.tags),
            warm=warm,
        )
        plan = WorkerPlan(
            self.engine_class,
            handler_class,
            spec,
            modules=self.engine.preload_modules([path] if path else []),
            fork=self._runtime.on_host(device),
            own=own,
        )
        return await start_worker(plan, self._runtime.settings, self._runtime.launcher, on_death)


@asynccontextmanager
async def _bounded(seconds: Any) -> AsyncIterator[None]:
    """Stops the block when its time has passed."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds <= 0:
        raise ValidationError(f"option 'timeout' takes seconds above 0 (given {seconds!r})")
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as exc:
        raise failures.timed_out(seconds) from exc


def engine_config(engine_class: type[BaseEngine], settings: Settings) -> JsonObject:
    """Returns the settings section of a built-in engine; {} for anybody else's."""
    section = getattr(settings, engine_class.name, None) if is_ours(engine_class) else None
    return section.model_dump() if section is not None else {}


def error_of(exc: Exception) -> PlatformError:
    """Returns the error to answer with for anything that came out of `execute`."""
    return exc if isinstance(exc, PlatformError) else failures.engine_failure(exc, "platform")
