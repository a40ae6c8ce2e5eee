"""model_registry: handlers and engines enter by hand, by import and by entry point."""

import logging
import sys
from pathlib import Path

import pytest

from src.core.errors import ConfigurationError, ValidationError
from src.inference import models
from src.inference.engines.base import BaseEngine
from src.inference.engines.ollama import OllamaEngine
from src.inference.engines.transformers import TransformersEngine
from src.inference.models.base import BaseModelHandler
from src.inference.models.text_generation import TextGenerationHandler
from src.inference.registry import ModelRegistry, model_registry

PLUGIN = """
from src.inference.engines.base import BaseEngine
from src.inference.models.base import BaseModelHandler

class HaikuHandler(BaseModelHandler):
    task = "haiku"

class HaikuEngine(BaseEngine):
    pass

class NamedEngine(BaseEngine):
    name = "haiku-on-rails"

not_a_class = 5
"""


class CustomTaskHandler(BaseModelHandler):
    """Somebody's own."""


class OtherHandler(BaseModelHandler):
    """Another."""


class CustomEngine(BaseEngine):
    """Somebody's own."""


@pytest.fixture
def registry() -> ModelRegistry:
    return ModelRegistry()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Installer":
    monkeypatch.syspath_prepend(str(tmp_path))
    return Installer(tmp_path, monkeypatch)


class Installer:
    """Puts a distribution with a module and entry points on the path, as pip does."""

    def __init__(self, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._site = site
        self._monkeypatch = monkeypatch

    def __call__(self, module: str, source: str, *, handlers: str = "", engines: str = "") -> None:
        (self._site / f"{module}.py").write_text(source)
        info = self._site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[aiml.handlers]\n{handlers}\n\n[aiml.engines]\n{engines}\n")
        self._monkeypatch.delitem(sys.modules, module, raising=False)


def test_built_ins_are_there(registry: ModelRegistry) -> None:
    assert registry.engines().items() >= {"ollama": OllamaEngine, "transformers": TransformersEngine}.items()
    assert registry.handler_for("text-generation", "any") is TextGenerationHandler


def test_a_handler_by_hand(registry: ModelRegistry) -> None:
    registry.register_handler_manually(task="custom-task", model_pattern="default", handler_class=CustomTaskHandler)
    assert registry.handler_for("custom-task", "any/model:1b") is CustomTaskHandler
    assert registry.tasks()["custom-task"] == {"default": "CustomTaskHandler"}


def test_a_handler_by_hand_takes_the_place_of_the_built_in(registry: ModelRegistry) -> None:
    registry.register_handler_manually("text-generation", "default", CustomTaskHandler)
    assert registry.handler_for("text-generation", "any") is CustomTaskHandler
    assert registry.tasks()["text-generation"] == {"default": "CustomTaskHandler"}


def test_a_handler_imported_in_the_models_package(registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "CustomTaskHandler", CustomTaskHandler, raising=False)
    assert registry.handler_for("custom-task", "any") is CustomTaskHandler


def test_a_handler_imported_after_the_first_request(registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.discover()
    monkeypatch.setattr(models, "CustomTaskHandler", CustomTaskHandler, raising=False)
    assert registry.handler_for("custom-task", "any") is CustomTaskHandler


def test_the_base_class_in_the_models_package_handles_nothing(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "BaseModelHandler", BaseModelHandler, raising=False)
    assert BaseModelHandler.task_name() not in registry.tasks()


def test_a_handler_by_entry_point(registry: ModelRegistry, install: Installer) -> None:
    install("haiku_plugin", PLUGIN, handlers="haiku = haiku_plugin:HaikuHandler")
    found = registry.handler_for("haiku", "any")
    assert (found.__module__, found.__qualname__) == ("haiku_plugin", "HaikuHandler")


@pytest.mark.parametrize(("class_name", "name"), [("HaikuEngine", "verse"), ("NamedEngine", "haiku-on-rails")])
def test_an_engine_by_entry_point(registry: ModelRegistry, install: Installer, class_name: str, name: str) -> None:
    install("haiku_plugin", PLUGIN, engines=f"verse = haiku_plugin:{class_name}")
    assert registry.engines()[name].__qualname__ == class_name


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (PLUGIN, "haiku_plugin:Missing"),
        (PLUGIN, "haiku_plugin:not_a_class"),
        ("import not_there_at_all", "haiku_plugin:HaikuHandler"),
        ("raise RuntimeError('broken')", "haiku_plugin:HaikuHandler"),
        ("def (", "haiku_plugin:HaikuHandler"),
    ],
)
def test_a_broken_plugin_is_logged_and_skipped(
    registry: ModelRegistry, install: Installer, caplog: pytest.LogCaptureFixture, source: str, target: str
) -> None:
    install("haiku_plugin", source, handlers=f"haiku = {target}")
    install("sane_plugin", PLUGIN, handlers="sane = sane_plugin:HaikuHandler")
    with caplog.at_level(logging.ERROR, "src.inference.registry"):
        assert registry.handler_for("haiku", "any").__module__ == "sane_plugin"
    (record,) = caplog.records
    assert "plugin" in record.message
    assert "skipped" in record.message
    assert record.exc_info is not None


