"""Both official clients work against the fake, in what no recording shows."""

from datetime import UTC, datetime, timedelta

import lakefs
import lakefs_sdk
import pytest
from lakefs.exceptions import (
    BadRequestException,
    ConflictException,
    NotAuthorizedException,
    NotFoundException,
    ObjectExistsException,
    TransactionException,
)
from lakefs_sdk.client import LakeFSClient

from src.testing.fake_lakefs import FakeLakefs
from tests.service import wait_until


def put(branch: lakefs.Branch, message: str, **files: str) -> lakefs.Reference:
    for name, content in files.items():
        branch.object(f"tiny/{name}").upload(content)
    return branch.commit(message)


def paths(reference: lakefs.Reference, **wish: str) -> list[str]:
    return [found.path for found in reference.objects(**wish)]


def test_a_transaction_lands_as_one_merge(repository: lakefs.Repository, main: lakefs.Branch) -> None:
    with main.transact(commit_message="two files", commit_metadata={"by": "test"}, tag="v1") as tx:
        tx.object("a").upload(b"1")
        tx.object("b").upload(b"2")
        assert paths(main) == []
    assert paths(main) == ["a", "b"]
    assert [commit.message.split()[0] for commit in main.log()] == ["Merge", "two", "Repository"]
    assert repository.tag("v1").get_commit().id == main.get_commit().id
    assert [branch.id for branch in repository.branches()] == ["main"]


def test_a_transaction_that_fails_leaves_nothing(repository: lakefs.Repository, main: lakefs.Branch) -> None:
    def fail() -> None:
        with main.transact(commit_message="half") as tx:
            tx.object("a").upload(b"1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert paths(main) == []
    assert [branch.id for branch in repository.branches(show_hidden=True)] == ["main"]


def test_a_transaction_meets_the_change_of_another(main: lakefs.Branch) -> None:
    def come_late() -> None:
        with main.transact(commit_message="late") as tx:
            tx.object("tiny/a").upload(b"1")
            put(main, "early", a="2")

    with pytest.raises(TransactionException):
        come_late()
    assert main.object("tiny/a").reader().read() == b"2"


def test_the_branch_of_a_transaction_is_hidden(repository: lakefs.Repository, main: lakefs.Branch) -> None:
    with main.transact(commit_message="seen") as tx:
        tx.object("a").upload(b"1")
        assert [branch.id for branch in repository.branches()] == ["main"]
        assert sorted(branch.id for branch in repository.branches(show_hidden=True)) == ["main", tx.id]


def test_an_object_is_read_in_parts(main: lakefs.Branch) -> None:
    main.object("a").upload(b"0123456789")
    with main.object("a").reader() as reader:
        reader.seek(3)
        assert reader.read(4) == b"3456"
        assert reader.read() == b"789"
        assert reader.read() == b""


def test_a_writer_longer_than_its_buffer_arrives_whole(main: lakefs.Branch) -> None:
    block = bytes(range(256)) * 4096
    with main.object("big").writer() as writer:
        for _ in range(40):
            writer.write(block)
    assert main.object("big").stat().size_bytes == 40 << 20
    with main.object("big").reader() as reader:
        reader.seek((39 << 20) + 7)
        assert reader.read() == block[7:]


def test_metadata_and_content_type_of_an_upload_are_kept(main: lakefs.Branch) -> None:
    main.object("a").upload(b"1", metadata={"sha256": "00", "Origin": "here"}, content_type="text/plain")
    stat = main.object("a").stat()
    assert (stat.metadata, stat.content_type) == ({"sha256": "00", "origin": "here"}, "text/plain")
    assert [found.metadata for found in main.objects()] == [{"sha256": "00", "origin": "here"}]


def test_an_exclusive_upload_does_not_overwrite(main: lakefs.Branch) -> None:
    main.object("a").upload(b"1", mode="xb")
    with pytest.raises(ObjectExistsException):
        main.object("a").upload(b"2", mode="xb")
    assert main.object("a").reader().read() == b"1"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("main", "merge"),
        ("main@", "merge"),
        ("main~0", "merge"),
        ("main^", "three"),
        ("main^2", "two"),
        ("main^2~1", "one"),
        ("main~2", "one"),
        ("main~", "three"),
        ("v1", "one"),
        ("v1~1", "Repository created"),
    ],
)
def test_a_reference_expression_finds_its_commit(
    repository: lakefs.Repository, main: lakefs.Branch, expression: str, message: str
) -> None:
    repository.tag("v1").create(put(main, "one", a="1"))
    other = repository.branch("other").create("main")
    put(other, "two", b="1")
    put(main, "three", c="1")
    other.merge_into(main, message="merge")
    assert repository.ref(expression).get_commit().message == message


