"""What is printed cannot drive a terminal, and reads like other tools' output."""

import pytest

from src.cli.output import duration_text, print_table, printable, size_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n你好", "plain\ttext\n你好"),
        (
            "\x1b]0;title\x07\x1b[2J",
            "\N{REPLACEMENT CHARACTER}]0;title\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[2J",
        ),
        ("a\rb\x9b", "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_control_characters_are_shown_as_such(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_table_in_a_pipe_is_as_wide_as_it_has_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "B"), [("x" * 300, "[bold]:smile:"), (None, 3)])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["A", "B"],
        ["x" * 300, "[bold]:smile:"],
        ["3"],
    ]


@pytest.mark.parametrize(("seconds", "text"), [(None, ""), (5, "0:05"), (62, "1:02"), (3661.4, "1:01:01")])
def test_a_duration_reads_like_a_clock(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(None, ""), (0, "0 B"), (1_500_000_000, "1.5 GB")])
def test_a_size_is_decimal(size: int | None, text: str) -> None:
    assert size_text(size) == text
