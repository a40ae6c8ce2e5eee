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
from typing import Any, Literal

import yaml
from dotenv import load_dotenv
from pydantic import Field, field_validator
from pydantic import ValidationError as PydanticValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from src.core.errors import ConfigurationError
from src.core.memory import parse_bytes
from src.core.settings_sections import (
    PACKAGED_OLLAMA,
    CacheSettings,
    JobSettings,
    LakefsSettings,
    LimitSettings,
    MediaSettings,
    MlflowSettings,
    ModelSettings,
    NameList,
    OllamaSettings,
    QueueSettings,
    ResultSettings,
    TransformersSettings,
    WorkerSettings,
    split_names,
)

ROOT = Path(__file__).resolve().parents[2]
BASE_YAML = ROOT / "src/core/configs/base.yaml"


class Settings(BaseSettings):
    """Every setting of the platform, validated once at the start."""

    model_config = SettingsConfigDict(
        env_prefix="AIML_",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,  # it may hold a password
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
    drain_seconds: float = Field(20.0, ge=0, description="seconds requests in flight have once told to stop")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: JSON unless a terminal")
    mlflow: MlflowSettings = MlflowSettings()
    lakefs: LakefsSettings = LakefsSettings()
    ollama: OllamaSettings = OllamaSettings()
    transformers: TransformersSettings = TransformersSettings()
    cache: CacheSettings = CacheSettings()
    workers: WorkerSettings = WorkerSettings()
    queue: QueueSettings = QueueSettings()
    models: dict[str, ModelSettings] = Field({}, description="settings of single models, by registered name")
    jobs: JobSettings = JobSettings()
    media: MediaSettings = MediaSettings()
    results: ResultSettings = ResultSettings()
    limits: LimitSettings = LimitSettings()

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


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