@pytest.mark.parametrize("expression", ["nowhere", "main~9", "v1", "0123456789ab"])
def test_a_reference_to_nothing_is_not_found(
    repository: lakefs.Repository, main: lakefs.Branch, expression: str
) -> None:
    with pytest.raises(NotFoundException):
        repository.ref(expression).get_commit()


@pytest.mark.parametrize("expression", ["main^2", "main~x", "main@~1", "~1"])
def test_a_reference_that_cannot_be_is_refused(
    repository: lakefs.Repository, main: lakefs.Branch, expression: str
) -> None:
    with pytest.raises(BadRequestException):
        list(repository.ref(expression).objects())


def test_the_start_of_a_commit_id_stands_for_it(repository: lakefs.Repository, main: lakefs.Branch) -> None:
    made = put(main, "one", a="1")
    assert repository.commit(made.id[:10]).get_commit().id == made.id
    assert repository.commit(made.id[:10]).object("tiny/a").reader().read() == b"1"


def test_a_branch_shows_what_is_not_committed_and_its_head_does_not(
    repository: lakefs.Repository, main: lakefs.Branch
) -> None:
    put(main, "one", a="1")
    main.object("tiny/b").upload("2")
    main.object("tiny/a").delete()
    assert paths(main) == paths(repository.ref("main$")) == ["tiny/b"]
    assert paths(repository.ref("main@")) == ["tiny/a"]
    assert [(change.type, change.path) for change in main.uncommitted()] == [
        ("removed", "tiny/a"),
        ("added", "tiny/b"),
    ]


@pytest.mark.parametrize(
    ("wish", "left"),
    [
        ({}, []),
        ({"path_type": "common_prefix", "path": "tiny/"}, ["other/c"]),
        ({"path_type": "object", "path": "tiny/a"}, ["other/c", "tiny/b"]),
    ],
)
def test_a_reset_throws_changes_away(main: lakefs.Branch, wish: dict[str, str], left: list[str]) -> None:
    for path in ("tiny/a", "tiny/b", "other/c"):
        main.object(path).upload("1")
    main.reset_changes(**wish)  # type: ignore[arg-type]
    assert [change.path for change in main.uncommitted()] == left


def test_the_same_bytes_again_are_no_change(main: lakefs.Branch) -> None:
    put(main, "one", a="1")
    main.object("tiny/a").upload("1")
    assert list(main.uncommitted()) == []
    with pytest.raises(BadRequestException):
        main.commit("again")


def test_an_empty_commit_needs_to_be_allowed(main: lakefs.Branch) -> None:
    main.commit("nothing", allow_empty=True)
    assert main.get_commit().message == "nothing"


def test_a_log_is_read_page_by_page_and_bounded(main: lakefs.Branch) -> None:
    for number in range(5):
        put(main, str(number), a=str(number))
    messages = ["4", "3", "2", "1", "0", "Repository created"]
    assert [commit.message for commit in main.log(amount=2)] == messages
    assert [commit.message for commit in main.log(max_amount=3, amount=2)] == messages[:3]
    assert [commit.message for commit in main.log(amount=2, limit=True)] == messages[:2]
    assert [commit.message for commit in main.log(stop_at="main~2")] == messages[:3]
    assert list(main.log(since=datetime.now(UTC) + timedelta(days=1))) == []


def test_a_log_of_paths_has_the_commits_that_changed_them(main: lakefs.Branch) -> None:
    put(main, "a", a="1")
    put(main, "b", b="1")
    put(main, "a again", a="2")
    assert [commit.message for commit in main.log(objects=["tiny/a"])] == ["a again", "a"]
    assert [commit.message for commit in main.log(prefixes=["tiny/"], amount=1)] == ["a again", "b", "a"]


def test_a_log_of_first_parents_leaves_a_branch_out(repository: lakefs.Repository, main: lakefs.Branch) -> None:
    other = repository.branch("other").create("main")
    put(other, "aside", b="1")
    other.merge_into(main, message="merge")
    assert [commit.message for commit in main.log(first_parent=True)] == ["merge", "Repository created"]


def test_objects_are_listed_by_prefix_and_delimiter(main: lakefs.Branch) -> None:
    for path in ("a/1", "a/b/2", "a/b/3", "c"):
        main.object(path).upload("1")
    assert paths(main, delimiter="/") == ["a/", "c"]
    assert paths(main, prefix="a/", delimiter="/") == ["a/1", "a/b/"]
    assert paths(main, prefix="a/", after="a/b/2") == ["a/b/3"]


def test_a_long_list_is_read_page_by_page(main: lakefs.Branch, server: FakeLakefs) -> None:
    names = [f"{number:03}" for number in range(230)]
    for name in names:
        main.object(name).upload("1")
    before = len(server.requests)
    assert paths(main) == names
    assert len(server.requests) - before == 3


