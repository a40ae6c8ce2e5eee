"""Settings: who overrides whom, what is refused at the start, and documented names."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.core import config
from src.core.config import Settings, is_loopback, load_env_file, load_settings, unknown_variables
from src.core.errors import ConfigurationError
from src.core.settings_sections import ollama_address

OURS = ("AIML_", "MLFLOW_", "LAKEFS_", "OLLAMA_", "AWS_")
DOCUMENTED_ENGINES = """
ollama: {api_base: "http://localhost:11434", timeout: 300, auto_pull: true, verify_ssl: false}
transformers: {device: auto, torch_dtype: auto, trust_remote_code: true, cache_dir: ./cache/models}
cache: {max_size: 5, ttl: 3600, strategy: lru}
"""
DOCUMENTED_ENV = """
POSTGRES_USER=mlflow
POSTGRES_PASSWORD=mlflow
POSTGRES_DB=mlflow
MLFLOW_S3_ENDPOINT_URL=http://lakefs:8001
AWS_ACCESS_KEY_ID=key
AWS_SECRET_ACCESS_KEY=secret
MLFLOW_DEFAULT_ARTIFACT_ROOT=s3://mlflow-artifacts/
MLFLOW_BACKEND_STORE_URI=postgresql://${POSTGRES_USER}:${POSTGRES_PASSWORD}@postgres:5432/${POSTGRES_DB}
"""

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place of installation, and an environment without a setting of ours."""
    for name in os.environ:
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.setattr(config, "ROOT", tmp_path)
    monkeypatch.setattr(config, "BASE_YAML", tmp_path / "base.yaml")
    return tmp_path


@pytest.fixture
def engines(root: Path) -> Write:
    """Writes engines_config.yaml."""
    return lambda text: write(root / "engines_config.yaml", text)


@pytest.fixture
def base(root: Path) -> Write:
    """Writes base.yaml."""
    return lambda text: write(root / "base.yaml", text)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# ---------------------------------------------------------------------- who overrides whom


