"""Collections remove what nothing reaches, and nothing else, whoever dies and whoever writes meanwhile."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from src.core.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError
from src.core.stores import blobs, local
from src.core.stores.base import Commit, Garbage
from src.core.stores.local import LocalStore
from src.core.stores.locks import owned, shared

Plant = Callable[[Mapping[str, bytes]], Path]

ROOT = Path(__file__).resolve().parents[4]

# Dies by SIGKILL at the given step, where every call that changes the disk is a step.
KILLED_COLLECTION = """
import os, signal, sys
from pathlib import Path
from src.core.stores.local import LocalStore

left = int(sys.argv[2])

def counted(call):
    def wrapper(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return wrapper

for name in ("fsync", "rename", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
LocalStore(Path(sys.argv[1])).collect_garbage(older_than=0)
print(-left)
"""

UPLOADS_AND_DELETIONS = """
import random, sys, time
from pathlib import Path
from src.core.stores.local import LocalStore

store, folder, process = LocalStore(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
draw = random.Random(process)
for turn in range(40):
    source = folder / f"{process}-{turn}"
    source.mkdir()
    for name in "abc":
        (source / name).write_text(f"content {draw.randrange(6)}")  # mostly what others have, or had, too
    branch = f"{process}-{draw.randrange(3)}"
    store.upload("repo", source, branch=branch)
    if draw.random() < 0.5:
        store.delete_branch("repo", branch)
"""


def child(script: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def commits_of(store: LocalStore) -> set[str]:
    return {path.stem for path in store.root.glob("repos/*/commits/*.json")}


def blobs_of(store: LocalStore) -> set[str]:
    return {path.name for path in store.root.glob("blobs/sha256/*/*")}


def everything(store: LocalStore) -> set[Path]:
    return {path for path in store.root.rglob("*") if path.parent != store.root}


def make_old(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (0, 0))


def commit_file(store: LocalStore, commit: Commit) -> Path:
    return store.root / "repos" / commit.repo / "commits" / f"{commit.id}.json"


@pytest.fixture
def dropped(store: LocalStore, plant: Plant) -> tuple[Commit, Commit]:
    """Two commits, the second a child of the first, on a branch that was deleted; `main` holds another file."""
    store.upload("repo", plant({"kept": b"kept"}))
    first = store.upload("repo", plant({"kept": b"kept", "a": b"first" * 100}), branch="dev")
    second = store.upload("repo", plant({"kept": b"kept", "a": b"second" * 100}), branch="dev")
    store.delete_branch("repo", "dev")
    return first, second


def test_what_no_branch_reaches_is_removed(store: LocalStore, dropped: tuple[Commit, Commit]) -> None:
    sizes = sum(commit_file(store, commit).stat().st_size for commit in dropped)
    assert store.collect_garbage(older_than=0) == Garbage(4, sizes + 500 + 600)
    assert [entry.path for entry in store.verify("repo", "main").files] == ["kept"]
    assert list((store.root / "tmp").iterdir()) == []
    for commit in dropped:
        with pytest.raises(NotFoundError):
            store.get_commit("repo", commit.id)


def test_nothing_is_left_to_a_second_collection(store: LocalStore, dropped: tuple[Commit, Commit]) -> None:
    store.collect_garbage(older_than=0)
    assert store.collect_garbage(older_than=0) == Garbage(0, 0)


def test_a_store_that_is_not_there_has_no_garbage(store: LocalStore) -> None:
    assert store.collect_garbage() == Garbage(0, 0)
    assert not store.root.exists()


def test_what_is_young_stays(store: LocalStore, dropped: tuple[Commit, Commit]) -> None:
    assert store.collect_garbage(older_than=3600) == Garbage(0, 0)
    assert store.verify("repo", dropped[1].id)


def test_what_is_old_goes_beside_what_is_young(store: LocalStore, dropped: tuple[Commit, Commit]) -> None:
    make_old(*(commit_file(store, commit) for commit in dropped))
    store.collect_garbage(older_than=3600)
    assert not {commit.id for commit in dropped} & commits_of(store)
    assert {entry.sha256 for commit in dropped for entry in commit.files} == blobs_of(store)


def test_a_young_commit_keeps_its_old_parents_and_contents(store: LocalStore, dropped: tuple[Commit, Commit]) -> None:
    make_old(commit_file(store, dropped[0]), *store.root.glob("blobs/sha256/*/*"))
    assert store.collect_garbage(older_than=3600) == Garbage(0, 0)
    assert [commit.id for commit in store.log("repo", dropped[1].id)][:2] == [dropped[1].id, dropped[0].id]
    assert store.verify("repo", dropped[0].id)


@pytest.mark.parametrize("digits", [64, 12])
def test_a_kept_commit_stays_with_its_ancestors(store: LocalStore, dropped: tuple[Commit, Commit], digits: int) -> None:
    store.collect_garbage([("repo", dropped[1].id[:digits])], older_than=0)
    assert [store.verify("repo", commit.id) for commit in dropped] == list(dropped)


def test_a_kept_commit_of_another_repository_keeps_nothing_here(
    store: LocalStore, dropped: tuple[Commit, Commit]
) -> None:
    store.create_repo("other")
    store.collect_garbage([("other", dropped[1].id), ("nowhere", dropped[1].id), ("repo", "main")], older_than=0)
    assert not {commit.id for commit in dropped} & commits_of(store)


def test_both_parents_of_a_merge_stay(store: LocalStore, plant: Plant) -> None:
    store.upload("repo", plant({"a": b""}))
    side = store.upload("repo", plant({"a": b"", "side": b"2"}), branch="dev")
    store.upload("repo", plant({"a": b"", "main": b"3"}))
    store.merge("repo", "dev", "main")
    store.delete_branch("repo", "dev")
    store.collect_garbage(older_than=0)
    assert store.verify("repo", side.id) == side


def test_a_content_stays_that_another_repository_names(store: LocalStore, plant: Plant) -> None:
    source = plant({"a": b"shared"})
    store.create_repo("one")
    store.upload("one", source, branch="dev")
    store.upload("two", source)
    store.delete_branch("one", "dev")
    assert store.collect_garbage(older_than=0).removed == 1
    assert store.verify("two", "main")


def test_a_linked_checkout_outlives_its_commit_whose_bytes_are_not_freed_yet(
    store: LocalStore, dropped: tuple[Commit, Commit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "_cloned", lambda blob, target: False)
    store.checkout("repo", dropped[1].id, tmp_path / "out")
    sizes = sum(commit_file(store, commit).stat().st_size for commit in dropped)
    assert store.collect_garbage(older_than=0) == Garbage(4, sizes + 500)
    assert (tmp_path / "out/a").read_bytes() == b"second" * 100


def test_foreign_files_are_left_alone(store: LocalStore, dropped: tuple[Commit, Commit]) -> None:
    foreign = [store.root / "blobs/sha256/notes", store.root / "repos/repo/commits/notes.json", store.root / "repos/.x"]
    for path in foreign:
        path.write_text("")
    store.collect_garbage(older_than=0)
    assert all(path.exists() for path in foreign)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *((file, "spoilt") for file in ("commits/{main}.json", "refs/main", "refs/other", "repo.json")),
        *((file, "removed") for file in ("commits/{main}.json", "refs/main", "repo.json")),
    ],
)
def test_a_damaged_repository_aborts_the_collection(
    store: LocalStore, plant: Plant, dropped: tuple[Commit, Commit], file: str, damage: str
) -> None:
    store.upload("zzz", plant({"z": b""}))  # a sound one beside it
    main = store.create_branch("repo", "other", "main")
    path = store.root / "repos/repo" / file.format(main=main)
    path.unlink() if damage == "removed" else path.write_text("spoilt")
    before = everything(store)
    with pytest.raises(IntegrityError):
        store.collect_garbage(older_than=0)
    assert everything(store) == before


def test_a_damaged_commit_that_nothing_reaches_goes(store: LocalStore, dropped: tuple[Commit, Commit]) -> None:
    commit_file(store, dropped[1]).write_text("spoilt")
    store.collect_garbage(older_than=0)
    assert not {commit.id for commit in dropped} & commits_of(store)


def test_a_collection_between_taking_in_and_committing_costs_the_upload_nothing(
    store: LocalStore, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, collected = local.take_in, []

    def raced(*args: object) -> object:
        entries = real(*args)  # type: ignore[arg-type]
        if not collected:
            collected.append(LocalStore(store.root).collect_garbage(older_than=0))
        return entries

    monkeypatch.setattr(local, "take_in", raced)
    store.upload("repo", plant({"a": b"1", "b": b"2"}))
    assert collected == [Garbage(2, 2)]
    assert store.verify("repo", "main")


@pytest.mark.parametrize("work", ["upload", "create_branch", "merge", "delete_branch", "create_repo"])
def test_writers_wait_for_a_collection(store: LocalStore, plant: Plant, work: str) -> None:
    source = plant({"a": b"1"})
    main = store.upload("repo", source)
    store.upload("repo", plant({"a": b"2"}), branch="dev")
    calls: dict[str, Callable[[], object]] = {
        "upload": lambda: store.upload("repo", source, branch="new"),
        "create_branch": lambda: store.create_branch("repo", "new", main.id),
        "merge": lambda: store.merge("repo", "dev", "main"),
        "delete_branch": lambda: store.delete_branch("repo", "dev"),
        "create_repo": lambda: store.create_repo("other"),
    }
    with ThreadPoolExecutor(1) as pool:
        with owned(store.root / "store.lock"):
            waiting = pool.submit(calls[work])
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.1)
        waiting.result(timeout=10)


def test_a_collection_does_not_wait_for_an_upload_that_still_reads(store: LocalStore, plant: Plant) -> None:
    collected = []

    def progress(done: int, total: int) -> None:
        with ThreadPoolExecutor(1) as pool:
            collected.append(pool.submit(store.collect_garbage, older_than=0).result(timeout=10))

    store.upload("repo", plant({"a": b"1"}), progress=progress)
    assert collected
    assert store.verify("repo", "main")


def test_a_collection_waits_for_whoever_is_about_to_commit(store: LocalStore, plant: Plant) -> None:
    store.upload("repo", plant({"a": b"1"}))
    with ThreadPoolExecutor(1) as pool:
        with shared(store.root / "store.lock"):
            waiting = pool.submit(store.collect_garbage)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.1)
        assert waiting.result(timeout=10) == Garbage(0, 0)


def test_killed_collection_leaves_a_consistent_store(store: LocalStore, plant: Plant, tmp_path: Path) -> None:
    kept = store.upload("repo", plant({"a": b"kept"}))
    for turn in range(4):
        tip = store.upload("repo", plant({"a": b"%d" % turn, "b": b"kept"}), branch="dev")
    store.delete_branch("repo", "dev")
    shutil.copytree(store.root, tmp_path / "rehearsal")
    with child(KILLED_COLLECTION, tmp_path / "rehearsal", 0) as rehearsal:
        steps = int(rehearsal.stdout.read() if rehearsal.stdout else 0)
    seed = random.randrange(10**6)
    print(f"seed {seed}, {steps} steps")
    for step in random.Random(seed).sample(range(1, steps + 1), 6):
        survivor = LocalStore(tmp_path / f"killed-{step}")
        shutil.copytree(store.root, survivor.root)
        with child(KILLED_COLLECTION, survivor.root, step) as process:
            assert process.wait(timeout=30) == -signal.SIGKILL
        assert survivor.verify("repo", "main") == kept
        for commit_id in commits_of(survivor):  # whoever is still there is whole, with all its past
            assert all(survivor.verify("repo", commit.id) for commit in survivor.log("repo", commit_id))
        assert survivor.upload("repo", plant({"a": b"3", "b": b"kept"})).files == tip.files
        survivor.collect_garbage(older_than=0)
        assert survivor.verify("repo", "main").files == tip.files
        assert blobs_of(survivor) == {entry.sha256 for entry in (*kept.files, *tip.files)}


class Chronicle:
    """Does random work on a store, and knows by itself what must be reachable."""

    def __init__(self, store: LocalStore, plant: Plant, draw: random.Random) -> None:
        self.store, self.plant, self.draw = store, plant, draw
        self.known: dict[str, Commit] = {}

    def upload(self) -> None:
        files = {name: b"%d" % self.draw.randrange(5) for name in self.draw.sample("abcdef", self.draw.randint(1, 4))}
        repo, branch = self.draw.choice(["one", "two"]), self.draw.choice(["main", "dev", "test"])
        self.learn(self.store.upload(repo, self.plant(files), branch=branch))

    def branch(self) -> None:
        commit = self.draw.choice(list(self.known.values()))
        name = f"b{self.draw.randrange(5)}"
        if name in self.store.list_branches(commit.repo):
            self.store.delete_branch(commit.repo, name)
        self.store.create_branch(commit.repo, name, commit.id)

    def delete(self) -> None:
        repo = self.draw.choice(list(self.known.values())).repo
        if branches := sorted(set(self.store.list_branches(repo)) - {"main"}):
            self.store.delete_branch(repo, self.draw.choice(branches))

    def merge(self) -> None:
        commit = self.draw.choice(list(self.known.values()))
        into = self.draw.choice(sorted(self.store.list_branches(commit.repo)))
        try:
            self.learn(self.store.merge(commit.repo, commit.id, into))
        except (ConflictError, InvalidInputError):
            pass

    def collect(self) -> None:
        kept = self.draw.sample(list(self.known.values()), min(2, len(self.known)))
        self.store.collect_garbage([(commit.repo, commit.id) for commit in kept], older_than=0)
        self.known = self.reachable({commit.id for commit in kept})
        assert commits_of(self.store) == self.known.keys()
        assert blobs_of(self.store) == {entry.sha256 for commit in self.known.values() for entry in commit.files}
        assert [self.store.verify(commit.repo, commit.id) for commit in self.known.values()] == [*self.known.values()]

    def learn(self, commit: Commit) -> None:
        self.known[commit.id] = commit

    def reachable(self, roots: set[str]) -> dict[str, Commit]:
        heads = {head for repo in self.store.list_repos() for head in self.store.list_branches(repo.name).values()}
        found = (heads | roots) - {""}
        while more := {parent for commit_id in found for parent in self.known[commit_id].parents} - found:
            found |= more
        return {commit_id: self.known[commit_id] for commit_id in found}


def test_random_histories_keep_exactly_what_is_reachable(store: LocalStore, plant: Plant) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chronicle = Chronicle(store, plant, random.Random(seed))
    chronicle.upload()
    for _ in range(150):
        work = chronicle.draw.choices(["upload", "branch", "delete", "merge", "collect"], [6, 3, 3, 2, 1])[0]
        getattr(chronicle, work)()
    chronicle.collect()


def test_collections_beside_uploads_of_other_processes_lose_nothing(store: LocalStore, tmp_path: Path) -> None:
    store.create_repo("repo")
    uploaders = [child(UPLOADS_AND_DELETIONS, store.root, tmp_path, f"p{number}") for number in range(2)]
    collected: list[Garbage] = []

    def keep_collecting() -> None:
        while any(process.poll() is None for process in uploaders):
            collected.append(LocalStore(store.root).collect_garbage(older_than=0))
            time.sleep(0.005)

    collectors = [threading.Thread(target=keep_collecting) for _ in range(2)]
    for collector in collectors:
        collector.start()
    for process in uploaders:
        with process:
            assert process.wait(timeout=60) == 0
    for collector in collectors:
        collector.join()
    assert sum(garbage.removed for garbage in collected) > 10
    heads = {head for head in store.list_branches("repo").values() if head}
    assert all(store.verify("repo", commit.id) for head in heads for commit in store.log("repo", head))
