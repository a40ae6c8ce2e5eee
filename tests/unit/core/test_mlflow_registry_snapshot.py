"""The snapshot: shared by processes, merged, and what a restart serves from while MLflow is away."""

import json
import logging
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from src.core.errors import RegistryUnavailableError
from src.core.file_lock import file_locked
from src.core.registry.snapshot import MAX_VERSIONS, RegistrySnapshot, SnapshotEntry
from src.core.registry.sqlite_guard import Fingerprint
from src.core.registry.versions import RegisteredModel, RegisteredVersion
from tests.unit.core.conftest import Make, free_port, open_registry

SOURCE = "lakefs://repo/0123abcd/"


def entry(name: str, *, read_at: float = 1.0, versions: int = 1, **aliases: str) -> SnapshotEntry:
    listed = [
        RegisteredVersion(name, str(number), SOURCE, {"engine": "ollama"}, created_at=1.5)
        for number in range(1, versions + 1)
    ]
    return SnapshotEntry(RegisteredModel.of(name, name, listed, aliases), Fingerprint((1, 2, 3), 4, (5, 6, 7)), read_at)


def opened(path: Path, registry: str = "embedded") -> RegistrySnapshot:
    snapshot = RegistrySnapshot(path, registry)
    snapshot.load()
    return snapshot


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "registry-snapshot.json"


def test_an_entry_comes_back_as_it_went_in(path: Path) -> None:
    opened(path).update(entries=[entry("模型", production="1")], names=["模型", "other"])

    again = opened(path)

    assert again.entry("模型") == entry("模型", production="1")
    assert again.names == ("other", "模型")
    assert again.known
    assert again.holds_models


def test_without_a_file_nothing_is_known(path: Path) -> None:
    assert not opened(path).known
    assert not opened(path).holds_models
    assert opened(path).entries() == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 2}', '{"format": 1, "registries": {"embedded": {"models": 1}}}']
)
def test_a_damaged_file_is_known_but_not_believed(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    snapshot = opened(path)

    assert snapshot.known
    assert snapshot.entries() == []
    snapshot.update(entries=[entry("m")])
    assert opened(path).entry("m") == entry("m")


def test_registries_are_kept_apart(path: Path) -> None:
    opened(path, "http://one").update(entries=[entry("m")])
    opened(path, "http://two").update(entries=[entry("n")])

    assert opened(path, "http://one").names == ("m",)
    assert opened(path, "http://two").names == ("n",)
    assert not opened(path, "embedded").known


def test_two_writers_keep_each_other_s_entries(path: Path) -> None:
    one, two = opened(path), opened(path)
    one.update(entries=[entry("a")])
    two.update(entries=[entry("b")])
    one.update(entries=[entry("c")], removed=["a"])
    two.update(entries=[entry("d")])

    assert opened(path).names == ("b", "c", "d")
    assert two.names == ("b", "c", "d")


def test_what_was_read_earlier_does_not_replace_what_was_read_later(path: Path) -> None:
    opened(path).update(entries=[entry("m", read_at=2.0, versions=2)])
    opened(path).update(entries=[entry("m", read_at=1.0, versions=1)])

    assert opened(path).entry("m") == entry("m", read_at=2.0, versions=2)


def test_the_size_is_bounded_and_what_serves_is_kept(path: Path) -> None:
    opened(path).update(entries=[entry("m", versions=MAX_VERSIONS + 50, production="3")])

    kept = opened(path).entry("m")

    assert kept is not None
    assert len(kept.model.versions) == MAX_VERSIONS + 1
    assert kept.model.versions[-1].version == "3"
    assert not opened(path).differs(entry("m", versions=MAX_VERSIONS + 50, production="3"))
    assert opened(path).differs(entry("m", versions=MAX_VERSIONS + 51, production="3"))


def test_a_disk_that_refuses_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()

    with caplog.at_level(logging.WARNING):
        RegistrySnapshot(tmp_path / "file" / "snapshot.json", "embedded").update(entries=[entry("m")])

    assert "was not written" in caplog.text


def test_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.unit.core.test_mlflow_registry_snapshot import entry, opened\n"
        "snapshot = opened(Path(sys.argv[1]))\n"
        "for number in range(20):\n"
        "    snapshot.update(entries=[entry(f'{sys.argv[2]}-{number}')])\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(path), writer], cwd=Path(__file__).parents[3])
        for writer in ("one", "two", "three")
    ]

    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert set(opened(path).names) == {f"{w}-{n}" for w in ("one", "two", "three") for n in range(20)}
    assert {file.name for file in path.parent.iterdir()} == {path.name, path.name + ".lock"}


