"""Settings files: engines_config.yaml, .env and base.yaml."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.core.config import load_settings
from src.inference.engines.ollama import OllamaEngine
from src.inference.engines.transformers import TransformersEngine
from tests.documented.documents import ENGINES_CONFIG, ENV
from tests.service import ROOT

VARIABLES = dict(line.split("=", 1) for line in ENV.splitlines() if "=" in line)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts an engines_config.yaml in force."""

    def put(text: str) -> None:
        (tmp_path / "engines_config.yaml").write_text(text)
        monkeypatch.setenv("AIML_ENGINES_CONFIG", str(tmp_path / "engines_config.yaml"))

    return put


def test_engines_config_ollama(config: Any) -> None:
    """`ollama: {api_base: "http://localhost:11434", timeout: 300, auto_pull: true, verify_ssl: false}`."""
    config(ENGINES_CONFIG)
    assert OllamaEngine().config == {
        "api_base": "http://localhost:11434", "timeout": 300, "auto_pull": True, "verify_ssl": False,
    }  # fmt: skip


def test_engines_config_transformers(config: Any) -> None:
    """`transformers: {device: auto, torch_dtype: auto, trust_remote_code: true, cache_dir: ./cache/models}`."""
    config(ENGINES_CONFIG)
    assert TransformersEngine().config.items() >= {
        "device": "auto", "torch_dtype": "auto", "trust_remote_code": True, "cache_dir": "./cache/models",
    }.items()  # fmt: skip


@pytest.mark.parametrize(("written", "means"), [("fp16", "float16"), ("fp32", "float32")])
def test_engines_config_torch_dtype_also_fp16_fp32(config: Any, written: str, means: str) -> None:
    """`# torch_dtype also fp16, fp32`."""
    config(ENGINES_CONFIG.replace("torch_dtype: auto", f"torch_dtype: {written}"))
    assert TransformersEngine().config["torch_dtype"] == means


@pytest.mark.parametrize("strategy", ["lru", "lfu"])
def test_engines_config_cache(config: Any, strategy: str) -> None:
    """`cache: {max_size: 5, ttl: 3600, strategy: lru}   # or lfu`."""
    config(ENGINES_CONFIG.replace("strategy: lru", f"strategy: {strategy}"))
    cache = load_settings().cache
    assert (cache.max_size, cache.ttl, cache.strategy) == (5, 3600, strategy)


def test_the_shipped_engines_config_has_what_is_documented() -> None:
    """`# engines_config.yaml`; `verify_ssl` ships as true, which the file explains."""
    documented, shipped = yaml.safe_load(ENGINES_CONFIG), yaml.safe_load((ROOT / "engines_config.yaml").read_text())
    documented["ollama"]["verify_ssl"] = True
    for section, values in documented.items():
        assert values.items() <= shipped[section].items()


@pytest.mark.parametrize("name", VARIABLES)
def test_env_variable_is_in_the_example(name: str) -> None:
    """`# .env`: each of its variables is a line of .env.example, set or to be uncommented."""
    lines = re.findall(rf"^(?:# )?{name}=(.+)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert len(lines) == 1
    if not VARIABLES[name].startswith(("<", "http://<")):
        assert lines == [VARIABLES[name]]


def test_base_yaml_holds_the_addresses_of_mlflow_lakefs_ollama() -> None:
    """`src/core/configs/base.yaml` holds the addresses of `mlflow`, `lakefs`, `ollama`."""
    base = yaml.safe_load((ROOT / "src/core/configs/base.yaml").read_text())
    assert {section: list(values) for section, values in base.items()} == {
        "mlflow": ["tracking_uri"], "lakefs": ["endpoint"], "ollama": ["api_base"],
    }  # fmt: skip


def test_an_address_in_base_yaml_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(From a container usually `http://host.docker.internal…`.)"""
    text = (ROOT / "src/core/configs/base.yaml").read_text().replace("localhost", "host.docker.internal")
    (tmp_path / "base.yaml").write_text(text.replace('tracking_uri: ""', 'tracking_uri: "http://mlflow:5000"'))
    monkeypatch.setattr("src.core.config.BASE_YAML", tmp_path / "base.yaml")
    settings = load_settings()
    assert settings.ollama.api_base == OllamaEngine().config["api_base"] == "http://host.docker.internal:11434"
    assert settings.tracking_uri == "http://mlflow:5000"
