"""The deployment files: what they promise, and their command lines run for real, without containers."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from dotenv import dotenv_values
from pydantic import BaseModel
from sqlalchemy.engine import make_url
from yamllint import linter
from yamllint.config import YamlLintConfig

from src.core.config import Settings
from tests.servers import answers_http, new_database, rows, running
from tests.service import ROOT, environment, free_port, wait_until

# One MLflow server and one PostgreSQL serve the whole file, where one worker runs it.
pytestmark = pytest.mark.xdist_group("deployment")

COMPOSE_TEXT = (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)["services"]
ENV_TEXT = (ROOT / ".env.example").read_text(encoding="utf-8")
UNCOMMENTED_TEXT = re.sub(r"^# (?=[A-Z][A-Z0-9_]*=)", "", ENV_TEXT, flags=re.MULTILINE)
EVERY_VALUE = {name: value or "" for name, value in dotenv_values(stream=StringIO(UNCOMMENTED_TEXT)).items()}
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^${}]*))?\}")
DOCUMENTED = {
    "POSTGRES_USER": "mlflow",
    "POSTGRES_PASSWORD": "mlflow",
    "POSTGRES_DB": "mlflow",
    "MLFLOW_DEFAULT_ARTIFACT_ROOT": "s3://mlflow-artifacts/",
    "MLFLOW_BACKEND_STORE_URI": "postgresql://mlflow:mlflow@postgres:5432/mlflow",
}
# Documented with a place to fill in.
DOCUMENTED_NAMES = {*DOCUMENTED, "MLFLOW_S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
READ_SETTINGS = """
from src.core.config import load_env_file, load_settings
load_env_file()
print(load_settings().model_dump_json())
"""


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Fills in `${NAME}` and `${NAME:-default}` as Compose does, the innermost first; `$$` is a dollar."""
    while VARIABLE.search(text):
        text = VARIABLE.sub(lambda match: variables.get(match["name"]) or match["default"] or "", text)
    return text.replace("$$", "$")


def service_environment(name: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Returns a service's variables; those without a value are passed on where they are set."""
    found = {}
    for key, value in SERVICES[name]["environment"].items():
        if value is not None:
            found[key] = interpolated(value, variables)
        elif key in variables:
            found[key] = variables[key]
    return found


def last_stage() -> list[tuple[str, str]]:
    """Returns the instructions of the Dockerfile's last stage, each with its arguments."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    instructions = [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]
    start = max(index for index, (word, _) in enumerate(instructions) if word == "FROM")
    return instructions[start:]


def arguments(instruction: str) -> str:
    """Returns the arguments of the one such instruction in the last stage."""
    (found,) = [rest for word, rest in last_stage() if word == instruction]
    return found


def exec_form(instruction: str) -> list[str]:
    """Returns the command of `CMD` or `HEALTHCHECK`."""
    text = arguments(instruction)
    command: list[str] = json.loads(text[text.index("[") :])
    return command


def image_environment() -> dict[str, str]:
    """Returns the variables that the image sets, but for PATH."""
    pairs = dict(pair.split("=", 1) for pair in shlex.split(arguments("ENV")))
    return {name: value for name, value in pairs.items() if name != "PATH"}


def in_place_of_the_image(tmp_path: Path, **variables: str) -> dict[str, str]:
    """Returns an environment whose `python` and `mlflow` are this interpreter's."""
    clean = environment(tmp_path)
    del clean["AIML_DATA_DIR"]
    return {**clean, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}", **variables}


def image_folder(tmp_path: Path) -> Path:
    """Makes the image's working folder: what the Dockerfile copies into it and nothing else."""
    folder = tmp_path / "app"
    folder.mkdir()
    for word, rest in last_stage():
        if word == "COPY" and not rest.startswith("--from"):
            source, target = rest.split()
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, folder / target)
    return folder


# ---------------------------------------------------------------------- docker-compose.yaml


def test_the_compose_file_is_clean_yaml() -> None:
    rules = "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"
    assert [str(problem) for problem in linter.run(COMPOSE_TEXT, YamlLintConfig(rules))] == []


def test_every_port_is_published_on_loopback() -> None:
    published = [interpolated(port, {}) for service in SERVICES.values() for port in service.get("ports", ())]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []
    assert {"127.0.0.1:8009:8009", "127.0.0.1:5000:5000", "127.0.0.1:8001:8000"} == set(published)


def test_the_api_lets_anybody_in_only_beside_a_loopback_port() -> None:
    assert SERVICES["api"]["environment"]["AIML_ALLOW_ANONYMOUS"] == "1"
    assert [port for port in SERVICES["api"]["ports"] if port.startswith("127.0.0.1:")] == SERVICES["api"]["ports"]


@pytest.mark.parametrize("host", ["mlflow:5000", "localhost:5000", "127.0.0.1:5000", "host.docker.internal:5000"])
def test_mlflow_answers_to_its_names(host: str) -> None:
    assert host in service_environment("mlflow", {})["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")