def test_each_source_overrides_the_ones_below(base: Write, engines: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def address() -> str:
        return load_settings().ollama.api_base

    assert address() == "http://localhost:11434"
    base("ollama: {api_base: 'http://base:1'}")
    assert address() == "http://base:1"
    engines("ollama: {api_base: 'http://engines:2'}")
    assert address() == "http://engines:2"
    monkeypatch.setenv("OLLAMA_HOST", "environment:3")
    assert address() == "http://environment:3"
    monkeypatch.setenv("AIML_OLLAMA__API_BASE", "http://ours:4")
    assert address() == "http://ours:4"
    assert load_settings(ollama={"api_base": "http://call:5"}).ollama.api_base == "http://call:5"


def test_sources_add_up_within_a_section(base: Write, engines: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    base("cache: {max_size: 7, ttl: 60, strategy: lfu}")
    engines("cache: {ttl: 120}")
    monkeypatch.setenv("AIML_CACHE__STRATEGY", "lru")
    cache = load_settings().cache
    assert (cache.max_size, cache.ttl, cache.strategy) == (7, 120, "lru")


def test_the_packaged_address_in_engines_config_does_not_hide_one_in_base(base: Write, engines: Write) -> None:
    base("ollama: {api_base: 'http://gpu-box:11434'}")
    engines("ollama: {api_base: 'http://localhost:11434', timeout: 30}")
    ollama = load_settings().ollama
    assert (ollama.api_base, ollama.timeout) == ("http://gpu-box:11434", 30)


def test_another_engines_config_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "mine.yaml", "cache: {max_size: 2}")
    monkeypatch.setenv("AIML_ENGINES_CONFIG", str(path))
    assert load_settings().cache.max_size == 2


def test_an_empty_variable_is_unset(engines: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    engines("cache: {max_size: 7}")
    for name in ("AIML_CACHE__MAX_SIZE", "OLLAMA_HOST", "MLFLOW_TRACKING_URI", "AIML_API_KEYS"):
        monkeypatch.setenv(name, "")
    settings = load_settings()
    assert (settings.cache.max_size, settings.api_keys) == (7, ())
    assert not settings.ollama.configured
    assert settings.registry_is_embedded


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n"])
def test_an_empty_file_sets_nothing(base: Write, engines: Write, text: str) -> None:
    before = load_settings()
    base(text)
    engines(text)
    assert load_settings() == before


def test_variables_of_an_env_file_stand_below_those_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "mine.env", "AIML_PORT=1111\nAIML_LOG_LEVEL=DEBUG\n")
    monkeypatch.setenv("AIML_ENV_FILE", str(path))
    monkeypatch.setenv("AIML_PORT", "2222")
    forget_later(monkeypatch, "AIML_LOG_LEVEL")
    load_env_file()
    settings = load_settings()
    assert (settings.port, settings.log_level) == (2222, "DEBUG")


def forget_later(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Makes sure that variables which a test sets behind monkeypatch's back are gone after it."""
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


# ---------------------------------------------------------------------- documented files and names


def test_the_documented_engines_config(engines: Write) -> None:
    engines(DOCUMENTED_ENGINES)
    settings = load_settings()
    assert settings.ollama.model_dump() == {
        "api_base": "http://localhost:11434",
        "timeout": 300.0,
        "auto_pull": True,
        "verify_ssl": False,
    }
    assert settings.transformers.cache_dir == "./cache/models"
    assert (settings.cache.max_size, settings.cache.ttl, settings.cache.strategy) == (5, 3600.0, "lru")


def test_the_documented_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIML_ENV_FILE", str(write(tmp_path / ".env", DOCUMENTED_ENV)))
    forget_later(monkeypatch, *(line.partition("=")[0] for line in DOCUMENTED_ENV.split()))
    load_env_file()
    settings = load_settings()
    assert settings.lakefs.access_key_id == "key"
    assert settings.lakefs.secret_access_key.get_secret_value() == "secret"
    assert os.environ["MLFLOW_BACKEND_STORE_URI"] == "postgresql://mlflow:mlflow@postgres:5432/mlflow"


def test_lakefs_own_names_come_before_amazons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "amazon")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "amazon-secret")
    monkeypatch.setenv("LAKEFS_ACCESS_KEY_ID", "lakefs")
    lakefs = load_settings().lakefs
    assert (lakefs.access_key_id, lakefs.secret_access_key.get_secret_value()) == ("lakefs", "amazon-secret")


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("MLFLOW_TRACKING_URI", "http://mlflow:5000", lambda s: s.tracking_uri),
        ("LAKEFS_ENDPOINT", "http://lakefs:8000", lambda s: s.lakefs.endpoint),
        ("OLLAMA_HOST", "http://ollama:1", lambda s: s.ollama.api_base),
        ("AIML_HOST", "0.0.0.0", lambda s: s.host),
        ("AIML_WORKERS__ISOLATION", "thread", lambda s: s.workers.isolation),
        ("AIML_SAMPLES", "off", lambda s: s.samples),
    ],
)
def test_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str, read: Callable[[Settings], str]) -> None:
    monkeypatch.setenv(name, value)
    assert read(load_settings()) == value


def test_the_log_level_may_be_written_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIML_LOG_LEVEL", "debug")
    assert load_settings().log_level == "DEBUG"


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("AIML_API_KEYS", "api_keys"),
        ("AIML_ALLOWED_HOSTS", "allowed_hosts"),
        ("AIML_ALLOWED_ORIGINS", "allowed_origins"),
        ("AIML_MEDIA_ROOTS", "media_roots"),
        ("AIML_REQUIRED_MODELS", "required_models"),
    ],
)
def test_a_list_is_separated_by_commas(monkeypatch: pytest.MonkeyPatch, name: str, field: str) -> None:
    monkeypatch.setenv(name, " one, two ,,three")
    assert getattr(load_settings(), field) == ("one", "two", "three")


@pytest.mark.parametrize(
    ("short", "name"),
    [
        ("fp16", "float16"), ("bf16", "bfloat16"), ("fp32", "float32"),
        ("8bit", "int8"), ("int4", "nf4"), ("4bit", "nf4"),
    ],
)  # fmt: skip
def test_short_names_of_number_formats(engines: Write, short: str, name: str) -> None:
    engines(f"transformers: {{torch_dtype: {short}}}")
    assert load_settings().transformers.torch_dtype == name


# ---------------------------------------------------------------------- Ollama's address


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("localhost", "http://localhost:11434"),
        ("192.168.1.5", "http://192.168.1.5:11434"),
        ("gpu-box:8080", "http://gpu-box:8080"),
        ("http://gpu-box:8080/", "http://gpu-box:8080"),
        ("https://ollama.example", "https://ollama.example"),
        (" https://ollama.example/proxy/ ", "https://ollama.example/proxy"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:11500", "http://127.0.0.1:11500"),
        ("http://0.0.0.0:11500", "http://127.0.0.1:11500"),
        ("10.0.0.0:11434", "http://10.0.0.0:11434"),
        ("[::1]:11500", "http://[::1]:11500"),
        ("[::1]", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        (":11500", "http://127.0.0.1:11500"),
        ("https://me:secret@ollama.example", "https://me:secret@ollama.example"),
    ],
)
def test_ollama_address(given: str, address: str) -> None:
    assert ollama_address(given) == address


