import pytest

from src.core.sources.human import human_count, human_size, human_time

HOUR, DAY = 3600, 86400


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (590_784, "590 KB"),
        (1_040_000_000, "1.0 GB"),
        (1_359_293_444, "1.4 GB"),
        (9_960_000_000, "10.0 GB"),
        (40_999_000_000, "40 GB"),
        (2 * 10**12, "2.0 TB"),
    ],
)
def test_sizes_read_like_those_of_ollama_list(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second ago"),
        (1.9, "1 second ago"),
        (59, "59 seconds ago"),
        (60, "About a minute ago"),
        (59.9 * 60, "59 minutes ago"),
        (HOUR, "About an hour ago"),
        (1.6 * HOUR, "2 hours ago"),
        (47.4 * HOUR, "47 hours ago"),
        (2 * DAY, "2 days ago"),
        (13.9 * DAY, "13 days ago"),
        (14 * DAY, "2 weeks ago"),
        (21 * DAY, "3 weeks ago"),
        (60 * DAY, "2 months ago"),
        (729 * DAY, "24 months ago"),
        (730 * DAY, "2 years ago"),
        (-3 * DAY, "3 days from now"),
    ],
)
def test_times_read_like_those_of_ollama_list(seconds: float, text: str) -> None:
    assert human_time(1_700_000_000 - seconds, 1_700_000_000) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(12, "12"), (144_448, "144K"), (4_184_320, "4.18M"), (1_720_574_976, "1.7B"), (7 * 10**9, "7B"), (10**6, "1M")],
)
def test_parameter_counts_read_like_those_of_ollama(count: int, text: str) -> None:
    assert human_count(count) == text
