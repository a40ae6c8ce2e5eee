"""The settings of kept results: a Redis address that cannot work stops the start, and its password stays secret."""

import traceback

import pytest

from src.core.config import load_settings
from src.core.errors import ConfigurationError
from src.core.settings_sections import ResultSettings

PASSWORD = "geheim"


@pytest.mark.parametrize(
    "url", ["redis://localhost", f"redis://:{PASSWORD}@host:6379/1", "rediss://host:6380", "unix:///run/redis.sock", ""]
)
def test_an_address_is_taken(url: str) -> None:
    assert ResultSettings(redis_url=url).redis_url.get_secret_value() == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"http://:{PASSWORD}@host", "begins with redis://"),
        (f"{PASSWORD}@host:6379", "begins with redis://"),
        (f"redis://:{PASSWORD}@", "names a host"),
        (f"redis://:{PASSWORD}@host:port", "port"),
        (f"redis://:{PASSWORD}@host:99999", "port"),
    ],
)
def test_another_one_stops_the_start_without_telling_the_password(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIML_RESULTS__REDIS_URL", url)
    with pytest.raises(ConfigurationError, match=f"results.redis_url: .*{words}") as refused:
        load_settings()
    assert PASSWORD not in "".join(traceback.format_exception(refused.value))


def test_the_password_is_not_shown_with_the_settings() -> None:
    settings = load_settings(results={"redis_url": f"redis://:{PASSWORD}@host"})
    assert PASSWORD not in repr(settings) + str(settings.model_dump())
