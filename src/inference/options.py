"""The options of a request: names, types, ranges and documented defaults, per engine."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic import ValidationError as PydanticValidationError

from src.core.errors import ValidationError
from src.core.settings_sections import DEVICES, Dtype
from src.inference.types import JsonObject

TokenId = Annotated[int, Field(ge=0)]
# An empty stop text would end every answer before it begins.
StopText = Annotated[str, Field(min_length=1)]


class CommonOptions(BaseModel):
    """Options that every engine takes. null means unset: the documented default holds."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    max_length: int | None = Field(512, ge=1, description="tokens of text prompt and answer together")
    max_new_tokens: int | None = Field(256, ge=1, description="tokens of the answer at most")
    min_length: int | None = Field(10, ge=0, description="tokens of prompt and answer at least")
    do_sample: bool | None = Field(True, description="draw tokens at random; false: always the likeliest")
    temperature: float | None = Field(0.7, ge=0.0, le=2.0, description="0: always the likeliest token")
    top_p: float | None = Field(0.9, gt=0.0, le=1.0)
    top_k: int | None = Field(50, ge=0)
    num_beams: int | None = Field(1, ge=1, le=64)
    early_stopping: bool | None = False
    repetition_penalty: float | None = Field(1.0, gt=0.0, le=10.0)
    length_penalty: float | None = Field(1.0, ge=-10.0, le=10.0)
    no_repeat_ngram_size: int | None = Field(0, ge=0)
    num_return_sequences: int | None = Field(1, ge=1, le=64)
    pad_token_id: int | None = Field(None, ge=0)
    eos_token_id: TokenId | Annotated[list[TokenId], Field(min_length=1, max_length=16)] | None = None
    stop: StopText | list[StopText] | None = Field(None, description="text before which the answer ends")
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="the same seed gives the same answer")
    timeout: float | None = Field(60.0, gt=0, le=86400, description="seconds until generation is stopped")
    stream: bool | None = Field(False, description="the answer comes in pieces, as server-sent events")
    queue_priority: int | None = Field(
        None, ge=-10, le=10, description="of requests that wait for a model, those of higher priority go first"
    )
    cache: bool | None = Field(None, description="keep the result, and take a kept one; null: as the model has it")


class OllamaOptions(CommonOptions):
    """What engine `ollama` takes besides."""

    num_predict: int | None = Field(128, ge=-2)
    repeat_penalty: float | None = Field(1.1, gt=0.0)
    repeat_last_n: int | None = Field(None, ge=-1)
    mirostat: Literal[0, 1, 2] | None = None
    mirostat_tau: float | None = Field(5.0, gt=0.0)
    mirostat_eta: float | None = Field(0.1, gt=0.0)
    num_ctx: int | None = Field(2048, ge=1)
    num_thread: int | None = Field(None, ge=1)
    num_gpu: int | None = Field(None, ge=0)
    num_keep: int | None = Field(None, ge=-1)
    num_batch: int | None = Field(None, ge=1)
    min_p: float | None = Field(None, ge=0.0, le=1.0)
    typical_p: float | None = Field(None, gt=0.0, le=1.0)
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    keep_alive: str | int | float | None = Field(None, description="how long Ollama keeps the model loaded")
    format: Literal["json"] | JsonObject | None = Field(None, description="'json' or a JSON schema")
    system: str | None = Field(None, description="system prompt")
    think: bool | None = Field(None, description="for models that can think")


class TransformersOptions(CommonOptions):
    """What engine `transformers` takes besides."""

    device: str | None = Field("auto", pattern=DEVICES)
    device_map: str | None = "auto"
    torch_dtype: Dtype | None = "auto"
    dtype: Dtype | None = Field(None, description="the newer name of torch_dtype")
    trust_remote_code: bool | None = None
    batch_size: int | None = Field(1, ge=1)
    logprobs: bool | None = Field(False, description="metadata holds the log-probability of each generated token")
    language: str | None = None
    task: Literal["transcribe", "translate"] | None = None
    return_timestamps: bool | Literal["word"] | None = False
    num_frames: int | None = Field(None, ge=1, description="frames taken from a video, evenly spread")
    fps: float | None = Field(None, gt=0, le=1000, description="frames taken from each second of a video")
    segmentation: Literal["auto", "none", "lines", "words"] | None = Field(
        "auto", description="how a page is cut for an OCR model that reads single lines"
    )
    pages: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, min_length=1, description="pages of a document, the first is 0; null: all"
    )


def validate_options(schema: type[CommonOptions], options: JsonObject) -> JsonObject:
    """Returns the options that the caller set, checked; those that are null are left out.

    Raises `ValidationError` naming the option, what it takes and, for a misspelt one, the nearest name.
    """
    unknown = [name for name in options if name not in schema.model_fields]
    if unknown:
        raise _unknown(unknown, list(schema.model_fields))
    given = {name: value for name, value in options.items() if value is not None}
    if not given:
        return given
    try:
        return schema.model_validate(given).model_dump(include=set(given))
    except PydanticValidationError as exc:
        problems = [
            {"option": str(error["loc"][0]), "problem": error["msg"], "given": repr(error["input"])[:100]}
            for error in exc.errors()
        ]
        text = "; ".join(f"option '{p['option']}': {p['problem']} (given {p['given']})" for p in problems)
        raise ValidationError(text, details={"options": problems}) from exc


def default_of(schema: type[CommonOptions], name: str) -> Any:
    """Returns the documented default of an option."""
    return schema.model_fields[name].default


def _unknown(unknown: list[str], known: list[str]) -> ValidationError:
    parts, nearest = [], {}
    for name in unknown:
        close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
        nearest[name] = close[0] if close else None
        parts.append(f"unknown option '{name}'" + (f", did you mean '{close[0]}'?" if close else ""))
    return ValidationError("; ".join(parts), details={"unknown_options": nearest, "known_options": sorted(known)})
