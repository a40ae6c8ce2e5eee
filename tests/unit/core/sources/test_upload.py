import hashlib
import io
import os
import pickle
import resource
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from src.core.errors import InvalidInputError, PayloadTooLargeError, StoreUnavailableError
from src.core.sources import upload
from src.core.sources.staging import StagingArea
from src.core.sources.upload import UploadSource
from tests.unit.core.sources.model_files import GOOD, safetensors, write
from tests.unit.core.sources.test_archives import special, tar_of, tarred, zipped

SMALL = {"model.safetensors": safetensors(), "config.json": b"{}", "sub/vocab.txt": b"a\n"}


@pytest.fixture
def staging(tmp_path: Path) -> StagingArea:
    (tmp_path / "models").mkdir()
    return StagingArea(tmp_path / "models")


@pytest.fixture
def source(staging: StagingArea) -> UploadSource:
    return UploadSource(staging, max_bytes=200_000_000)


def received(source: UploadSource, files: Mapping[str, bytes]) -> Path:
    folder = source.new_folder()
    folder.mkdir()
    return write(folder, files)


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {path: f"sha256:{hashlib.sha256(data).hexdigest()}" for path, data in files.items()}


def nothing_is_left(staging: StagingArea) -> bool:
    return list(staging.root.iterdir()) == []


def test_every_kind_of_file_of_a_model_is_staged_with_its_digest(source: UploadSource, staging: StagingArea) -> None:
    before = time.time()
    staged = source.accept(received(source, GOOD), "my/model")
    assert staged == staging.get("my_model")
    assert staged.record is not None
    assert (staged.record.source, staged.record.name) == ("upload", "my_model")
    assert staged.record.files == digests(GOOD)
    assert before <= staged.record.finished_at <= time.time()
    assert {path: (staged.path / path).read_bytes() for path in GOOD} == GOOD
    assert [path.name for path in staging.root.iterdir()] == ["my_model"]


@pytest.mark.parametrize(
    ("name", "inside"), [("my.zip", ""), ("my.zip", "folder/"), ("my.tar", ""), ("my.tar.gz", "folder/")]
)
def test_one_archive_is_unpacked_and_gives_the_name(
    name: str, inside: str, source: UploadSource, staging: StagingArea, tmp_path: Path
) -> None:
    make = zipped if name.endswith("zip") else tarred
    archive = make(tmp_path / name, {inside + path: data for path, data in SMALL.items()})
    staged = source.accept(received(source, {name: archive.read_bytes()}))
    assert staged.name == "my"
    assert staged.record is not None
    assert staged.record.files == digests(SMALL)
    assert [path.name for path in staging.root.iterdir()] == ["my"]


def test_a_folder_in_an_archive_of_a_dataset_keeps_its_meaning(staging: StagingArea, tmp_path: Path) -> None:
    source = UploadSource(staging, kind="dataset", max_bytes=10**6)
    archive = zipped(tmp_path / "d.zip", {"train/a.csv": b"1\n"})
    staged = source.accept(received(source, {"d.zip": archive.read_bytes()}), "letters")
    assert staged.record is not None
    assert list(staged.record.files) == ["train/a.csv"]


def test_a_dataset_takes_files_of_any_kind_and_several_archives_as_they_are(staging: StagingArea) -> None:
    files = {"a.parquet": b"PAR1", "b.csv": b"x\n", "c.jpg": b"\xff\xd8", "0.tar": b"0", "1.tar": b"1", "d.json": b"{"}
    source = UploadSource(staging, kind="dataset", max_bytes=10**6)
    staged = source.accept(received(source, files), "letters")
    assert staged.record is not None
    assert staged.record.files == digests(files)


def test_every_file_that_cannot_be_taken_is_named_and_nothing_is_staged(
    source: UploadSource, staging: StagingArea
) -> None:
    with pytest.raises(InvalidInputError) as by_name:
        source.accept(received(source, {**SMALL, "modeling.py": b"", "x.exe": b""}), "m")
    assert set(by_name.value.details["refused"]) == {"modeling.py", "x.exe"}
    assert "modeling.py is code" in by_name.value.message
    with pytest.raises(InvalidInputError) as by_content:
        source.accept(received(source, {"model.safetensors": b"x", "config.json": b"{", "vocab.txt": b"ok"}), "m")
    assert set(by_content.value.details["refused"]) == {"model.safetensors", "config.json"}
    assert nothing_is_left(staging)


