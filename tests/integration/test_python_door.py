"""`from src.inference import inference_manager`, as users write it: scripts, standard input, notebooks."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.testing.fake_ollama import FakeOllama
from tests.integration.conftest import register_models
from tests.service import ROOT, Service, environment, is_alive, running_service, wait_until

TIMEOUT = 120

ASK = """
from src.inference import inference_manager
result = inference_manager.infer("text-generation", "transformers", "tiny", {"inputs": "Hello"}, {"max_new_tokens": 4})
assert result["success"], result
pids = [m["pid"] for model in inference_manager.get_stats()["models"].values() for m in model.get("loaded", [])]
"""
TELL = """
import json
print(json.dumps({"text": result["result"]["generated_text"], "pids": pids}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A data folder with models and no server running on it."""
    data_dir = tmp_path_factory.mktemp("door") / "data"
    data_dir.mkdir()
    register_models(data_dir, tiny_model)
    return data_dir


def run(script: str, data_dir: Path, *, stdin: bool = False, allow_traceback: bool = False, **settings: str) -> Any:
    """Runs a script in an interpreter of its own and returns the JSON that it printed last."""
    env = environment(data_dir, PYTHONPATH=str(ROOT), PYTHONWARNINGS="error::ResourceWarning", **settings)
    text = textwrap.dedent(script)
    if stdin:
        command, given = [sys.executable, "-"], text
    else:
        path = data_dir.parent / "script.py"
        path.write_text(text)
        command, given = [sys.executable, str(path)], None
    done = subprocess.run(
        command, input=given, env=env, cwd=data_dir.parent, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stderr
    assert allow_traceback or "Traceback" not in done.stderr, done.stderr
    assert "never awaited" not in done.stderr, done.stderr
    assert "was destroyed" not in done.stderr, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def assert_gone(pids: list[int]) -> None:
    assert pids
    wait_until(lambda: not any(is_alive(pid) for pid in pids), 5, "the workers to be gone")


@pytest.mark.parametrize("stdin", [False, True], ids=["script", "standard input"])
def test_at_the_top_level_without_a_main_guard(folder: Path, stdin: bool) -> None:
    assert_gone(run(ASK + TELL, folder, stdin=stdin)["pids"])


def test_with_clear_cache_in_atexit(folder: Path) -> None:
    script = "import atexit\n" + ASK + "atexit.register(inference_manager.clear_cache)\n" + TELL
    assert_gone(run(script, folder)["pids"])


def test_clear_cache_in_atexit_without_any_inference(folder: Path) -> None:
    script = """
    import atexit
    from src.inference import inference_manager
    atexit.register(inference_manager.clear_cache)
    print("{}")
    """
    assert run(script, folder) == {}


def test_from_several_threads(folder: Path) -> None:
    script = """
    import json, threading
    from src.inference import inference_manager
    answers = []
    def ask(n):
        answers.append(inference_manager.infer(
            "text-generation", "transformers", "tiny", {"inputs": "Hello"}, {"max_new_tokens": 8, "seed": n % 2}))
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert all(a["success"] for a in answers), answers
    loads = inference_manager.get_stats()["models"]["tiny"]["loaded"][0]["loads"]
    print(json.dumps({"texts": sorted({a["result"]["generated_text"] for a in answers}), "loads": loads}))
    """
    answer = run(script, folder)
    assert len(answer["texts"]) == 2
    assert answer["loads"] == 1


def test_awaited_on_a_loop_of_the_callers_own(folder: Path) -> None:
    script = """
    import asyncio, json
    from src.inference import inference_manager
    async def main():
        return await asyncio.gather(*(inference_manager.ainfer(
            "text-generation", "transformers", "tiny", {"inputs": "Hello"}, {"max_new_tokens": 4}) for _ in range(3)))
    print(json.dumps([a["success"] for a in asyncio.run(main())]))
    """
    assert run(script, folder) == [True, True, True]


def test_in_a_forked_process(folder: Path) -> None:
    script = """
    import json, os
    from src.inference import inference_manager
    ask = lambda: inference_manager.infer(
        "text-generation", "transformers", "tiny", {"inputs": "Hello"}, {"max_new_tokens": 4})
    assert ask()["success"]
    child = os.fork()
    if child == 0:
        os._exit(0 if ask()["success"] else 1)
    status = os.waitpid(child, 0)[1]
    assert ask()["success"]
    print(json.dumps(status))
    """
    assert run(script, folder) == 0


def test_beside_a_running_service_on_the_same_data_folder(service: Service) -> None:
    before = service.infer("tiny", "Hello", max_new_tokens=4, seed=3).json()
    script = ASK.replace('"max_new_tokens": 4', '"max_new_tokens": 4, "seed": 3') + TELL
    answer = run(script, service.data_dir)
    assert answer["text"] == before["result"]["generated_text"]
    assert_gone(answer["pids"])
    assert service.infer("tiny", max_new_tokens=4).status_code == 200


def test_errors_are_envelopes_or_raised(folder: Path) -> None:
    script = """
    import json
    from src.inference import inference_manager, InferenceError
    ask = ("text-generation", "transformers", "nobody", {"inputs": "Hello"})
    result = inference_manager.infer(*ask)
    try:
        inference_manager.infer(*ask, raise_on_error=True)
    except InferenceError as exc:
        raised = type(exc).__name__
    print(json.dumps([result["success"], result["error_type"], raised]))
    """
    assert run(script, folder) == [False, "ModelNotFoundError", "ModelNotFoundError"]


@pytest.fixture(scope="module")
def kernel(folder: Path) -> Iterator[Any]:
    """A Jupyter kernel whose data folder is `folder`."""
    jupyter_client = pytest.importorskip("jupyter_client")
    manager = jupyter_client.KernelManager(kernel_name="python3")
    manager.start_kernel(env=environment(folder, PYTHONPATH=str(ROOT)), cwd=str(folder.parent))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield client
    client.stop_channels()
    manager.shutdown_kernel()


def test_in_a_jupyter_kernel(kernel: Any) -> None:
    output: list[str] = []

    def hook(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            output.append(message["content"]["text"])

    reply = kernel.execute_interactive(ASK + TELL, timeout=TIMEOUT, output_hook=hook)
    assert reply["content"]["status"] == "ok", reply["content"]
    pids = json.loads("".join(output).strip().splitlines()[-1])["pids"]
    assert all(is_alive(pid) for pid in pids)
    kernel.shutdown()
    assert_gone(pids)


def test_ollama_from_a_script(folder: Path, ollama: FakeOllama) -> None:
    script = """
    import json
    from src.inference import inference_manager
    named = inference_manager.infer("text-generation", "ollama", "qwen3:1.7b-ollama-1", {"inputs": "Hello"})
    direct = inference_manager.infer("text-generation", "ollama", "tiny:latest", {"inputs": "Hello"})
    print(json.dumps([named["provenance"]["digest"], direct["provenance"]["digest"], direct["success"]]))
    """
    named, direct, success = run(script, folder, OLLAMA_HOST=ollama.url)
    assert success
    assert named == direct
    assert len(named.removeprefix("sha256:")) == 64


def test_settings_reach_the_script(folder: Path) -> None:
    script = """
    import json
    from src.inference.engines.ollama import OllamaEngine
    from src.inference.engines.transformers import TransformersEngine
    print(json.dumps([OllamaEngine().config["timeout"], TransformersEngine().config["device"]]))
    """
    assert run(script, folder, AIML_OLLAMA__TIMEOUT="7", AIML_TRANSFORMERS__DEVICE="cpu") == [7.0, "cpu"]


def test_a_service_that_starts_later_shares_what_a_script_registered(folder: Path) -> None:
    with running_service(folder) as service:
        assert service.infer("tiny", max_new_tokens=2).json()["success"] is True
