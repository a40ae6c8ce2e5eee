"""Who may drive the service: keys, Host names, origins."""

from collections.abc import Iterator

import httpx
import pytest

from tests.service import Service, running_service


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two keys, one more Host name and one allowed origin."""
    with running_service(
        tmp_path_factory.mktemp("locked") / "data",
        AIML_API_KEYS="first-key, second-key",
        AIML_ALLOWED_HOSTS="models.example",
        AIML_ALLOWED_ORIGINS="https://ui.example",
    ) as service:
        yield service


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer first-key"}, 200),
        ({"X-API-Key": "second-key"}, 200),
        ({"X-API-Key": "first-key, second-key"}, 401),
    ],
)
def test_a_configured_key_is_needed(locked: Service, headers: dict[str, str], status: int) -> None:
    response = locked.get("/inference/health", headers=headers)
    assert response.status_code == status
    if status == 401:
        assert response.json()["error_type"] == "AuthenticationError"
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_need_no_key(locked: Service, path: str) -> None:
    assert locked.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/docs", "/openapi.json", "/inference/stats"])
def test_all_else_needs_one(locked: Service, path: str) -> None:
    assert locked.get(path).status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:8009", 200), ("models.example", 200), ("evil.example", 403)],
)
def test_only_known_host_names_are_answered(locked: Service, host: str, status: int) -> None:
    assert locked.get("/livez", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("method", "origin", "status"),
    [
        ("POST", "https://evil.example", 403),
        ("POST", "null", 403),
        ("POST", "https://ui.example", 200),
        ("POST", "same", 200),
        ("GET", "https://evil.example", 200),
    ],
)
def test_a_foreign_page_cannot_drive_the_service(locked: Service, method: str, origin: str, status: int) -> None:
    path = "/inference/cache/clear" if method == "POST" else "/inference/health"
    headers = {"Origin": locked.url if origin == "same" else origin, "X-API-Key": "first-key"}
    response = httpx.request(method, locked.url + path, headers=headers, timeout=30)
    assert response.status_code == status
    if status == 403:
        assert response.json()["error_type"] == "ForbiddenError"