@pytest.mark.parametrize(("given", "configured"), [(None, False), ("http://localhost:11434", False), ("box", True)])
def test_ollama_is_configured_by_another_address(
    monkeypatch: pytest.MonkeyPatch, given: str | None, configured: bool
) -> None:
    if given is not None:
        monkeypatch.setenv("OLLAMA_HOST", given)
    assert load_settings().ollama.configured is configured


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("section", ["ollama", "transformers", "cache", "workers", "queue", "mlflow", "lakefs"])
@pytest.mark.parametrize("where", ["base", "engines"])
def test_a_misspelt_key_is_named(base: Write, engines: Write, where: str, section: str) -> None:
    {"base": base, "engines": engines}[where](f"{section}: {{tiemout: 5}}")
    with pytest.raises(ConfigurationError, match=f"{section}.tiemout: Extra inputs are not permitted"):
        load_settings()


@pytest.mark.parametrize("where", ["base", "engines"])
def test_a_misspelt_section_is_named(base: Write, engines: Write, where: str) -> None:
    {"base": base, "engines": engines}[where]("cahce: {max_size: 2}")
    with pytest.raises(ConfigurationError, match="cahce"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("AIML_PORT", "eight", "port"),
        ("AIML_PORT", "70000", "port"),
        ("AIML_CACHE__MAX_SIZE", "0", "cache.max_size"),
        ("AIML_CACHE__STRATEGY", "fifo", "cache.strategy"),
        ("AIML_CACHE__MAX_SISE", "3", "cache.max_sise"),
        ("AIML_CACHE", "three", "cache"),
        ("AIML_OLLAMA__TIMEOUT", "-1", "ollama.timeout"),
        ("AIML_TRANSFORMERS__DEVICE", "gpu", "transformers.device"),
        ("AIML_LOG_LEVEL", "loud", "log_level"),
        ("OLLAMA_HOST", "box:port", "ollama.api_base"),
        ("AIML_ALLOW_ANONYMOUS", "perhaps", "allow_anonymous"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, named: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=named):
        load_settings()


def test_a_misspelt_variable_is_told_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIML_ALOWED_HOSTS", "AIML_PORT", "AIML_CACHE__TTL", "AIML_ENV_FILE", "AIML_ENGINES_CONFIG"):
        monkeypatch.setenv(name, "1")
    assert unknown_variables() == ["the variable AIML_ALOWED_HOSTS has no effect: did you mean AIML_ALLOWED_HOSTS?"]


def test_every_wrong_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIML_PORT", "eight")
    monkeypatch.setenv("AIML_CACHE__TTL", "0")
    with pytest.raises(ConfigurationError, match=r"port.*; cache\.ttl|cache\.ttl.*; port"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "words"), [("- a\n- list\n", "must hold a mapping"), ("cache: {", "cannot be read"), ("text", "mapping")]
)
def test_a_file_that_makes_no_sense_is_named(engines: Write, text: str, words: str) -> None:
    path = engines(text)
    with pytest.raises(ConfigurationError, match=words) as caught:
        load_settings()
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "192.168.1.5"}, True),
        ({"host": "box.local"}, True),
        ({"host": "0.0.0.0", "api_keys": "secret"}, False),
        ({"host": "0.0.0.0", "api_keys": " , "}, True),
        ({"host": "0.0.0.0", "allow_anonymous": True}, False),
    ],
)
def test_listening_beyond_this_machine_needs_a_key(changes: dict[str, Any], refused: bool) -> None:
    settings = load_settings(**changes)
    if not refused:
        settings.check_listening()
        return
    with pytest.raises(ConfigurationError, match=r"AIML_API_KEYS.*AIML_ALLOW_ANONYMOUS=1"):
        settings.check_listening()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


# ---------------------------------------------------------------------- secrets and places


def test_secrets_are_not_in_the_settings_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIML_API_KEYS", "hush-key")
    monkeypatch.setenv("LAKEFS_SECRET_ACCESS_KEY", "hush-lakefs")
    assert "hush" not in f"{load_settings()!r} {load_settings()}"


def test_the_data_folder_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load_settings(data_dir="mine").data_dir == tmp_path / "mine"
    assert load_settings(data_dir="~/mine").data_dir == tmp_path / "home" / "mine"


def test_without_an_address_the_registry_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert settings.registry_is_embedded


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]
