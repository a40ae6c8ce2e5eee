"""A registry file that is missing, emptied, damaged or locked is neither believed nor recreated."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from src.core.errors import ModelNotFoundError, RegistryUnavailableError
from src.core.mlflow_registry import MlflowRegistry
from tests.unit.core.conftest import look_again, open_registry

SOURCE = "lakefs://repo/0123abcd/"


def _remove(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    os.truncate(path, 0)


def _overwrite(path: Path) -> None:
    path.write_bytes(b"this was a registry once" * 1000)


def _damage(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(16)
        file.write(os.urandom(4096 * 8))


def _strip_tables(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE something_else (id)")


def _delete_rows(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for table in ("registered_model_aliases", "model_version_tags", "model_versions", "registered_models"):
            connection.execute(f"DELETE FROM {table}")
        connection.commit()


def _become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


ruins = pytest.mark.parametrize(
    ("ruin", "problem"),
    [
        (_remove, "is missing"),
        (_truncate, "is empty (0 bytes)"),
        (_overwrite, "is damaged"),
        (_damage, "is damaged"),
        (_strip_tables, "holds no registry"),
        (_delete_rows, "holds no models, though it had some"),
        (_become_folder, "cannot be opened"),
    ],
)


def _look_of(path: Path) -> object:
    return path.read_bytes() if path.is_file() else path.exists()


@ruins
def test_a_ruined_file_is_noticed_served_around_and_left_alone(
    served: MlflowRegistry, database: Path, ruin: Callable[[Path], None], problem: str
) -> None:
    ruin(database)
    left = _look_of(database)
    look_again(served)

    resolution = served.resolve("model")
    with pytest.raises(RegistryUnavailableError) as refused:
        served.register("model", source=SOURCE, tags={})
    with pytest.raises(RegistryUnavailableError):
        served.resolve("unheard-of")

    assert resolution.registered.version == "1"
    assert problem in resolution.warnings[0]
    assert problem in refused.value.message
    assert f"{database}" in refused.value.message
    assert "put the file back from a backup" in refused.value.message
    assert str(database.with_name("registry-snapshot.json")) in refused.value.message
    assert refused.value.retryable
    assert served.state == "degraded"
    assert problem in (served.reason or "")
    assert _look_of(database) == left


@ruins
def test_a_ruined_file_is_neither_believed_nor_recreated_by_a_restart(
    served: MlflowRegistry, folder: Path, database: Path, ruin: Callable[[Path], None], problem: str
) -> None:
    served.close()
    ruin(database)
    left = _look_of(database)

    with closing(open_registry(folder)) as restarted:
        restarted.start()
        resolution = restarted.resolve("model@production")
        health = restarted.health()

        assert restarted.state == "degraded"
        assert not restarted.newly_created
        assert (resolution.registered.version, resolution.registered.source) == ("1", SOURCE)
        assert problem in resolution.warnings[0]
        assert (health["reachable"], health["latency_ms"], health["state"]) == (False, None, "degraded")
    assert _look_of(database) == left


def test_the_stand_in_is_served_from_memory_until_the_file_is_back(served: MlflowRegistry, database: Path) -> None:
    database.rename(database.with_suffix(".away"))
    look_again(served)
    warned = served.resolve("model")

    assert served.cached("model") == warned
    assert warned.warnings
    assert not served.stale("model")
    served._connection._quiet_until = 0.0
    assert served.stale("model")

    database.with_suffix(".away").rename(database)
    assert served.refresh("model") == served.cached("model")
    assert served.cached("model") == served.resolve("model")
    assert served.resolve("model").warnings == ()
    assert (served.state, served.reason) == ("ready", None)


@ruins
def test_a_file_put_back_from_a_backup_is_taken_up_by_itself(
    served: MlflowRegistry, database: Path, ruin: Callable[[Path], None], problem: str
) -> None:
    backup = database.with_suffix(".backup")
    shutil.copy(database, backup)
    ruin(database)
    look_again(served)
    assert problem in served.resolve("model").warnings[0]

    if database.is_dir():
        database.rmdir()
    os.replace(backup, database)
    look_again(served)

    assert served.resolve("model").warnings == ()
    assert served.register("model", source=SOURCE, tags={}).version == "2"
    assert served.health()["reachable"]


def test_another_file_in_its_place_is_read_instead(
    served: MlflowRegistry, database: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    shutil.copy(database, other / "mlflow.db")
    with closing(open_registry(other)) as elsewhere:
        elsewhere.start()
        elsewhere.register("model", source="lakefs://repo/other/", tags={}, stage="production")

    os.replace(other / "mlflow.db", database)
    look_again(served)

    assert served.resolve("model").registered.commit == "other"


def test_connections_that_mlflow_keeps_are_closed_when_the_file_is_another(
    served: MlflowRegistry, database: Path
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    shutil.copy(database, database.with_suffix(".other"))
    client.create_registered_model("only-in-the-first")
    client.search_experiments()

    os.replace(database.with_suffix(".other"), database)
    look_again(served)
    served.resolve("model")

    assert [model.name for model in client.search_registered_models()] == ["model"]


def test_a_file_that_is_taken_away_while_it_is_written_to(served: MlflowRegistry, database: Path) -> None:
    def write(backend: Any) -> None:
        backend.set_tag("model", "1", "a", "b")
        shutil.copy(database, database.with_suffix(".other"))
        os.replace(database.with_suffix(".other"), database)

    with pytest.raises(RegistryUnavailableError, match="taken away while it was being written to"):
        served._connection.write(write)


def test_nothing_is_created_when_the_file_goes_between_check_and_use(served: MlflowRegistry, database: Path) -> None:
    def read(backend: Any) -> None:
        database.unlink()
        backend.names()

    with pytest.raises(RegistryUnavailableError, match="unable to open database file"):
        served._connection.read(read)

    assert not database.exists()


# ---------------------------------------------------------------------- a new data folder


def test_a_new_data_folder_gets_a_registry_from_one_of_two_who_start_at_once(tmp_path: Path) -> None:
    registries = [open_registry(tmp_path / "new") for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda registry: registry.start(), registries))

    assert [registry.state for registry in registries] == ["ready", "ready"]
    assert sorted(registry.newly_created for registry in registries) == [False, True]
    assert registries[0].register("a", source=SOURCE, tags={}).version == "1"
    assert registries[1].resolve("a").registered.version == "1"
    for registry in registries:
        registry.close()
    assert {path.suffix for path in (tmp_path / "new").iterdir()} == {".db", ".json", ".lock"}


def test_an_empty_registry_that_vanishes_is_not_recreated_either(folder: Path, database: Path) -> None:
    with closing(open_registry(folder)) as registry:
        registry.start()
    database.unlink()

    with closing(open_registry(folder)) as restarted:
        restarted.start()
        assert restarted.state == "degraded"
        with pytest.raises(RegistryUnavailableError, match="is missing"):
            restarted.resolve("model")
    assert not database.exists()


def test_a_damaged_snapshot_still_proves_that_there_was_a_registry(folder: Path, database: Path) -> None:
    (folder / "registry-snapshot.json").write_text("{")
    database.unlink()

    with closing(open_registry(folder)) as registry:
        registry.start()

        assert registry.state == "degraded"
        assert not database.exists()


def test_a_sound_registry_repairs_a_damaged_snapshot(served: MlflowRegistry, folder: Path) -> None:
    served.close()
    (folder / "registry-snapshot.json").write_text("{")

    with closing(open_registry(folder)) as restarted:
        assert restarted.resolve("model").registered.version == "1"
    with closing(open_registry(folder)) as again:
        assert again.resolve("model").registered.version == "1"
        assert again.state == "starting"


def test_starting_over_is_possible_in_the_way_that_the_message_says(
    served: MlflowRegistry, folder: Path, database: Path
) -> None:
    served.close()
    database.unlink()
    (folder / "registry-snapshot.json").unlink()

    with closing(open_registry(folder)) as restarted:
        restarted.start()

        assert restarted.newly_created
        with pytest.raises(ModelNotFoundError):
            restarted.resolve("model")


def test_a_data_folder_that_is_gone(served: MlflowRegistry, folder: Path) -> None:
    shutil.rmtree(folder)
    look_again(served)

    assert "is missing" in served.resolve("model").warnings[0]
    with pytest.raises(RegistryUnavailableError):
        served.register("model", source=SOURCE, tags={})
    folder.mkdir()
    with pytest.raises(RegistryUnavailableError, match="is missing"):
        served.register("model", source=SOURCE, tags={})
    assert not (folder / "mlflow.db").exists()
