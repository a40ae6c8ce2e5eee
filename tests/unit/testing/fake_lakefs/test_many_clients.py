"""Many clients at once, and objects larger than what the server keeps in memory."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import lakefs
import pytest
from lakefs.exceptions import BadRequestException

from src.testing.fake_lakefs import FakeLakefs
from src.testing.fake_lakefs.__main__ import server_from

ROOT = Path(__file__).parents[4]
CLIENTS = 8
BLOCK = os.urandom(1 << 20)
BLOCKS = 96


def test_concurrent_commits_stand_in_one_line(main: lakefs.Branch) -> None:
    def work(number: int) -> list[str]:
        made = []
        for turn in range(5):
            main.object(f"{number}/{turn}").upload(f"{number} {turn}")
            try:
                made.append(main.commit(f"{number} {turn}").id)
            except BadRequestException:
                pass  # another client's commit took this upload along
        return made

    with ThreadPoolExecutor(CLIENTS) as pool:
        made = [id_ for ids in pool.map(work, range(CLIENTS)) for id_ in ids]
    log = list(main.log())
    assert {commit.id for commit in log[:-1]} == set(made)
    assert [commit.parents for commit in log[:-1]] == [[commit.id] for commit in log[1:]]
    assert len(list(main.objects())) == CLIENTS * 5


def test_concurrent_merges_lose_nothing(repository: lakefs.Repository, main: lakefs.Branch) -> None:
    def work(number: int) -> None:
        with main.transact(commit_message=str(number)) as tx:
            tx.object(f"{number}.txt").upload(str(number))

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(work, range(CLIENTS)))
    assert [found.path for found in main.objects()] == [f"{number}.txt" for number in range(CLIENTS)]
    assert [branch.id for branch in repository.branches(show_hidden=True)] == ["main"]


def test_an_exclusive_path_has_one_winner(main: lakefs.Branch) -> None:
    def work(number: int) -> bool:
        try:
            main.object("lock").upload(str(number), mode="x")
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert sum(pool.map(work, range(CLIENTS))) == 1


@pytest.fixture
def process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    arguments = ["--port", "0", "--access-key-id", "key", "--secret-access-key", "secret"]
    command = [sys.executable, "-m", "src.testing.fake_lakefs", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().split()[-1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def peak_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def send_blocks(url: str) -> str:
    """Uploads without ever holding the object; returns the server's checksum."""
    client = lakefs.Client(host=url, username="key", password="secret")
    main = lakefs.Repository("models", client).create("local://models").branch("main")
    with main.object("big").writer() as writer:
        for _ in range(BLOCKS):
            writer.write(BLOCK)
    checksum: str = main.object("big").stat().checksum
    return checksum


def received(url: str) -> str:
    """Downloads without ever holding the object; returns the checksum of what came."""
    parts = urlsplit(url)
    digest = hashlib.md5(usedforsecurity=False)
    login = "Authorization: Basic a2V5OnNlY3JldA==\r\n"
    path = "/api/v1/repositories/models/refs/main/objects?path=big"
    with socket.create_connection((parts.hostname, parts.port)) as connection, connection.makefile("rb") as answer:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{login}\r\n".encode())
        while answer.readline().strip():
            pass
        while piece := answer.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def test_a_big_object_passes_through_little_memory(
    process: tuple[subprocess.Popen[str], str], figure: Callable[[str], None]
) -> None:
    served, url = process
    before = peak_kib(served.pid)
    whole = hashlib.md5(usedforsecurity=False)
    for _ in range(BLOCKS):
        whole.update(BLOCK)
    assert send_blocks(url) == received(url) == whole.hexdigest()
    grown = peak_kib(served.pid) - before
    figure(f"{BLOCKS} MiB up and down: {grown / 1024:.1f} MiB more at the server's peak")
    assert grown < BLOCKS * 1024 // 4


def test_the_command_line_sets_credentials_and_port() -> None:
    server = server_from(["--port", "0", "--access-key-id", "key", "--deletion-seconds", "0"])
    assert (server.access_key_id, server.url) == ("key", "http://127.0.0.1:0")
    server.close()


def test_the_command_line_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        server_from(["--help"])
    assert "--secret-access-key" in capsys.readouterr().out


def test_what_was_stored_goes_with_the_server() -> None:
    with FakeLakefs() as server:
        folder = server._state.blobs.path("x/x").parent
        assert folder.is_dir()
    assert not folder.exists()
