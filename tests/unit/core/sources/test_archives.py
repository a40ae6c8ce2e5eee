import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from src.core.errors import InvalidInputError, PayloadTooLargeError
from src.core.sources.archives import Limits, is_archive, unpack, without_ending

LIMITS = Limits(max_bytes=100_000_000, max_files=100)
MEMBERS = {"config.json": b"{}", "sub/model.bin": bytes(70_000)}

Maker = Callable[[Path, Mapping[str, bytes]], Path]


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: Mapping[str, bytes]) -> Path:
    mode = {".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz", ".tgz": "w:gz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def unpacked(
    archive: Path, limits: Limits = LIMITS, wanted: Callable[[str], bool] = lambda path: True
) -> dict[str, bytes]:
    target = archive.parent / "target"
    target.mkdir()
    unpack(archive, target, limits, wanted, lambda count: None)
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def tar_of(path: Path, *infos: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for info in infos:
            archive.addfile(info)
    return path


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize("name", ["a.zip", "a.ZIP", "a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz"])
def test_an_archive_comes_out_as_it_went_in(name: str, tmp_path: Path) -> None:
    make: Maker = zipped if name.lower().endswith("zip") else tarred
    assert unpacked(make(tmp_path / name, MEMBERS)) == MEMBERS


def test_names_of_tar_that_begin_with_the_present_folder_are_taken_without_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/config.json").write_bytes(b"{}")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "in", arcname=".")
    assert unpacked(tmp_path / "a.tar") == {"config.json": b"{}"}


@pytest.mark.parametrize("make", [zipped, tarred])
def test_what_file_managers_and_git_add_is_passed_over(make: Maker, tmp_path: Path) -> None:
    extra = {"__MACOSX/._config.json": b"x", "sub/.DS_Store": b"x", "m/.git/config": b"x", ".cache/huggingface/a": b"x"}
    archive = make(tmp_path / f"a.{'zip' if make is zipped else 'tar'}", {**MEMBERS, **extra})
    assert unpacked(archive) == MEMBERS


def test_what_nobody_wants_is_not_written(tmp_path: Path) -> None:
    assert unpacked(zipped(tmp_path / "a.zip", MEMBERS), wanted=lambda path: path.endswith(".json")) == {
        "config.json": b"{}"
    }


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "C:/evil", "a\\..\\evil"])
def test_a_name_that_leads_out_is_refused_and_nothing_is_written_there(make: Maker, name: str, tmp_path: Path) -> None:
    archive = make(tmp_path / f"a.{'zip' if make is zipped else 'tar'}", {name: b"x"})
    with pytest.raises(InvalidInputError, match=r"the file name|outside the destination"):
        unpacked(archive)
    assert not list(tmp_path.rglob("*evil*"))


def test_a_zip_name_with_a_nul_is_refused_not_cut_short(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"config.json#.exe": b"{}"})
    archive.write_bytes(archive.read_bytes().replace(b"config.json#.exe", b"config.json\0.exe"))
    with pytest.raises(InvalidInputError, match="cannot be printed"):
        unpacked(archive)


@pytest.mark.parametrize(
    "info",
    [
        special("a.json", tarfile.SYMTYPE, "/etc/passwd"),
        special("a.json", tarfile.SYMTYPE, "b.json"),
        special("a.json", tarfile.LNKTYPE, "config.json"),
        special("a.json", tarfile.CHRTYPE),
        special("a.json", tarfile.BLKTYPE),
        special("a.json", tarfile.FIFOTYPE),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(info: tarfile.TarInfo, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is a link or a device"):
        unpacked(tar_of(tmp_path / "a.tar", info))


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("a.json")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InvalidInputError, match="is a link or a device"):
        unpacked(tmp_path / "a.zip")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"a.json": b"{}"})
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1  # the flag in the central directory
    archive.write_bytes(data)
    with pytest.raises(InvalidInputError, match="is encrypted"):
        unpacked(archive)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.json", "1")
        archive.writestr("a.json", "2")
    with pytest.raises(InvalidInputError, match="there twice"):
        unpacked(tmp_path / "a.zip")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
def test_a_bomb_is_stopped_long_before_it_fills_the_disk(name: str, tmp_path: Path) -> None:
    make: Maker = zipped if name.endswith("zip") else tarred
    archive = make(tmp_path / name, {"a.json": bytes(90_000_000)})
    with pytest.raises(PayloadTooLargeError, match="200 times its size"):
        unpacked(archive)
    assert not (tmp_path / "target/a.json").exists()


def test_a_zip_that_says_less_than_it_holds_is_not_believed(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"a.json": bytes(1_000_000)})
    archive.write_bytes(archive.read_bytes().replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(InvalidInputError, match="cannot be unpacked"):
        unpacked(archive)


@pytest.mark.parametrize("make", [zipped, tarred])
def test_more_bytes_or_files_than_allowed_are_refused(make: Maker, tmp_path: Path) -> None:
    archive = make(tmp_path / f"a.{'zip' if make is zipped else 'tar'}", MEMBERS)
    with pytest.raises(PayloadTooLargeError, match="more than 70000 bytes"):
        unpacked(archive, Limits(70_000, 10))
    (tmp_path / "target").rename(tmp_path / "earlier")
    with pytest.raises(PayloadTooLargeError, match="more than 1 files"):
        unpacked(archive, Limits(10**6, 1))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2", "a.tgz"])
@pytest.mark.parametrize("data", [b"", b"no archive at all", b"\x1f\x8b" + bytes(40)])
def test_what_is_no_archive_is_told_so(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidInputError, match="cannot be unpacked"):
        unpacked(tmp_path / name)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.xz", "a.tar.bz2", "a.tar"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.8])
def test_an_archive_that_is_cut_off_is_refused(name: str, share: float, tmp_path: Path) -> None:
    make: Maker = zipped if name.endswith("zip") else tarred
    archive = make(tmp_path / name, {"a.json": os.urandom(3000), "b.json": os.urandom(40_000), "c.json": b""})
    os.truncate(archive, int(archive.stat().st_size * share))
    with pytest.raises(InvalidInputError, match="cannot be unpacked"):
        unpacked(archive)


def test_a_tar_that_is_cut_off_between_two_files_is_refused(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar", {"a.json": os.urandom(512), "b.json": os.urandom(512)})
    os.truncate(archive, 1024)
    with pytest.raises(InvalidInputError, match="its end is missing"):
        unpacked(archive)


def test_a_wrong_check_sum_is_noticed(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar.gz", {"a.json": os.urandom(3000)})
    data = bytearray(archive.read_bytes())
    data[1500] ^= 1
    archive.write_bytes(data)
    with pytest.raises(InvalidInputError, match="cannot be unpacked"):
        unpacked(archive)


@pytest.mark.skipif("zst" in tarfile.TarFile.OPEN_METH, reason="this Python reads it")
def test_zstd_is_refused_with_what_to_send_instead(tmp_path: Path) -> None:
    (tmp_path / "a.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    with pytest.raises(InvalidInputError, match=r"send \.tar"):
        unpacked(tmp_path / "a.tar.zst")


@pytest.mark.parametrize(
    ("name", "is_one", "stem"),
    [
        ("m.zip", True, "m"),
        ("m.tar.gz", True, "m"),
        ("m.v1.TGZ", True, "m.v1"),
        ("m.v1.bin", False, "m.v1"),
        ("m", False, "m"),
    ],
)
def test_an_archive_is_one_by_its_name(name: str, is_one: bool, stem: str) -> None:
    assert (is_archive(name), without_ending(name)) == (is_one, stem)