def test_only_the_documented_services_start_without_a_profile() -> None:
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    optional = {"lakefs": ["lakefs"], "ollama": ["ollama"], "redis": ["redis"]}
    assert profiles == {"api": [], "mlflow": [], "postgres": [], **optional}


def test_every_service_restarts_and_has_a_health_check() -> None:
    assert {service["restart"] for service in SERVICES.values()} == {"unless-stopped"}
    # The API's is in the image.
    assert [name for name, service in SERVICES.items() if "healthcheck" not in service] == ["api"]


def test_services_wait_for_those_they_need() -> None:
    waits = {name: service["depends_on"] for name, service in SERVICES.items() if "depends_on" in service}
    healthy = {"condition": "service_healthy"}
    assert waits == {"api": {"mlflow": healthy}, "mlflow": {"postgres": healthy}}


def test_every_variable_has_a_default_and_is_explained() -> None:
    text = "\n".join(line for line in COMPOSE_TEXT.splitlines() if not line.lstrip().startswith("#"))
    assert re.findall(r"(?<!\$)\$(?!\$)(?!\{\w+:-)[^\s]*", text) == []
    assert set(re.findall(r"\$\{(\w+)", text)) - set(EVERY_VALUE) == set()


def test_mlflow_takes_the_documented_variables() -> None:
    found = service_environment("mlflow", EVERY_VALUE)
    taken = {name for name in DOCUMENTED_NAMES if not name.startswith("POSTGRES_")}
    assert {name: found[name] for name in taken} == {name: EVERY_VALUE[name] for name in taken}
    assert service_environment("mlflow", {})["MLFLOW_BACKEND_STORE_URI"] == DOCUMENTED["MLFLOW_BACKEND_STORE_URI"]


# ---------------------------------------------------------------------- .env.example


