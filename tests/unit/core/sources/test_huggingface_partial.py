"""The folder of a download on its way: what is kept, and who holds it."""

import os
import threading
import time
from pathlib import Path

import pytest

from src.core.sources.hub_files import HubFile
from src.core.sources.hub_partial import PartialFolder, holding

A = HubFile("a.txt", 4, f"git:{1:040x}")
B = HubFile("sub/b.txt", 4, f"git:{2:040x}")


@pytest.fixture
def partial(tmp_path: Path) -> PartialFolder:
    folder = tmp_path / ".x.partial"
    folder.mkdir()
    (folder / "lock").touch()
    return PartialFolder(folder)


def put(partial: PartialFolder, file: HubFile, content: bytes = b"1234") -> None:
    partial.arriving(file).write_bytes(content)
    partial.arrived(file)


def test_a_checked_file_lies_in_the_tree(partial: PartialFolder) -> None:
    put(partial, B)
    assert (partial.tree / "sub/b.txt").read_bytes() == b"1234"


def test_one_that_had_arrived_is_taken_up_again(partial: PartialFolder) -> None:
    put(partial, A)
    assert partial.arriving(A).read_bytes() == b"1234"
    assert not (partial.tree / "a.txt").exists()


def test_one_that_is_too_long_is_thrown_away(partial: PartialFolder) -> None:
    partial.arriving(A).write_bytes(b"12345")
    assert not partial.arriving(A).exists()


def test_halves_and_wholes_are_counted(partial: PartialFolder) -> None:
    put(partial, B)
    partial.arriving(A).write_bytes(b"12")
    assert partial.present([A, B]) == 6


def test_pruning_keeps_what_belongs_to_these_files(partial: PartialFolder) -> None:
    put(partial, B)
    partial.arriving(A).write_bytes(b"12")
    put(partial, HubFile("old/c.txt", 4, f"git:{3:040x}"))
    put(partial, HubFile("resized.txt", 4, f"git:{3:040x}"))
    partial.arriving(HubFile("a.txt", 9, f"git:{4:040x}")).write_bytes(b"another revision")
    partial.prune([A, B, HubFile("resized.txt", 5, f"git:{5:040x}")])
    assert partial.present([A, B]) == 6
    assert sorted(os.listdir(partial.tree)) == ["sub"]
    assert [path.name for path in (partial.tree.parent / "arriving").iterdir()] == [A.key]


def test_removing_leaves_nothing(partial: PartialFolder) -> None:
    put(partial, A)
    partial.remove()
    assert not partial.tree.parent.exists()


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    inside = most = 0
    guard = threading.Lock()

    def make() -> Path:
        (tmp_path / "p").mkdir(exist_ok=True)
        return tmp_path / "p"

    def hold() -> None:
        nonlocal inside, most
        for _ in range(5):
            with holding(make, lambda _: None) as partial:
                with guard:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.002)
                with guard:
                    inside -= 1
                partial.remove()

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert not list(tmp_path.iterdir())


def test_waiting_may_be_broken_off(tmp_path: Path) -> None:
    class Enough(BaseException):
        pass

    def waiting(partial: PartialFolder) -> None:
        raise Enough

    with holding(lambda: tmp_path, lambda _: None), pytest.raises(Enough), holding(lambda: tmp_path, waiting):
        pass
    with holding(lambda: tmp_path, waiting):
        pass
