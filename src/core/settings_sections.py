"""The sections of the settings: names, types, bounds and defaults of what `src.core.config` reads."""

from ipaddress import ip_network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

PACKAGED_OLLAMA = "http://localhost:11434"

DEVICES = r"^(auto|cpu|mps|cuda(:\d+)?)$"

DTYPE_NAMES = {
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp32": "float32",
    "8bit": "int8",
    "int4": "nf4",
    "4bit": "nf4",
}
"""Other names of number formats."""

Dtype = Annotated[
    Literal["auto", "float32", "float16", "bfloat16", "int8", "nf4"],
    BeforeValidator(lambda value: DTYPE_NAMES.get(value, value) if isinstance(value, str) else value),
]

NameList = Annotated[tuple[str, ...], NoDecode]


class Section(BaseModel):
    """A group of settings; unknown keys are refused so that a misspelt one is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MlflowSettings(Section):
    tracking_uri: str = Field("", description="MLflow server or database; empty: embedded sqlite")
    request_timeout: float = Field(10.0, gt=0, description="seconds for one call to MLflow")
    cache_ttl: float = Field(5.0, gt=0, description="seconds before a resolved name is looked at again")


class LakefsSettings(Section):
    endpoint: str = Field("", description="lakeFS address; empty: embedded version store")
    access_key_id: str = ""
    secret_access_key: SecretStr = SecretStr("")
    storage_namespace: str = Field("", description="where new repositories keep their objects: s3://bucket/prefix")
    verify_ssl: bool = Field(True, description="check the certificate of an https address")


class OllamaSettings(Section):
    api_base: str = Field(PACKAGED_OLLAMA, description="address of the Ollama server")
    timeout: float = Field(300.0, gt=0, description="seconds for one answer of Ollama")
    auto_pull: bool = Field(True, description="pull a registered model that Ollama lacks")
    verify_ssl: bool = Field(True, description="check the certificate of an https address")

    @field_validator("api_base")
    @classmethod
    def _with_scheme(cls, value: str) -> str:
        return ollama_address(value)

    @property
    def configured(self) -> bool:
        """Whether an address was set outside the packaged files."""
        return self.api_base != PACKAGED_OLLAMA


class TransformersSettings(Section):
    device: str = Field("auto", pattern=DEVICES)
    torch_dtype: Dtype = "auto"
    trust_remote_code: bool = Field(True, description="counts only for models in trusted_models")
    trusted_models: NameList = Field((), description="registered names whose own code may run")
    cache_dir: str = Field("./cache/models", description="where Hugging Face downloads are cached")

    @field_validator("trusted_models", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return split_names(value)


class CacheSettings(Section):
    max_size: int = Field(5, ge=1, description="models kept loaded at most")
    max_variants: int = Field(2, ge=1, description="loads of one version in different devices or dtypes")
    ttl: float = Field(3600.0, gt=0, description="seconds after which an idle model is unloaded")
    strategy: Literal["lru", "lfu"] = "lru"


class WorkerSettings(Section):
    isolation: Literal["process", "thread"] = Field("process", description="where in-house models run")
    preload: Literal["auto", "always", "never"] = Field(
        "auto", description="a process with the libraries imported, from which workers are forked"
    )
    start_timeout: float = Field(120.0, gt=0, description="seconds a worker process may take to start")
    load_timeout: float = Field(600.0, gt=0, description="seconds a model may take to load")
    max_deaths: int = Field(4, ge=1, description="deaths within 300 s after which a model is quarantined")
    quarantine: float = Field(60.0, gt=0, description="seconds that a quarantine lasts")


class QueueSettings(Section):
    max_size: int = Field(256, ge=1, description="requests that may wait for one model")
    max_batch_size: int = Field(32, ge=1, description="requests that an engine which can takes together")
    max_wait_ms: float = Field(0.0, ge=0, le=10_000, description="how long a batch that is not full waits for more")


class ModelSettings(Section):
    """What an operator sets for one model; None: what holds for all."""

    device: str | None = Field(None, pattern=DEVICES, description="where it runs for requests that do not say")
    dtype: Dtype | None = Field(None, description="number format for requests that do not say")
    max_batch_size: int | None = Field(None, ge=1, description="requests taken together")
    max_wait_ms: float | None = Field(None, ge=0, le=10_000, description="how long a batch that is not full waits")
    queue_priority: int | None = Field(None, ge=-10, le=10, description="priority of requests that name none")
    cache_results: bool | None = Field(None, description="whether results are kept for requests that do not say")


class MediaSettings(Section):
    """The bounds of media: how large, how long, how many, and how much the decoders may take."""

    max_mb: float = Field(256.0, gt=0, description="largest audio, video or document, in MB")
    max_image_mb: float = Field(32.0, gt=0, description="largest image file, in MB")
    # Pillow's own bound: a quarter of a GiB of RGB.
    max_pixels: int = Field(89_478_485, ge=1, description="pixels of an image; of a video's or document's, together")
    max_audio_seconds: float = Field(3600.0, gt=0, description="longest audio")
    max_video_seconds: float = Field(600.0, gt=0, description="longest video")
    max_video_frames: int = Field(64, ge=1, description="frames taken from one video")
    max_inputs: int = Field(16, ge=1, description="images of one request")
    max_pdf_pages: int = Field(50, ge=1, description="pages read of one document")
    decode_timeout: float = Field(30.0, gt=0, description="seconds one decoding may take")
    fetch_timeout: float = Field(20.0, gt=0, description="seconds for fetching one URL, redirects included")
    max_fetches: int = Field(8, ge=1, description="URLs fetched, or fetched and not decoded yet, at the same time")
    workers: int = Field(2, ge=1, description="decoder processes at the same time")
    max_waiting: int = Field(64, ge=1, description="decodings that may wait for a decoder process")
    memory_mb: int = Field(1024, ge=64, description="memory that a decoder process may take, in MiB")
    idle_seconds: float = Field(60.0, gt=0, description="seconds after which an idle decoder process ends")

    ocr: str = Field("demo-ocr", description="OCR model for pages without text: a registered name, tesseract, or none")

    def max_bytes(self, kind: str) -> int:
        """Returns the largest file of a kind, in bytes."""
        return int((self.max_image_mb if kind == "image" else self.max_mb) * 1_000_000)


class ResultSettings(Section):
    """Answers that are kept for requests which ask for the same again; off unless a request or a model asks for it."""

    max_mb: float = Field(64.0, gt=0, description="results kept in this process, in MB; without Redis")
    max_entry_mb: float = Field(1.0, gt=0, description="largest result that is kept, in MB")
    ttl: float = Field(3600.0, ge=0.001, description="seconds that a result is kept")
    redis_url: SecretStr = Field(SecretStr(""), description="Redis that services share results in; empty: none")

    @field_validator("redis_url")
    @classmethod
    def _address(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value():
            check_redis_address(value.get_secret_value())
        return value


class LimitSettings(Section):
    """How much one caller may ask; 0 is no bound."""

    requests_per_minute: int = Field(0, ge=0, description="requests of one caller a minute; 0: any number")
    burst: int = Field(10, ge=1, description="requests of one caller that may come at once")
    concurrent: int = Field(0, ge=0, description="requests of one caller in flight at once; 0: any number")
    trusted_proxies: NameList = Field((), description="addresses and networks whose X-Forwarded-For is believed")

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return split_names(value)

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            ip_network(entry, strict=False)
        return value


class JobSettings(Section):
    concurrency: int = Field(2, ge=1, description="downloads and uploads that run at the same time")
    keep_days: int = Field(30, ge=1, description="days that finished jobs are listed")


def split_names(value: Any) -> Any:
    """Returns a text's comma-separated parts; anything else as it is."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def check_redis_address(url: str) -> None:
    """Raises ValueError, without the password, for what is no address of a Redis."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("a Redis address begins with redis://, rediss:// or unix://")
    if parts.scheme != "unix" and not parts.hostname:
        raise ValueError("a Redis address names a host: redis://host:6379/0")
    try:
        _ = parts.port
    except ValueError as exc:
        raise ValueError("the port of a Redis address is a number from 0 to 65535") from exc


def ollama_address(value: str) -> str:
    """Returns an Ollama address as a URL; takes what Ollama's own OLLAMA_HOST takes (`0.0.0.0`, `host:port`)."""
    text = value.strip().rstrip("/")
    if text.count(":") > 1 and "[" not in text and "://" not in text:
        text = f"[{text}]"  # a bare IPv6 address
    has_scheme = "://" in text
    parts = urlsplit(text if has_scheme else f"http://{text}")
    host = parts.hostname or ""
    # What a server listens on is no address to call.
    host = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
    port = parts.port or (None if has_scheme else 11434)
    name = f"[{host}]" if ":" in host else host
    user, at, _ = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{user}{at}{name}{f':{port}' if port else ''}{parts.path}"
