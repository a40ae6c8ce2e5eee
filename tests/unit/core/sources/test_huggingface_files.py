"""Which files of a repository are fetched, and how they are known."""

from typing import Any

import pytest

from src.core.errors import InvalidInputError
from src.core.sources.hub_files import HubFile, choose

GIT = {"type": "file", "oid": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", "size": 0, "path": "empty.txt"}
SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
LFS = {**GIT, "path": "a.bin", "size": 134, "lfs": {"oid": SHA256, "size": 0, "pointerSize": 134}}


def files(*paths: str) -> list[HubFile]:
    return [HubFile(path, 1, f"git:{number:040x}") for number, path in enumerate(paths)]


def chosen(paths: list[str], patterns: list[str] | None = None, *, spare: bool = True) -> set[str]:
    return {file.path for file in choose(files(*paths), patterns, spare_duplicates=spare)[0]}


def test_a_git_file_is_known_by_its_blob() -> None:
    file = HubFile.parse(GIT)
    assert (file.path, file.size, file.digest) == ("empty.txt", 0, f"git:{GIT['oid']}")
    assert file.matches(file.hasher())


def test_a_large_file_is_known_by_its_content_not_by_its_pointer() -> None:
    file = HubFile.parse(LFS)
    assert (file.size, file.digest) == (0, f"sha256:{SHA256}")
    assert file.matches(file.hasher())


def test_a_git_digest_covers_the_size() -> None:
    hasher = HubFile("a", 3, f"git:{0:040x}").hasher()
    hasher.update(b"abc")
    assert hasher.hexdigest() == "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f"  # printf abc | git hash-object --stdin


@pytest.mark.parametrize(
    "change",
    [{"oid": "../../x"}, {"oid": "e69de2"}, {"size": -1}, {"size": "9"}, {"size": None}, {"lfs": {"size": 1}}],
)
def test_an_entry_without_size_or_digest_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        HubFile.parse({**GIT, **change})


def test_keys_tell_contents_and_paths_apart() -> None:
    one = HubFile("a", 1, f"git:{1:040x}")
    keys = {one.key, HubFile("b", 1, one.digest).key, HubFile("a", 1, f"git:{2:040x}").key}
    assert len(keys) == 3
    assert all("/" not in key for key in keys)


MODEL = [
    "config.json",
    "tokenizer.json",
    "spiece.model",
    "modeling_own.py",
    "README.md",
    "model.safetensors",
    "pytorch_model.bin",
    "tf_model.h5",
    "flax_model.msgpack",
    "rust_model.ot",
    "model.ckpt",
    "original/consolidated.00.pth",
    "original/params.json",
    "2_Dense/pytorch_model.bin",
    "onnx/model.onnx",
]


def test_weights_beside_safetensors_stay_out() -> None:
    took, left = choose(files(*MODEL), None, spare_duplicates=True)
    assert {file.path for file in left} == {
        "pytorch_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "rust_model.ot",
        "model.ckpt",
        "original/consolidated.00.pth",
    }
    assert {file.path for file in took} | {file.path for file in left} == set(MODEL)


def test_without_safetensors_every_weight_comes() -> None:
    paths = [path for path in MODEL if not path.endswith(".safetensors")]
    assert chosen(paths) == set(paths)


def test_of_a_dataset_everything_comes() -> None:
    paths = ["a.safetensors", "a.bin"]
    assert chosen(paths, spare=False) == set(paths)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*.bin"], {"pytorch_model.bin", "2_Dense/pytorch_model.bin"}),
        (["original/"], {"original/consolidated.00.pth", "original/params.json"}),
        (["config.json", "*.model"], {"config.json", "spiece.model"}),
        (["model.[!s]*"], {"model.ckpt"}),
    ],
)
def test_patterns_alone_decide(patterns: list[str], expected: set[str]) -> None:
    assert chosen(MODEL, patterns) == expected


def test_patterns_that_match_nothing_show_what_there_is() -> None:
    paths = [f"file-{number:02}.txt" for number in range(12)]
    with pytest.raises(InvalidInputError, match=r"\(\*\.gguf\); there are: file-00.txt, .*file-09.txt and 2 more"):
        choose(files(*paths), ["*.gguf"], spare_duplicates=True)


def test_a_repository_without_files_says_so() -> None:
    with pytest.raises(InvalidInputError, match="holds no files"):
        choose([], None, spare_duplicates=True)


@pytest.mark.parametrize(
    "path", ["../up.txt", "a/../../up.txt", "/etc/passwd", "a\\b.txt", "C:x", "a\nb", "a\0b", "a//b", "./a", "~\x1b[2J"]
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(InvalidInputError):
        choose(files("config.json", path), None, spare_duplicates=True)
    assert chosen(["config.json", path], ["config.json"]) == {"config.json"}


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"], ["a/b", "a"]])
def test_paths_that_cannot_be_beside_each_other_are_refused(paths: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="twice, or as a folder"):
        choose(files(*paths), None, spare_duplicates=True)


def test_what_the_platform_keeps_for_itself_stays_out() -> None:
    paths = ["a.txt", ".aiml-source.json", ".git/config", ".cache/huggingface/x"]
    assert chosen(paths, spare=False) == {"a.txt"}


def test_many_files_are_chosen_at_once() -> None:
    many = [HubFile(f"data/{number}.bin", 1, f"git:{number:040x}") for number in range(50_000)]
    took, left = choose([*many, *files("data/x.safetensors")], None, spare_duplicates=True)
    assert (len(took), len(left)) == (1, 50_000)