def test_a_handler_by_hand_takes_the_place_of_a_plugin(registry: ModelRegistry, install: Installer) -> None:
    install("haiku_plugin", PLUGIN, handlers="haiku = haiku_plugin:HaikuHandler")
    registry.register_handler_manually("haiku", "default", OtherHandler)
    assert registry.tasks()["haiku"] == {"default": "OtherHandler"}
    assert registry.handler_for("haiku", "any") is OtherHandler


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("llama2-7b", "default"),
        ("qwen3", "qwen*"),
        ("qwen3-coder", "qwen3-coder*"),
        ("qwen3-coder-30b", "qwen3-coder*"),
        ("org/qwen3", "default"),
        ("default", "default"),
        ("Qwen3", "default"),
    ],
)
def test_the_most_specific_pattern_wins(registry: ModelRegistry, model: str, expected: str) -> None:
    patterns = ["default", "qwen*", "qwen3-coder*"]
    classes = {pattern: type(f"H{i}", (BaseModelHandler,), {}) for i, pattern in enumerate(patterns)}
    for pattern, handler_class in classes.items():
        registry.register_handler_manually("custom-task", pattern, handler_class)
    assert registry.handler_for("custom-task", model) is classes[expected]


@pytest.mark.parametrize("model", ["qwen3", "qwen3@production", "qwen3@2"])
def test_a_pattern_is_for_every_version_of_a_model(registry: ModelRegistry, model: str) -> None:
    registry.register_handler_manually("custom-task", "qwen3", CustomTaskHandler)
    assert registry.handler_for("custom-task", model) is CustomTaskHandler


def test_a_pattern_of_ones_own_leaves_the_built_in_for_other_models(registry: ModelRegistry) -> None:
    registry.register_handler_manually("text-generation", "qwen*", CustomTaskHandler)
    assert registry.handler_for("text-generation", "qwen3") is CustomTaskHandler
    assert registry.handler_for("text-generation", "llama2") is TextGenerationHandler


def test_a_model_that_no_pattern_takes_is_told_the_patterns(registry: ModelRegistry) -> None:
    registry.register_handler_manually("custom-task", "qwen*", CustomTaskHandler)
    with pytest.raises(ValidationError, match=r"no handler of task 'custom-task' takes the model 'llama2'.*qwen\*"):
        registry.handler_for("custom-task", "llama2")


def test_an_unknown_task_is_answered_with_the_nearest(registry: ModelRegistry) -> None:
    with pytest.raises(ValidationError, match="unknown task 'text-generatoin', did you mean 'text-generation'"):
        registry.handler_for("text-generatoin", "any")


def test_a_task_like_no_other_is_answered_with_those_there_are(registry: ModelRegistry) -> None:
    with pytest.raises(ValidationError, match=r"unknown task 'xyzzy' \(there are: .*text-generation"):
        registry.handler_for("xyzzy", "any")


@pytest.mark.parametrize("thing", [CustomEngine, CustomTaskHandler(), "CustomTaskHandler", dict])
def test_what_is_no_handler_class_is_refused(registry: ModelRegistry, thing: object) -> None:
    with pytest.raises(ConfigurationError, match="not a subclass of BaseModelHandler"):
        registry.register_handler_manually("custom-task", "default", thing)  # type: ignore[arg-type]


@pytest.mark.parametrize("thing", [CustomTaskHandler, CustomEngine(), "CustomEngine"])
def test_what_is_no_engine_class_is_refused(registry: ModelRegistry, thing: object) -> None:
    with pytest.raises(ConfigurationError, match="not a subclass of BaseEngine"):
        registry.register_engine("custom", thing)  # type: ignore[arg-type]


def test_an_engine_by_hand(registry: ModelRegistry) -> None:
    registry.register_engine("custom", CustomEngine)
    assert registry.engines()["custom"] is CustomEngine


def test_the_documented_name_is_a_registry() -> None:
    assert isinstance(model_registry, ModelRegistry)
