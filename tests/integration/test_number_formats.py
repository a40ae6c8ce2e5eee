"""Number formats over HTTP: by request, by a version's tag and by settings, in workers that are forked."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import manager_of
from tests.service import ROOT, Service, children_of, command_line, running_service, wait_until

DEMO = ROOT / "samples" / "demo-text"
GREEDY = {"do_sample": False, "max_new_tokens": 8}


def register(data_dir: Path, name: str, stage: str | None = "production", **tags: str) -> None:
    """Registers the sample model once more, as a version with these tags."""
    models = manager_of(data_dir)
    tags = {"task": "text-generation", "engine": "transformers", **tags}
    models.register_model_to_mlflow(name, "local", DEMO, tags, stage=stage)
    models.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose workers are forked, with the sample model under two names."""
    data_dir = tmp_path_factory.mktemp("formats") / "data"
    data_dir.mkdir()
    register(data_dir, "plain")
    register(data_dir, "small", dtype="int8", device="cpu")
    with running_service(data_dir, AIML_WORKERS__PRELOAD="always") as running:
        wait_until(lambda: _stats(running)["preloader"]["state"] == "ready", 120, "the preloader")
        yield running


def _stats(service: Service) -> Any:
    return service.get("/inference/stats").json()


def answered(service: Service, model: str, **options: Any) -> tuple[str, str]:
    """Returns the answer to a sum, and the number format in use."""
    response = service.infer(model, **GREEDY, **options)
    assert response.status_code == 200, response.text
    body = response.json()
    return body["result"]["generated_text"], body["provenance"]["dtype"]


@pytest.mark.parametrize(
    ("asked", "used"),
    [("int8", "int8"), ("8bit", "int8"), ("nf4", "nf4"), ("int4", "nf4"), ("4bit", "nf4"), ("fp16", "float16")],
)
def test_a_request_asks_for_a_format(service: Service, asked: str, used: str) -> None:
    assert answered(service, "plain", torch_dtype=asked) == ("72", used)


def test_the_worker_of_a_quantized_model_is_forked(service: Service) -> None:
    answered(service, "plain", dtype="nf4")
    entries = _stats(service)["models"]["plain"]["loaded"]
    (pid,) = [entry["pid"] for entry in entries if entry["dtype"] == "nf4"]
    (preloader,) = [pid for pid in children_of(service.process.pid) if "workers.preloader" in command_line(pid)]
    assert pid in children_of(preloader)


def test_a_tag_of_the_version_counts_where_the_request_says_nothing(service: Service) -> None:
    assert answered(service, "small") == ("72", "int8")
    assert answered(service, "small", dtype="auto") == ("72", "int8")
    assert answered(service, "small", dtype="float32") == ("72", "float32")


def test_the_next_version_is_loaded_in_its_own_format_before_it_takes_over(service: Service) -> None:
    register(service.data_dir, "moving", dtype="int8")
    assert answered(service, "moving") == ("72", "int8")
    register(service.data_dir, "moving", stage=None, dtype="nf4")
    body = {"model_name": "moving", "version": "2", "stage": "production"}
    assert service.post("/models/transition_stage", body).status_code == 200
    entries = _stats(service)["models"]["moving"]["loaded"]
    assert [entry["dtype"] for entry in entries if entry["version"] == "2"] == ["nf4"]
    assert answered(service, "moving") == ("72", "nf4")
    entries = _stats(service)["models"]["moving"]["loaded"]
    assert [entry["loads"] for entry in entries if entry["version"] == "2"] == [1]


def test_a_format_that_the_model_cannot_have_is_a_400_and_leaves_the_others(service: Service, tmp_path: Path) -> None:
    copy = tmp_path / "packed"
    copy.mkdir()
    for file in DEMO.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = (copy / "config.json").read_text()
    packed = config.replace("{", '{"quantization_config": {"quant_method": "gptq", "bits": 4},', 1)
    (copy / "config.json").write_text(packed)
    models = manager_of(service.data_dir)
    tags = {"task": "text-generation", "engine": "transformers"}
    models.register_model_to_mlflow("packed", "local", copy, tags, stage="production")
    models.close()
    response = service.infer("packed", **GREEDY, torch_dtype="int8")
    assert (response.status_code, response.json()["error_type"]) == (400, "ValueError")
    assert "take float32, bfloat16 or float16" in response.json()["error"]
    assert answered(service, "plain") == ("72", "float32")


@pytest.mark.slow
def test_the_setting_counts_where_neither_says_anything(tmp_path: Path, figure: Callable[[str], None]) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    register(data_dir, "plain")
    register(data_dir, "own", dtype="auto")
    with running_service(data_dir, AIML_TRANSFORMERS__TORCH_DTYPE="nf4") as service:
        assert answered(service, "plain") == ("72", "nf4")
        assert answered(service, "own") == ("72", "float32")
        seconds = _stats(service)["models"]["plain"]["loaded"][0]["engine_load_seconds"]
    figure(f"demo-text is loaded and quantized to nf4 in {seconds:.2f} s")
