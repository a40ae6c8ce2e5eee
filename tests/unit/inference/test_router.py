"""TaskRouter: one executor per (task, engine), documented extension points, errors that list what there is."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from src.core.errors import ValidationError
from src.inference.engines.base import BaseEngine
from src.inference.engines.ollama import OllamaEngine
from src.inference.engines.transformers import TransformersEngine
from src.inference.models.base import BaseModelHandler
from src.inference.registry import EngineClass, ModelRegistry
from src.inference.router import TaskRouter, canonical_task


class CustomTaskHandler(BaseModelHandler):
    """Somebody's own."""


class CustomEngine(BaseEngine):
    """Somebody's own, as documented."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.supported_tasks = ["custom-task"]
        self.is_initialized = True


class OtherEngine(CustomEngine):
    """Its successor."""


def executor(task: str, engine: str, engine_class: EngineClass) -> Any:
    return SimpleNamespace(task=task, engine=engine, engine_class=engine_class)


@pytest.fixture
def registry() -> ModelRegistry:
    return ModelRegistry()


@pytest.fixture
def router(registry: ModelRegistry) -> TaskRouter:
    return TaskRouter(registry, executor, clear=lambda: 3)


@pytest.fixture
def custom(registry: ModelRegistry, router: TaskRouter) -> TaskRouter:
    registry.register_handler_manually("custom-task", "default", CustomTaskHandler)
    router._task_engine_mapping["custom-task"] = {"custom": CustomEngine, "transformers": TransformersEngine}
    return router


def test_the_same_executor_comes_back(router: TaskRouter) -> None:
    assert router.route("text-generation", "ollama", "a") is router.route("text-generation", "ollama", "b")


def test_each_engine_has_its_executor(router: TaskRouter) -> None:
    ollama, transformers = (router.route("text-generation", engine) for engine in ("ollama", "transformers"))
    assert (ollama.engine_class, transformers.engine_class) == (OllamaEngine, TransformersEngine)
    assert router.executors() == [ollama, transformers]


def test_many_threads_get_one_executor(router: TaskRouter) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: router.route("text-generation", "ollama"), range(200)))
    assert len(set(map(id, found))) == 1


@pytest.mark.parametrize(("engine", "engine_class"), [("custom", CustomEngine), ("transformers", TransformersEngine)])
def test_an_engine_in_the_documented_mapping(custom: TaskRouter, engine: str, engine_class: EngineClass) -> None:
    found: Any = custom.route("custom-task", engine, "any")
    assert (found.task, found.engine, found.engine_class) == ("custom-task", engine, engine_class)
    assert custom.route("custom-task", engine, "any") is found


def test_a_replaced_engine_gets_an_executor_of_its_own(custom: TaskRouter) -> None:
    before = custom.route("custom-task", "custom")
    custom._task_engine_mapping["custom-task"]["custom"] = OtherEngine
    after = custom.route("custom-task", "custom")
    assert (before.engine_class, after.engine_class) == (CustomEngine, OtherEngine)


def test_an_engine_added_to_a_built_in_task(router: TaskRouter) -> None:
    router._task_engine_mapping["text-generation"]["custom"] = CustomEngine
    assert router.route("text-generation", "custom").engine_class is CustomEngine


def test_a_registered_engine_is_routed_by_its_supported_tasks(registry: ModelRegistry, router: TaskRouter) -> None:
    registry.register_engine("custom", CustomEngine)
    assert router.route("custom-task", "custom").engine_class is CustomEngine


def test_a_handler_alone_makes_its_task_known_to_every_engine(registry: ModelRegistry, router: TaskRouter) -> None:
    registry.register_handler_manually("custom-task", "default", CustomTaskHandler)
    assert router.route("custom-task", "transformers").engine_class is TransformersEngine


def test_the_alias_is_the_task_on_its_engine(router: TaskRouter) -> None:
    assert router.route("text-generation-ollama", "ollama") is router.route("text-generation", "ollama")


def test_the_alias_is_for_its_engine_only(router: TaskRouter) -> None:
    with pytest.raises(ValidationError, match="'text-generation-ollama' is for engine 'ollama', not 'transformers'"):
        router.route("text-generation-ollama", "transformers")


@pytest.mark.parametrize(
    ("asked", "meant"), [("text-generation-ollama", "text-generation"), ("asr", "asr"), ("xyzzy", "xyzzy")]
)
def test_canonical_task(asked: str, meant: str) -> None:
    assert canonical_task(asked) == meant


@pytest.mark.parametrize(
    ("task", "engine", "words"),
    [
        ("text-generatoin", "ollama", "unknown task 'text-generatoin', did you mean 'text-generation'"),
        ("xyzzy", "ollama", r"unknown task 'xyzzy' \(there are: .*text-generation"),
        ("text-generation", "transfromers", "unknown engine 'transfromers', did you mean 'transformers'"),
        ("text-generation", "xyzzy", r"unknown engine 'xyzzy' \(there are: .*ollama, transformers\)"),
        ("custom-task", "custm", "unknown engine 'custm', did you mean 'custom'"),
        ("custom-task", "ollama", r"engine 'ollama' does not serve task 'custom-task' .*custom, transformers"),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(custom: TaskRouter, task: str, engine: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        custom.route(task, engine, "any")


def test_clear_engines_unloads_and_forgets(router: TaskRouter) -> None:
    before = router.route("text-generation", "ollama")
    assert router.clear_engines() == 3
    assert router.executors() == []
    assert router.route("text-generation", "ollama") is not before


def test_clear_engines_keeps_the_mapping(custom: TaskRouter) -> None:
    custom.clear_engines()
    assert custom.route("custom-task", "custom").engine_class is CustomEngine


def test_routes_lists_engines_by_task(custom: TaskRouter) -> None:
    assert custom.routes() == {
        "custom-task": ["custom", "transformers"],
        "text-generation": ["ollama", "transformers"],
        "vlm": ["ollama", "transformers"],
        **{
            task: ["transformers"]
            for task in (
                "asr",
                "ocr",
                "audio-classification",
                "image-classification",
                "video-analysis",
                "document-analysis",
            )
        },
    }
