"""How a command finds the service, shows its key, and tells what went wrong."""

import json
from collections.abc import Callable

import pytest
from starlette.responses import PlainTextResponse
from typer.testing import Result

from src.cli.connection import Connection
from src.cli.failures import CommandError
from src.cli.session import Session
from tests.service import free_port
from tests.unit.cli.stub_service import Stub, failure

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_jobs(stub: Stub) -> None:
    stub.on("GET", "/jobs", [])


@pytest.mark.parametrize(
    ("arguments", "key"),
    [(("--api-key", "one", "jobs", "list"), "one"), (("jobs", "list", "--api-key", "two"), "two")],
)
def test_a_key_travels_as_bearer_wherever_it_stands(aiml: Run, stub: Stub, arguments: list[str], key: str) -> None:
    assert aiml(*arguments).exit_code == 0
    assert stub.asked[0].headers["authorization"] == f"Bearer {key}"


def test_a_key_from_the_environment_travels(aiml: Run, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIML_API_KEY", "from-outside")
    aiml("jobs", "list")
    assert stub.asked[0].headers["authorization"] == "Bearer from-outside"


def test_without_a_key_nothing_is_claimed(aiml: Run, stub: Stub) -> None:
    aiml("jobs", "list")
    assert "authorization" not in stub.asked[0].headers


def test_an_option_after_the_command_wins(aiml: Run, stub: Stub) -> None:
    assert aiml("--url", "http://127.0.0.1:9", "jobs", "list", "--url", stub.url).exit_code == 0
    assert len(stub.asked) == 1


def test_json_before_the_command_counts(aiml: Run) -> None:
    assert json.loads(aiml("--json", "jobs", "list").stdout) == []


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"AIML_PORT": "8123"}, "http://127.0.0.1:8123"),
        ({"AIML_HOST": "0.0.0.0"}, "http://127.0.0.1:8009"),
        ({"AIML_HOST": "::", "AIML_ALLOW_ANONYMOUS": "1"}, "http://[::1]:8009"),
    ],
)
def test_the_address_is_where_the_settings_listen(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], address: str
) -> None:
    for name in ("AIML_URL", "AIML_HOST", "AIML_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIML_ENV_FILE", "/dev/null")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    session = Session()
    assert session.connection.url == address
    session.close()


def test_settings_that_cannot_work_are_told(aiml: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIML_URL")
    monkeypatch.setenv("AIML_ENV_FILE", "/dev/null")
    monkeypatch.setenv("AIML_PORT", "many")
    done = aiml("jobs", "list")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: port: ")


def test_an_address_needs_no_scheme(stub: Stub) -> None:
    connection = Connection(stub.url.removeprefix("http://"))
    assert connection.get("/jobs") == []
    connection.close()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:1", "http://[", "http://127.0.0.1:99999999"])
def test_what_is_no_address_is_a_sentence(aiml: Run, url: str) -> None:
    done = aiml("jobs", "list", "--url", url)
    assert done.exit_code == 1
    assert "is no address of a service" in done.stderr


def test_a_service_that_is_not_there_says_how_to_start_it(aiml: Run) -> None:
    done = aiml("jobs", "list", "--url", f"http://127.0.0.1:{free_port()}")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "`make run`" in done.stderr


def test_a_failure_is_the_services_sentence_on_stderr(aiml: Run, stub: Stub) -> None:
    stub.on("GET", "/jobs", failure(503, "RegistryUnavailableError", "The registry is away"))
    done = aiml("jobs", "list")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "error: The registry is away\n")


def test_a_failure_as_json_is_the_envelope(aiml: Run, stub: Stub) -> None:
    stub.on("GET", "/jobs", failure(503, "RegistryUnavailableError", "The registry is away"))
    done = aiml("jobs", "list", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error_type"] == "RegistryUnavailableError"
    assert "The registry is away" in done.stderr


def test_a_missing_key_says_how_to_give_one(aiml: Run, stub: Stub) -> None:
    stub.on("GET", "/jobs", failure(401, "AuthenticationError", "an API key is needed"))
    assert "--api-key or AIML_API_KEY" in aiml("jobs", "list").stderr


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (PlainTextResponse("Bad Gateway", 502), "answered 502 Bad Gateway"),
        (PlainTextResponse("<html>hello</html>"), "is no service of this kind"),
    ],
)
def test_a_stranger_at_the_address_is_told(aiml: Run, stub: Stub, answer: PlainTextResponse, said: str) -> None:
    stub.on("GET", "/jobs", answer)
    done = aiml("jobs", "list")
    assert done.exit_code == 1
    assert said in done.stderr


def test_a_key_that_no_header_can_hold_is_refused() -> None:
    with pytest.raises(CommandError, match="printable ASCII"):
        Connection("http://127.0.0.1:1", "schlüssel")


def test_wrong_usage_exits_with_2(aiml: Run, stub: Stub) -> None:
    assert aiml("models", "stage", "m", "1", "prod").exit_code == 2
    assert aiml("models", "nothing").exit_code == 2
    assert stub.asked == []