def settings_from(env_file: str | Path, tmp_path: Path) -> Any:
    """Returns the settings that a fresh interpreter reads when `.env` is this file."""
    clean = environment(tmp_path)
    del clean["AIML_DATA_DIR"]
    done = subprocess.run(
        [sys.executable, "-c", READ_SETTINGS],
        cwd=ROOT,
        env={**clean, "AIML_ENV_FILE": str(env_file)},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def test_the_example_holds_the_documented_variables() -> None:
    assert DOCUMENTED_NAMES - set(EVERY_VALUE) == set()
    assert {name: EVERY_VALUE[name] for name in DOCUMENTED} == DOCUMENTED
    assert "<" not in ENV_TEXT


def test_the_example_changes_nothing_on_a_laptop(tmp_path: Path) -> None:
    from_example = settings_from(ROOT / ".env.example", tmp_path)
    assert from_example == settings_from(os.devnull, tmp_path)
    assert (from_example["mlflow"]["tracking_uri"], from_example["lakefs"]["endpoint"]) == ("", "")


def test_every_commented_value_is_accepted(tmp_path: Path) -> None:
    uncommented = tmp_path / "all.env"
    uncommented.write_text(UNCOMMENTED_TEXT, encoding="utf-8")
    assert settings_from(uncommented, tmp_path)["api_keys"] == ["a-long-random-string"]


def test_every_setting_is_in_the_example_and_no_other() -> None:
    named = {name for name in EVERY_VALUE if name.startswith("AIML_")} - {"AIML_ENGINES_CONFIG"}
    known, own = set(), set()
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            known |= {f"AIML_{name}__{key}".upper() for key in field.annotation.model_fields}
        else:
            own.add(f"AIML_{name}".upper())
    assert named - known - own == set()
    assert own - named == set()


# ---------------------------------------------------------------------- Dockerfile


def test_the_image_runs_as_a_user_without_rights() -> None:
    users = [rest for word, rest in last_stage() if word == "USER"]
    assert users == ["10001:10001"]
    words = [word for word, _ in last_stage()]
    assert words.index("USER") < words.index("CMD")


def test_the_image_is_slim() -> None:
    assert arguments("FROM") == "python:3.11-slim"
    commands = " ".join(rest for word, rest in last_stage() if word == "RUN")
    assert re.findall(r"\b(apt|apt-get|pip|uv|gcc|make)\b", commands) == []


def test_the_build_takes_only_what_the_image_copies() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {rest.split()[0] for word, rest in last_stage() if word == "COPY" and not rest.startswith("--from")}
    assert allowed == copied | {"requirements.lock.txt"}


def test_the_image_has_the_driver_of_the_documented_address() -> None:
    # `postgresql://` names none: SQLAlchemy chooses, and its choice has changed between its versions.
    driver = make_url(DOCUMENTED["MLFLOW_BACKEND_STORE_URI"]).get_dialect().driver
    locked = (ROOT / "requirements.lock.txt").read_text(encoding="utf-8")
    assert re.findall(rf"^{driver}\b.*==", locked, re.MULTILINE), f"{driver} is not in requirements.lock.txt"


def test_the_image_keeps_its_data_in_the_volume() -> None:
    variables = image_environment()
    assert arguments("VOLUME") == variables["AIML_DATA_DIR"] == "/data"
    assert variables["AIML_TRANSFORMERS__CACHE_DIR"].startswith("/data/")
    assert variables["HF_HOME"].startswith("/data/")
    assert (variables["AIML_SAMPLES"], variables["AIML_LOG_FORMAT"]) == ("off", "json")


def test_the_image_alone_refuses_to_listen_without_a_key(tmp_path: Path) -> None:
    variables = in_place_of_the_image(tmp_path, **{**image_environment(), "AIML_DATA_DIR": str(tmp_path / "data")})
    done = subprocess.run(
        exec_form("CMD"), cwd=image_folder(tmp_path), env=variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0
    assert "set AIML_API_KEYS" in done.stderr


# ---------------------------------------------------------------------- the command lines, run


@pytest.fixture(scope="module")
def mlflow_server(postgresql_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """MLflow as Compose starts it, on a real PostgreSQL: its address and its database's."""
    folder, port, database = tmp_path_factory.mktemp("mlflow"), str(free_port()), new_database(postgresql_uri)
    variables = {"MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_UI_PORT": port}
    here = {"0.0.0.0": "127.0.0.1", "5000": port, "/data/artifacts": str(folder / "artifacts")}
    command = [here.get(word, word) for word in SERVICES["mlflow"]["command"]]
    url = f"http://127.0.0.1:{port}"
    env = in_place_of_the_image(folder, **image_environment(), **service_environment("mlflow", variables))
    with running(command, ready=lambda: answers_http(f"{url}/health"), log=folder / "log", cwd=folder, env=env):
        yield url, database


def search(url: str, host: str) -> httpx.Response:
    """Asks MLflow for its registered models under a Host name."""
    path = "/api/2.0/mlflow/registered-models/search"
    return httpx.get(url + path, headers={"Host": host}, timeout=60, trust_env=False)


def test_mlflow_answers_to_its_service_name_and_to_no_stranger(mlflow_server: tuple[str, str]) -> None:
    url, _ = mlflow_server
    assert search(url, "mlflow:5000").status_code == 200
    assert search(url, "attacker.example:5000").status_code == 403


def test_mlflow_keeps_registered_models_in_postgresql(mlflow_server: tuple[str, str]) -> None:
    url, database = mlflow_server
    created = httpx.post(
        f"{url}/api/2.0/mlflow/registered-models/create",
        headers={"Host": "mlflow:5000"},
        json={"name": "kept"},
        timeout=60,
        trust_env=False,
    )
    assert created.status_code == 200
    assert rows(database, "SELECT name FROM registered_models WHERE name = :name", name="kept") == [("kept",)]


@contextmanager
def running_api(tmp_path: Path, **changes: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Runs the service as the image starts it with Compose's variables; yields its address and its environment."""
    port, folder = str(free_port()), image_folder(tmp_path)
    here = {
        "AIML_HOST": "127.0.0.1",
        "AIML_PORT": port,
        "AIML_DATA_DIR": str(tmp_path / "data"),
        "AIML_ENGINES_CONFIG": str(folder / "engines_config.yaml"),
    }
    variables = {**image_environment(), **service_environment("api", {}), **here, **changes}
    env = in_place_of_the_image(tmp_path, **variables)
    url = f"http://127.0.0.1:{port}"
    with running(
        exec_form("CMD"), ready=lambda: answers_http(f"{url}/livez"), log=tmp_path / "log", cwd=folder, env=env
    ):
        yield url, env


def healthcheck(env: Mapping[str, str]) -> int:
    """Returns the exit status of the image's health check, with a proxy in its way."""
    proxied = {**env, "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(exec_form("HEALTHCHECK"), env=proxied, stderr=subprocess.DEVNULL, timeout=30).returncode


def mlflow_health(url: str) -> Any:
    """Returns what the service says of MLflow."""
    return httpx.get(f"{url}/inference/health", timeout=60, trust_env=False).json()["dependencies"]["mlflow"]


def test_the_api_answers_while_mlflow_is_away(tmp_path: Path) -> None:
    hosts = {"api:8009": 200, "localhost:8009": 200, "attacker.example": 403}
    with running_api(tmp_path) as (url, env):
        assert healthcheck(env) == 0
        assert healthcheck({**env, "AIML_PORT": str(free_port())}) != 0
        livez = {
            host: httpx.get(f"{url}/livez", headers={"Host": host}, timeout=60, trust_env=False).status_code
            for host in hosts
        }
        assert livez == hosts
        wait_until(lambda: mlflow_health(url)["status"] == "degraded", 60, "the missing MLflow to be told")


def test_the_api_uses_the_mlflow_of_compose(mlflow_server: tuple[str, str], tmp_path: Path) -> None:
    with running_api(tmp_path, MLFLOW_TRACKING_URI=mlflow_server[0]) as (url, _):
        wait_until(lambda: mlflow_health(url)["status"] == "ok", 60, "MLflow to be found")
        assert mlflow_health(url)["configured"] is True