def test_many_objects_are_deleted_at_once(main: lakefs.Branch) -> None:
    put(main, "one", a="1", b="1", c="1")
    main.delete_objects(["tiny/a", "tiny/b", "tiny/never"])
    assert paths(main) == ["tiny/c"]


def test_a_copy_survives_its_source(repository: lakefs.Repository, main: lakefs.Branch) -> None:
    main.object("a").upload("1", metadata={"sha256": "00"})
    main.commit("one")
    repository.branch("other").create("main")
    main.object("a").copy("other", "b")
    copied = repository.branch("other").object("b")
    assert copied.reader().read() == b"1"
    assert copied.stat().metadata == {"sha256": "00"}
    assert copied.stat().physical_address != main.object("a").stat().physical_address


def test_user_metadata_is_replaced_and_is_a_change(main: lakefs.Branch, sdk: LakeFSClient) -> None:
    main.object("a").upload("1", metadata={"one": "1"})
    main.commit("one")
    new = lakefs_sdk.UpdateObjectUserMetadata(set={"two": "2"})
    sdk.objects_api.update_object_user_metadata("models", "main", "a", new)
    assert main.object("a").stat().metadata == {"two": "2"}
    assert [change.type for change in main.uncommitted()] == ["changed"]


def test_an_upload_can_ask_for_the_object_that_it_replaces(main: lakefs.Branch, sdk: LakeFSClient) -> None:
    checksum = main.object("a").upload("1").stat().checksum
    upload = sdk.objects_api.upload_object
    with pytest.raises(lakefs_sdk.ApiException, match="412"):
        upload("models", "main", "a", if_match="0", content=b"2")
    assert upload("models", "main", "a", if_match=checksum, content=b"2").size_bytes == 1


def test_tags_stay_with_their_commit(repository: lakefs.Repository, main: lakefs.Branch) -> None:
    tag = repository.tag("v1").create(put(main, "one", a="1"))
    put(main, "two", a="2")
    assert tag.object("tiny/a").reader().read() == b"1"
    with pytest.raises(ConflictException):
        repository.tag("v1").create("main")
    tag.delete()
    assert list(repository.tags()) == []


def test_repositories_are_listed_by_prefix(client: lakefs.Client) -> None:
    for name in ("models", "datasets", "models-2"):
        lakefs.Repository(name, client).create(f"local://{name}")
    assert [found.id for found in lakefs.repositories(client)] == ["datasets", "models", "models-2"]
    assert [found.id for found in lakefs.repositories(client, prefix="models", amount=1)] == ["models", "models-2"]


def test_a_deleted_repository_goes_and_its_namespace_stays_taken(
    client: lakefs.Client, repository: lakefs.Repository, main: lakefs.Branch
) -> None:
    put(main, "one", a="1")
    repository.delete()
    assert list(lakefs.repositories(client)) == []
    with pytest.raises(NotFoundException):
        list(main.objects())

    def gone() -> bool:
        try:
            _ = lakefs.Repository("models", client).properties
        except NotFoundException:
            return True
        return False

    wait_until(gone, 10, "the repository to go")
    with pytest.raises(BadRequestException, match="already in use"):
        lakefs.Repository("models", client).create("local://models")
    assert lakefs.Repository("models", client).create("local://models-again").id == "models"


def test_a_repository_that_exists_may_be_asked_for(client: lakefs.Client, repository: lakefs.Repository) -> None:
    again = lakefs.Repository("models", client).create("local://models", exist_ok=True)
    assert again.properties.storage_namespace == "local://models"


def test_a_read_only_repository_is_not_written_to(sdk: LakeFSClient) -> None:
    creation = lakefs_sdk.RepositoryCreation(name="fixed", storage_namespace="local://fixed", read_only=True)
    sdk.repositories_api.create_repository(creation)
    with pytest.raises(lakefs_sdk.ApiException, match="read-only repository"):
        sdk.objects_api.upload_object("fixed", "main", "a", content=b"1")


def test_a_branch_needs_a_name_that_can_be_one(repository: lakefs.Repository) -> None:
    with pytest.raises(BadRequestException, match="branch id"):
        repository.branch("a/b").create("main")


def test_other_credentials_are_refused(server: FakeLakefs) -> None:
    stranger = lakefs.Client(host=server.url, username="other", password=server.secret_access_key)
    with pytest.raises(NotAuthorizedException):
        list(lakefs.repositories(stranger))


def test_what_the_fake_does_not_speak_it_says(sdk: LakeFSClient) -> None:
    with pytest.raises(lakefs_sdk.ApiException, match="does not speak GET /api/v1/auth/users"):
        sdk.auth_api.list_users()
