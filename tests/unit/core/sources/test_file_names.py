from pathlib import Path

import pytest

from src.core.errors import InvalidInputError
from src.core.sources.file_names import checked_path, clash, new_file


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "a/b.json", "模型/權重 1.bin", ".gitattributes", "a.b-c_d+e@f (1).txt", "nullable.txt"],
)
def test_a_plain_name_is_taken_as_it_is(name: str) -> None:
    assert checked_path(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../a", "a/../b", "a/..", "./a", "a/./b", "a//b", "a/", "/etc/passwd", "//server/a",
        "C:/a", "c:a", "C:\\a", "..\\a", "a\\b", "\\\\server\\a", "a\0b", "a\nb", "a\x1bb", "a\u202ecod.exe", "\udcff",
        "a" * 256, "字" * 86, "/".join(["abc"] * 300), "/".join("a" * 21),
        "con", "NUL.txt", "a/COM1.json", "aux.safetensors", "a ", " a", "a.", "a./b",
        ".git/config", "a/.git/hooks/x", ".git", ".cache/huggingface/x", ".aiml-source.json", "__MACOSX/a", ".DS_Store",
    ],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_or_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="the file name"):
        checked_path(name)


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["a", "b/c", "b/d"], None),
        (["a", "b", "a"], "a"),
        (["a/b", "a"], "a"),
        (["a", "a/b/c"], "a/b/c"),
        (["a/b", "a-b", "a/b/c"], "a/b/c"),
    ],
)
def test_a_path_that_is_there_twice_or_is_a_folder_too_is_found(paths: list[str], found: str | None) -> None:
    assert clash(paths) == found


def test_a_new_file_never_replaces_one_nor_goes_through_one(tmp_path: Path) -> None:
    new_file(tmp_path, "a/b").close()
    for taken in ("a/b", "a", "a/b/c"):
        with pytest.raises(InvalidInputError, match="is there twice, or is a folder as well"):
            new_file(tmp_path, taken)