@pytest.mark.parametrize("name", ["../evil", "", ".hidden", "a b"])
def test_a_name_that_cannot_be_is_refused(name: str, source: UploadSource, staging: StagingArea) -> None:
    with pytest.raises(InvalidInputError):
        source.accept(received(source, SMALL), name)
    assert nothing_is_left(staging)


def test_a_second_upload_under_a_name_replaces_the_first_whole(source: UploadSource, staging: StagingArea) -> None:
    source.accept(received(source, SMALL), "m")
    staged = source.accept(received(source, {"config.json": b"[]"}), "m")
    assert sorted(path.name for path in staged.path.iterdir()) == [".aiml-source.json", "config.json"]
    with pytest.raises(InvalidInputError):
        source.accept(received(source, {"config.json": b"["}), "m")
    assert (staging.get("m").path / "config.json").read_bytes() == b"[]"


def test_too_many_bytes_are_refused(staging: StagingArea) -> None:
    source = UploadSource(staging, max_bytes=100)
    with pytest.raises(PayloadTooLargeError):
        source.accept(received(source, {"a.txt": b"x" * 60, "b.txt": b"x" * 60}), "m")
    assert nothing_is_left(staging)


@pytest.mark.parametrize("bomb", ["big.zip", "big.tar.gz"])
def test_a_bomb_is_refused(bomb: str, source: UploadSource, staging: StagingArea, tmp_path: Path) -> None:
    make = zipped if bomb.endswith("zip") else tarred
    archive = make(tmp_path / bomb, {"model.bin": bytes(150_000_000)})
    with pytest.raises(PayloadTooLargeError, match="200 times"):
        source.accept(received(source, {bomb: archive.read_bytes()}), "m")
    assert nothing_is_left(staging)


def test_links_and_programs_in_an_archive_are_refused(
    source: UploadSource, staging: StagingArea, tmp_path: Path
) -> None:
    linked = tar_of(tmp_path / "a.tar", special("config.json", tarfile.SYMTYPE, "/etc/passwd"))
    with pytest.raises(InvalidInputError, match="is a link"):
        source.accept(received(source, {"a.tar": linked.read_bytes()}), "m")
    with_program = zipped(tmp_path / "a.zip", {"config.json": b"{}", "run.py": b"import os"})
    with pytest.raises(InvalidInputError, match=r"run\.py is code"):
        source.accept(received(source, {"a.zip": with_program.read_bytes()}), "m")
    assert nothing_is_left(staging)


def test_a_header_of_a_tar_that_would_fill_the_memory_fills_none_of_ours(
    source: UploadSource, staging: StagingArea, tmp_path: Path
) -> None:
    # A name of 5 GB, as GNU tar writes long ones: whoever reads the header reads it whole.
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 5 * 10**9
    path = received(source, {"a.tar": name.tobuf(tarfile.GNU_FORMAT)})
    os.truncate(path / "a.tar", 5 * 10**9 + 10_240)  # a hole
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidInputError, match=r"too much memory|cannot be unpacked"):
        UploadSource(staging, max_bytes=10**11).accept(path, "m")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB
    assert nothing_is_left(staging)


