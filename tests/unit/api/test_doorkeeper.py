"""Doorkeeper: Host names, origins and API keys."""

import re
from typing import Any

import pytest

from src.api.auth import Doorkeeper, host_name
from src.core.config import Settings
from src.core.errors import AuthenticationError, ForbiddenError

LOCAL = "127.0.0.1"
STRANGER = "192.0.2.7"
CLOSED: dict[str, Any] = {
    "host": LOCAL,
    "api_keys": (),
    "allow_anonymous": False,
    "allowed_hosts": (),
    "allowed_origins": (),
}


def check(
    settings: dict[str, Any] | None = None,
    *,
    method: str = "POST",
    path: str = "/inference/infer",
    host: str = "127.0.0.1:8009",
    client: str | None = LOCAL,
    **headers: str | bytes,
) -> None:
    """Asks a doorkeeper; header names have `_` for `-`."""
    raw = {b"host": host.encode()}
    for name, value in headers.items():
        raw[name.replace("_", "-").encode()] = value if isinstance(value, bytes) else value.encode()
    Doorkeeper(Settings(**{**CLOSED, **(settings or {})})).check(method, path, raw, client)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost", "localhost"),
        ("localhost:8009", "localhost"),
        ("127.0.0.1:8009", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[::1]:8009", "::1"),
        ("api.example:80", "api.example"),
        ("", ""),
    ],
)
def test_host_name(host: str, name: str) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8009", "LocalHost:1", "127.0.0.1", "127.0.0.9:8009", "[::1]:8009"]
)
def test_loopback_hosts_are_answered(host: str) -> None:
    check(host=host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8009",
        "localhost.evil.example",
        "127.0.0.1.evil.example:8009",
        "evil.example#localhost",
        "192.168.1.5:8009",
        "0.0.0.0:8009",
        "[::]:8009",
        "2130706433",
        "0x7f.1",
    ],
)
def test_other_hosts_are_refused_by_name(host: str) -> None:
    with pytest.raises(ForbiddenError, match=f"Host name '{re.escape(host_name(host))}'.*AIML_ALLOWED_HOSTS"):
        check(host=host, method="GET")


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        ({"allowed_hosts": ("api.example",)}, "api.example:8009"),
        ({"allowed_hosts": ("API.example",)}, "api.Example"),
        ({"allowed_hosts": ("*",)}, "evil.example"),
        ({"host": "192.168.1.5"}, "192.168.1.5:8009"),
        ({"host": "Box.local"}, "box.local:8009"),
    ],
)
def test_a_host_of_the_settings_is_answered(settings: dict[str, Any], host: str) -> None:
    check(settings, host=host)


@pytest.mark.parametrize("listening", ["0.0.0.0", "::"])
def test_a_wildcard_address_is_nobodys_name(listening: str) -> None:
    with pytest.raises(ForbiddenError):
        check({"host": listening}, host=f"[{listening}]:8009")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/inference/health"])
def test_the_host_is_checked_on_every_path(path: str) -> None:
    with pytest.raises(ForbiddenError):
        check(method="GET", path=path, host="evil.example")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8009", "http://127.0.0.1:8009"),
        ("localhost:8009", "http://LOCALHOST:8009"),
        ("localhost:8009", "https://localhost:8009/"),
        ("[::1]:8009", "http://[::1]:8009"),
    ],
)
def test_our_own_pages_may_ask(host: str, origin: str) -> None:
    check(host=host, origin=origin)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost:3000",
        "http://127.0.0.1",
        "http://127.0.0.1:8009.evil.example",
        "http://evil.example@127.0.0.1:8009",
        "null",
        "",
        "http://[evil",
        b"\xff\xfe",
    ],
)
def test_pages_from_elsewhere_are_refused(method: str, origin: str | bytes) -> None:
    with pytest.raises(ForbiddenError, match="AIML_ALLOWED_ORIGINS"):
        check(method=method, origin=origin)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_an_origin_does_not_matter_to_methods_that_change_nothing(method: str) -> None:
    check(method=method, origin="http://evil.example")


@pytest.mark.parametrize("origin", ["https://app.example", "https://APP.example/"])
def test_an_origin_of_the_settings_may_ask(origin: str) -> None:
    check({"allowed_origins": ("https://App.example/",)}, origin=origin)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer two"},
        {"authorization": "bearer one"},
        {"authorization": "Bearer  one "},
        {"x_api_key": "one"},
        {"authorization": "Basic eDp5", "x_api_key": "two"},
        {"x_api_key": "鑰匙"},
    ],
)
def test_a_key_lets_in(headers: dict[str, str]) -> None:
    check({"api_keys": ("one", "two", "鑰匙")}, client=STRANGER, **headers)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "an API key is needed"),
        ({"authorization": "Bearer"}, "an API key is needed"),
        ({"authorization": "Basic b25lOg=="}, "an API key is needed"),
        ({"authorization": "one"}, "an API key is needed"),
        ({"x_api_key": ""}, "an API key is needed"),
        ({"authorization": "Bearer three"}, "not valid"),
        ({"authorization": "Bearer one,two"}, "not valid"),
        ({"authorization": "Bearer ONE"}, "not valid"),
        ({"x_api_key": b"\xff\xfe"}, "not valid"),
        ({"authorization": "Bearer three", "x_api_key": "one"}, "not valid"),
    ],
)
@pytest.mark.parametrize("client", [LOCAL, STRANGER])
def test_where_there_are_keys_nobody_comes_in_without(headers: dict[str, Any], words: str, client: str) -> None:
    with pytest.raises(AuthenticationError, match=words):
        check({"api_keys": ("one", "two")}, client=client, **headers)


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_need_no_key(path: str) -> None:
    check({"api_keys": ("one",)}, method="GET", path=path, client=STRANGER)


@pytest.mark.parametrize("path", ["/livez/", "/LIVEZ", "/livez/../inference/stats", "/metrics", "/docs", "/"])
def test_every_other_path_needs_a_key(path: str) -> None:
    with pytest.raises(AuthenticationError):
        check({"api_keys": ("one",)}, method="GET", path=path)


@pytest.mark.parametrize("client", [LOCAL, "::1", None])
def test_without_keys_this_machine_comes_in(client: str | None) -> None:
    check(client=client)


def test_without_keys_others_stay_out() -> None:
    with pytest.raises(AuthenticationError, match="AIML_API_KEYS"):
        check(client=STRANGER)


def test_anonymous_access_lets_anybody_in() -> None:
    check({"allow_anonymous": True}, client=STRANGER)


def test_keys_come_before_anonymous_access() -> None:
    with pytest.raises(AuthenticationError):
        check({"allow_anonymous": True, "api_keys": ("one",)}, client=STRANGER)


def test_an_error_never_repeats_the_key() -> None:
    with pytest.raises(AuthenticationError) as caught:
        check({"api_keys": ("one",)}, x_api_key="my-secret")
    assert "my-secret" not in caught.value.message
