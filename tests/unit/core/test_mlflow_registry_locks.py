"""A registry file that another process has locked, and what watching a file may not do to locks."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from src.core.errors import RegistryUnavailableError
from src.core.mlflow_registry import MlflowRegistry
from src.core.registry.sqlite_guard import SqliteGuard
from tests.unit.core.conftest import look_again, open_registry

SOURCE = "lakefs://repo/0123abcd/"


@contextmanager
def locked_elsewhere(path: Path) -> Iterator[None]:
    """Another process holds the file exclusively."""
    script = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN EXCLUSIVE')\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin
    assert holder.stdout
    with holder:
        assert holder.stdout.readline() == b"locked\n"
        yield
        holder.stdin.close()


def test_a_locked_file_keeps_nobody_waiting_who_can_be_served(served: MlflowRegistry, database: Path) -> None:
    served.set_tag("model", "1", "physical_path", "/elsewhere")
    with locked_elsewhere(database):
        os.utime(database)  # so that memory no longer is as good as asking
        look_again(served)
        started = time.monotonic()
        resolution = served.resolve("model")
        waited = time.monotonic() - started
        look_again(served)
        with pytest.raises(RegistryUnavailableError, match="locked"):
            served.register("model", source=SOURCE, tags={})
        refused_after = time.monotonic() - started - waited

    assert "is locked by another process" in resolution.warnings[0]
    assert waited < 2.5
    assert refused_after < 4
    look_again(served)
    assert served.resolve("model").warnings == ()
    assert served.register("model", source=SOURCE, tags={}).version == "2"


def test_a_file_locked_between_check_and_use_is_not_waited_for_either(served: MlflowRegistry, database: Path) -> None:
    with locked_elsewhere(database):
        started = time.monotonic()
        with pytest.raises(RegistryUnavailableError, match="database is locked"):
            served.versions("model")

        assert time.monotonic() - started < 15  # the library itself would wait 20
        assert served.health()["reachable"] is False


def test_a_locked_file_that_has_not_changed_is_served_from_memory(served: MlflowRegistry, database: Path) -> None:
    with locked_elsewhere(database):
        look_again(served)

        assert served.resolve("model").warnings == ()


def test_a_locked_file_does_not_keep_a_restart_from_serving(
    served: MlflowRegistry, folder: Path, database: Path
) -> None:
    served.close()
    os.utime(database)
    with locked_elsewhere(database), closing(open_registry(folder)) as restarted:
        restarted.start()

        assert restarted.state == "degraded"
        assert "locked" in restarted.resolve("model").warnings[0]


def test_watching_a_file_does_not_drop_the_locks_that_this_process_holds(database: Path) -> None:
    guard = SqliteGuard(database)
    attempt = (
        "import sqlite3, sys\n"
        "sqlite3.connect(sys.argv[1], timeout=0.05, isolation_level=None).execute('BEGIN IMMEDIATE')\n"
    )
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            assert guard.fingerprint()
        other = subprocess.run(
            [sys.executable, "-c", attempt, str(database)], capture_output=True, text=True, check=False
        )

    assert "database is locked" in other.stderr


def test_a_fingerprint_changes_with_every_commit_even_within_one_tick_of_the_clock(database: Path) -> None:
    guard = SqliteGuard(database)
    seen = set()
    with closing(sqlite3.connect(database)) as connection:
        for number in range(20):
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.commit()
            os.utime(database, ns=(0, 0))
            seen.add(guard.fingerprint())

    assert len(seen) == 20