def test_progress_counts_the_bytes_and_breaks_the_upload_off_whole(
    source: UploadSource, staging: StagingArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    files = {"a.txt": b"x" * 1_000_000}
    source.accept(received(source, files), "m", progress=lambda done, total: seen.append((done, total)))
    assert seen
    assert {total for _, total in seen} == {1_000_000}

    def stop(done: int, total: int) -> None:
        raise KeyError("stopped")

    with pytest.raises(KeyError, match="stopped"):
        source.accept(received(source, files), "n", progress=stop)
    assert [path.name for path in staging.root.iterdir()] == ["m"]


def test_a_full_disk_is_told_and_leaves_nothing(
    source: UploadSource, staging: StagingArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StagingArea, "publish", full)
    with pytest.raises(StoreUnavailableError, match="no room left"):
        source.accept(received(source, SMALL), "m")
    assert nothing_is_left(staging)


def test_what_an_interrupted_upload_left_is_cleared_once_it_is_old(source: UploadSource, staging: StagingArea) -> None:
    source.accept(received(source, SMALL), "m")
    folder = received(source, SMALL)
    assert source.clear_leftovers() == 0
    os.utime(folder, (0, 0))
    assert source.clear_leftovers() == 1
    assert [path.name for path in staging.root.iterdir()] == ["m"]


def test_nothing_sent_is_told(source: UploadSource, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no files"):
        source.accept(received(source, {}), "m")
    empty = zipped(tmp_path / "a.zip", {})
    with pytest.raises(InvalidInputError, match="no files"):
        source.accept(received(source, {"a.zip": empty.read_bytes()}), "m")


def test_several_files_need_a_name(source: UploadSource) -> None:
    with pytest.raises(InvalidInputError, match="field 'name'"):
        source.accept(received(source, SMALL))


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self._command,)


def hostile_archive(command: str) -> bytes:
    """Returns what torch.save would make of a hostile object, without torch."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Hostile(command), 2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


# Torch is imported once in each of these, in the child.


def test_pickles_of_plain_weights_are_taken_old_and_new_within_the_memory_allowed(
    source: UploadSource, staging: StagingArea, tmp_path: Path
) -> None:
    made = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, torch\n"
            "weights = {'w': torch.arange(5e6)}\n"
            "torch.save(weights, sys.argv[1] + '/pytorch_model.bin')\n"
            "torch.save(weights, sys.argv[1] + '/old.pt', _use_new_zipfile_serialization=False)\n",
            tmp_path,
        ],
        check=False,
    )
    assert made.returncode == 0
    files = {name: (tmp_path / name).read_bytes() for name in ("pytorch_model.bin", "old.pt")}
    staged = source.accept(received(source, {**files, "config.json": b"{}"}), "m")
    assert staged.record is not None
    assert staged.record.files == digests({**files, "config.json": b"{}"})
    # The new format is mapped and needs none of it.
    sparing = UploadSource(staging, max_bytes=10**9, pickle_memory=2_000_000)
    with pytest.raises(InvalidInputError, match="memory") as refused:
        sparing.accept(received(source, files), "n")
    assert list(refused.value.details["refused"]) == ["old.pt"]


def test_pickles_that_are_more_than_weights_are_refused_and_never_run(
    source: UploadSource, staging: StagingArea, tmp_path: Path
) -> None:
    command = f"touch {tmp_path}/run"
    old = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00." + bytes(20)
    files = {
        "model.bin": hostile_archive(command),
        "vocab.txt": pickle.dumps(Hostile(command), 4),
        "sub/torn.pt": hostile_archive(command)[:200],
        "torn-old.pth": old,
        "empty.pt": b"",
    }
    with pytest.raises(InvalidInputError, match="convert it to safetensors") as refused:
        source.accept(received(source, {**files, "config.json": b"{}"}), "m")
    reasons = refused.value.details["refused"]
    assert set(reasons) == set(files)
    assert "system" in reasons["model.bin"]
    assert not (tmp_path / "run").exists()
    assert nothing_is_left(staging)


def test_a_pickle_that_kills_its_reader_is_named(
    source: UploadSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    killer = tmp_path / "killer.py"
    killer.write_text(
        "import os\n"
        "from src.core.sources.confinement import serve\n"
        "def check(request, send):\n"
        "    send({'checking': request['files'][1]})\n"
        "    os.abort()\n"
        "serve(check)\n"
    )
    original = upload.check_pickles.__globals__["run_confined"]
    monkeypatch.setitem(
        upload.check_pickles.__globals__,
        "run_confined",
        lambda module, *args, **kwargs: original("killer", *args, **kwargs),
    )
    monkeypatch.setattr("src.core.sources.confinement._PASSED_ON", ("PATH", "PYTHONPATH"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InvalidInputError, match=r"sub/b\.pt ended the process that tried to load it \(SIGABRT"):
        source.accept(received(source, {"a.bin": b"", "sub/b.pt": struct.pack("<Q", 1)}), "m")
