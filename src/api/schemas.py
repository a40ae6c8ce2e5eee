"""The shapes of requests and answers, for the OpenAPI document."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

EXAMPLE: dict[str, Any] = {
    "task": "text-generation",
    "engine": "transformers",
    "model_name": "demo-text",
    "data": {"inputs": "What is 27 plus 45?"},
    "options": {"temperature": 0.1},
}

UPLOAD_EXAMPLE: dict[str, Any] = {
    "task": "vlm",
    "engine": "transformers",
    "model_name": "demo-vlm",
    "data": {"prompt": "What shapes are there?"},
}


class InferBody(BaseModel):
    """A request to any task on any engine."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE]})

    task: str = Field(description="for example text-generation")
    engine: str = Field(description="ollama, transformers, or a plugin's")
    model_name: str = Field(description="name, name@alias or name@version")
    data: dict[str, Any] = Field(description="what the task takes")
    options: dict[str, Any] | None = Field(None, description="see docs/usage.md; null means unset")


class UploadRequest(InferBody):
    """A request whose files come beside it, under the names of the fields that they fill."""

    model_config = ConfigDict(json_schema_extra={"examples": [UPLOAD_EXAMPLE]})

    data: dict[str, Any] = Field({}, description="what the task takes beside files")


class ProvenanceBody(BaseModel):
    """Exactly what produced an answer."""

    registered_name: str | None
    version: str | None
    alias: str | None
    source: str | None = Field(description="the URI that the registry holds")
    commit: str | None = Field(description="of the version store")
    digest: str | None = Field(description="of the model's content, or what Ollama reports")
    engine: str
    engine_version: str | None
    device: str | None
    dtype: str | None
    ollama_model: str | None


class InferAnswer(BaseModel):
    """A success."""

    success: bool
    result: dict[str, Any]
    task: str
    engine: str
    model_name: str
    processing_time: float = Field(description="seconds")
    timestamp: float = Field(description="seconds since 1970")
    request_id: str
    provenance: ProvenanceBody
    cached: bool | None = Field(None, description="true: the result was kept from an earlier request")
    warnings: list[str] | None = None


class Failure(BaseModel):
    """A failure of any route."""

    success: bool
    error: str
    error_type: str
    task: str | None
    engine: str | None
    model_name: str | None
    timestamp: float
    request_id: str
    retryable: bool
    details: dict[str, Any] | None = None


class Health(BaseModel):
    """How the service is."""

    status: str = Field(description="healthy or degraded")
    components: dict[str, bool]
    dependencies: dict[str, dict[str, Any]]
    timestamp: float


class Stats(BaseModel):
    """What the service has done."""

    total_inferences: int
    successful_inferences: int
    failed_inferences: int
    success_rate: float
    cache_hit_rate: float
    cached_models: int
    uptime: float = Field(description="seconds")
    tasks: dict[str, Any]
    models: dict[str, Any]


class Cleared(BaseModel):
    """What clearing the cache did."""

    success: bool
    message: str
    cleared_models: int


class Probe(BaseModel):
    """What a probe found."""

    status: str
    reason: str | None = None


GUARD = (401, 403, 413, 415, 429)
"""Statuses that the guard may give on any route that is not only for reading."""

INFER_FAILURES = (400, *GUARD, 404, 422, 500, 503, 504, 507)

_WORDS = {
    400: "well formed but unusable",
    401: "no valid API key",
    403: "foreign Host or Origin",
    404: "no such model, or nothing there",
    409: "exists already, serves, or conflicts",
    413: "too large",
    415: "not application/json",
    422: "wrong shape, or unknown option, task or engine",
    429: "too many requests of this caller: try again after Retry-After",
    500: "the service or the engine failed",
    503: "try again after Retry-After: engine unreachable, queue full, worker died, stopping",
    504: "the option timeout passed",
    507: "out of memory",
}


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the `responses` of a route that fails with these statuses."""
    return {status: {"model": Failure, "description": _WORDS[status]} for status in statuses}


def plain_failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the same for a route whose successes are no JSON: its failures are."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{Failure.__name__}"}}}
    return {status: {"description": _WORDS[status], "content": content} for status in statuses}