def test_a_reader_never_sees_half_a_file(path: Path) -> None:
    writer = opened(path)
    writer.update(entries=[entry("m")])
    done = threading.Event()

    def write() -> None:
        for number in range(30):
            writer.update(entries=[entry(f"m{number}", versions=20)])
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        assert json.loads(path.read_bytes())["format"] == 1
    thread.join()


def test_a_lock_file_is_not_waited_for_without_end(tmp_path: Path) -> None:
    held = file_locked(tmp_path / "lock", timeout=1.0)
    with held, pytest.raises(TimeoutError), file_locked(tmp_path / "lock", timeout=0.05):
        pass
    with file_locked(tmp_path / "lock", timeout=0.05):
        pass


# ---------------------------------------------------------------------- restarts


def test_a_restart_answers_from_the_snapshot_before_anything_is_opened(make_registry: Make, folder: Path) -> None:
    with closing(make_registry()) as registry:
        registry.register("a/b:c", source=SOURCE, tags={"engine": "ollama"}, stage="production")
        registry.register("a/b:c", source=SOURCE, tags={}, stage="staging")

    restarted = make_registry(start=False)

    assert restarted.cached("a/b:c") is None
    resolution = restarted.resolve("a/b:c")
    assert (resolution.registered.version, resolution.alias, resolution.warnings) == ("1", "production", ())
    assert restarted.resolve("a/b:c@staging").registered.version == "2"
    assert restarted.cached("a/b:c") == resolution
    assert not restarted.stale("a/b:c")
    assert restarted.state == "starting"


def test_a_restart_after_a_change_by_others_asks_the_registry(make_registry: Make, folder: Path) -> None:
    from mlflow import MlflowClient

    with closing(make_registry()) as registry:
        for stage in ("production", "staging"):
            registry.register("m", source=SOURCE, tags={}, stage=stage)
    MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").set_registered_model_alias("m", "production", "2")

    restarted = make_registry(start=False)

    assert restarted.resolve("m").registered.version == "2"
    assert restarted.state == "ready"


def test_closing_leaves_a_snapshot_that_a_restart_can_serve_from_at_once(make_registry: Make) -> None:
    with closing(make_registry()) as registry:
        for name in ("m", "n", "o"):
            registry.register(name, source=SOURCE, tags={}, stage="production")

    restarted = make_registry(start=False)

    assert {restarted.resolve(name).registered.name for name in ("m", "n", "o")} == {"m", "n", "o"}
    assert restarted.state == "starting"


def test_a_start_reads_again_what_may_have_changed(make_registry: Make, folder: Path) -> None:
    from mlflow import MlflowClient

    with closing(make_registry()) as registry:
        for name in ("m", "n"):
            registry.register(name, source=SOURCE, tags={}, stage="production")
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    client.delete_registered_model("n")
    client.set_model_version_tag("m", "1", "engine", "ollama")

    primed = make_registry()

    assert not primed.stale("m")
    assert primed.cached("m").registered.engine == "ollama"  # type: ignore[union-attr]
    assert primed.cached("n") is None
    assert opened(folder / "registry-snapshot.json").entry("n") is None


def test_what_one_process_registers_another_has_in_its_snapshot(make_registry: Make, folder: Path) -> None:
    one, two = make_registry(), make_registry()
    one.register("a", source=SOURCE, tags={})
    two.register("b", source=SOURCE, tags={})
    one.register("c", source=SOURCE, tags={})

    assert opened(folder / "registry-snapshot.json").names == ("a", "b", "c")


def test_a_server_that_is_down_at_the_start_is_served_around(folder: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    RegistrySnapshot(folder / "registry-snapshot.json", address).update(entries=[entry("m", production="1")])

    with closing(open_registry(folder, address, request_timeout=2.0)) as registry:
        registry.start()
        resolution = registry.resolve("m")

        assert registry.state == "degraded"
        assert resolution.registered.version == "1"
        assert "the model registry does not answer" in resolution.warnings[0]
        assert registry.cached("m") == resolution
        assert not registry.stale("m")
        assert registry.health()["reachable"] is False
        for refused in (
            lambda: registry.resolve("unheard-of"),
            lambda: registry.resolve("m@7"),
            lambda: registry.register("m", source=SOURCE, tags={}),
            lambda: registry.list_models(),
        ):
            with pytest.raises(RegistryUnavailableError, match=address):
                refused()


def test_the_snapshot_of_another_registry_is_not_served(folder: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    RegistrySnapshot(folder / "registry-snapshot.json", "embedded").update(entries=[entry("m")])

    with closing(open_registry(folder, address)) as registry, pytest.raises(RegistryUnavailableError):
        registry.resolve("m")
