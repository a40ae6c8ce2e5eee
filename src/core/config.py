"""Settings: the only reader of the environment and of the YAML files.

Environment (`AIML_*`, and the documented `MLFLOW_*`, `AWS_*`, `LAKEFS_*`, `OLLAMA_HOST`) over
`engines_config.yaml` at the top level over `src/core/configs/base.yaml`. Nested settings take a
double underscore: `AIML_CACHE__MAX_SIZE=3`.
"""

import difflib
import ipaddress
import os
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from dotenv import load_dotenv
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic import ValidationError as PydanticValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from src.core.errors import ConfigurationError
from src.core.memory import parse_bytes

ROOT = Path(__file__).resolve().parents[2]
BASE_YAML = ROOT / "src/core/configs/base.yaml"
PACKAGED_OLLAMA = "http://localhost:11434"

DTYPE_NAMES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}

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
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    torch_dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    trust_remote_code: bool = Field(True, description="counts only for models in trusted_models")
    trusted_models: NameList = Field((), description="registered names whose own code may run")
    cache_dir: str = Field("./cache/models", description="where Hugging Face downloads are cached")

    @field_validator("trusted_models", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return split_names(value)

    @field_validator("torch_dtype", mode="before")
    @classmethod
    def _short_dtype(cls, value: Any) -> Any:
        return DTYPE_NAMES.get(value, value)


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


class JobSettings(Section):
    concurrency: int = Field(2, ge=1, description="downloads and uploads that run at the same time")
    keep_days: int = Field(30, ge=1, description="days that finished jobs are listed")


class Settings(BaseSettings):
    """Every setting of the platform, validated once at the start."""

    model_config = SettingsConfigDict(
        env_prefix="AIML_", env_nested_delimiter="__", extra="ignore", frozen=True, env_ignore_empty=True
    )

    host: str = "127.0.0.1"
    port: int = Field(8009, ge=0, le=65535)
    data_dir: Path = ROOT / "data"
    samples: Literal["on", "off"] = Field("on", description="register the demo models in a new data folder")
    api_keys: NameList = Field((), repr=False, description="keys, separated by commas; none: open on loopback")
    allow_anonymous: bool = Field(False, description="listen beyond loopback without a key")
    allowed_hosts: NameList = Field((), description="Host names answered besides loopback and `host`")
    allowed_origins: NameList = Field((), description="foreign origins that may drive the service")
    media_roots: NameList = Field((), description="folders whose files an HTTP request may name")
    fetch_allow: NameList = Field((), description="host:port whose URLs may be fetched, wherever they are")
    required_models: NameList = Field((), description="models without which /readyz fails")
    memory_budget: int | None = Field(
        None, description="memory for models on the host: 8GB, 512MiB; none: what is free"
    )
    max_body_mb: float = Field(64.0, gt=0, description="largest JSON request body, in MB")
    max_upload_gb: float = Field(100.0, gt=0, description="largest upload of model or dataset files, in GB")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: JSON unless a terminal")
    mlflow: MlflowSettings = MlflowSettings()
    lakefs: LakefsSettings = LakefsSettings()
    ollama: OllamaSettings = OllamaSettings()
    transformers: TransformersSettings = TransformersSettings()
    cache: CacheSettings = CacheSettings()
    workers: WorkerSettings = WorkerSettings()
    queue: QueueSettings = QueueSettings()
    jobs: JobSettings = JobSettings()
    media: MediaSettings = MediaSettings()

    @field_validator(
        "api_keys", "allowed_hosts", "allowed_origins", "media_roots", "fetch_allow", "required_models", mode="before"
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split_names(value)

    @field_validator("memory_budget", mode="before")
    @classmethod
    def _bytes(cls, value: Any) -> Any:
        return None if value in (None, "") else parse_bytes(value)

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    def check_listening(self) -> None:
        """Raises `ConfigurationError` where the service would listen beyond this machine without a key."""
        if not is_loopback(self.host) and not self.api_keys and not self.allow_anonymous:
            raise ConfigurationError(
                f"AIML_HOST={self.host} listens beyond this machine and no key is set: set AIML_API_KEYS, "
                "or AIML_ALLOW_ANONYMOUS=1 to let anybody in"
            )

    @property
    def max_upload_bytes(self) -> int:
        """The largest upload, in bytes."""
        return int(self.max_upload_gb * 1_000_000_000)

    @cached_property
    def embedded_registry(self) -> str:
        """The address of the registry file below the data folder."""
        return f"sqlite:///{self.data_dir / 'mlflow.db'}"

    @property
    def tracking_uri(self) -> str:
        """The registry in use."""
        return self.mlflow.tracking_uri or self.embedded_registry

    @property
    def registry_is_embedded(self) -> bool:
        return self.tracking_uri == self.embedded_registry

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            env_settings,
            _Values(settings_cls, _documented_environment()),
            _Values(settings_cls, _known(_engines_config(), "engines_config.yaml", cls)),
            _Values(settings_cls, _known(_read_yaml(BASE_YAML), "base.yaml", cls)),
        )


class _Values(PydanticBaseSettingsSource):
    """A settings source whose values are known already."""

    def __init__(self, settings_cls: type[BaseSettings], values: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._values = values

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values


def load_env_file() -> None:
    """Takes variables from `.env` beside the code (or the file AIML_ENV_FILE); those set already stay."""
    load_dotenv(os.environ.get("AIML_ENV_FILE") or ROOT / ".env")


def load_settings(**overrides: Any) -> Settings:
    """Reads the settings; raises `ConfigurationError` that says which one cannot work and why."""
    try:
        return Settings(**overrides)
    except SettingsError as exc:
        raise ConfigurationError(f"{exc}: {exc.__cause__}") from exc
    except PydanticValidationError as exc:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in exc.errors()]
        raise ConfigurationError("; ".join(lines)) from exc


def unknown_variables() -> list[str]:
    """Returns a sentence for each `AIML_…` variable that no setting has, with the nearest that one has."""
    known = {f"AIML_{name.upper()}" for name in Settings.model_fields} | _OTHER_VARIABLES
    sentences = []
    for name in sorted(os.environ):
        if name.startswith("AIML_") and name.partition("__")[0] not in known:
            near = difflib.get_close_matches(name, known, n=1)
            sentences.append(f"the variable {name} has no effect" + (f": did you mean {near[0]}?" if near else ""))
    return sentences


def _known(values: dict[str, Any], where: str, settings: type[Settings]) -> dict[str, Any]:
    unknown = [name for name in values if name not in settings.model_fields]
    if unknown:
        raise ConfigurationError(
            f"{where}: there is no section '{unknown[0]}' (there are: {', '.join(settings.model_fields)})"
        )
    return values


def split_names(value: Any) -> Any:
    """Returns a text's comma-separated parts; anything else as it is."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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


_DOCUMENTED = {
    "MLFLOW_TRACKING_URI": ("mlflow", "tracking_uri"),
    "LAKEFS_ENDPOINT": ("lakefs", "endpoint"),
    "LAKEFS_ACCESS_KEY_ID": ("lakefs", "access_key_id"),
    "LAKEFS_SECRET_ACCESS_KEY": ("lakefs", "secret_access_key"),
    "OLLAMA_HOST": ("ollama", "api_base"),
}
# lakeFS speaks S3, so users have been told to give its key under Amazon's names.
_LAKEFS_BY_S3 = {"AWS_ACCESS_KEY_ID": "LAKEFS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY": "LAKEFS_SECRET_ACCESS_KEY"}


_EXPORTED = "AIML_EXPORTED_TRACKING_URI"
_OTHER_VARIABLES = {_EXPORTED, "AIML_ENV_FILE", "AIML_ENGINES_CONFIG", "AIML_URL", "AIML_API_KEY"}


def export_tracking_uri(settings: Settings) -> None:
    """Points MLflow's own client in this process at the registry in use, unless it was pointed somewhere.

    So `MlflowClient()` beside our Python door finds what the door registered. What was exported is
    marked, so that it is not taken for a configured server later, nor by a process started from here.
    """
    if os.environ.get("MLFLOW_TRACKING_URI") in (None, "", os.environ.get(_EXPORTED)):
        os.environ["MLFLOW_TRACKING_URI"] = os.environ[_EXPORTED] = settings.tracking_uri


def _documented_environment() -> dict[str, Any]:
    found = {name: os.environ[name] for name in _DOCUMENTED if os.environ.get(name)}
    if found.get("MLFLOW_TRACKING_URI") == os.environ.get(_EXPORTED):
        found.pop("MLFLOW_TRACKING_URI", None)
    for s3_name, name in _LAKEFS_BY_S3.items():
        if os.environ.get(s3_name):
            found.setdefault(name, os.environ[s3_name])
    values: dict[str, Any] = {}
    for name, text in found.items():
        section, key = _DOCUMENTED[name]
        values.setdefault(section, {})[key] = text
    return values


def _engines_config() -> dict[str, Any]:
    path = Path(os.environ.get("AIML_ENGINES_CONFIG") or ROOT / "engines_config.yaml")
    values = _read_yaml(path)
    ollama = values.get("ollama")
    # The shipped file names the packaged address; that must not hide one written in base.yaml.
    if isinstance(ollama, dict) and ollama.get("api_base") == PACKAGED_OLLAMA:
        values["ollama"] = {key: value for key, value in ollama.items() if key != "api_base"}
    return values


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError) as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc}") from exc
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} must hold a mapping")
    return values
