"""What goes wrong on demand goes wrong as asked, and then no more."""

import base64
import http.client
import threading
import time
from collections.abc import Callable
from contextlib import closing
from urllib.parse import urlsplit

import lakefs
import lakefs_sdk
import pytest
import urllib3
from lakefs.exceptions import ServerException
from lakefs_sdk.client import LakeFSClient

from src.testing.fake_lakefs import ApiError, FakeLakefs
from tests.service import wait_until

LOST = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)


def upload(server: FakeLakefs, sdk: LakeFSClient, path: str = "a", size: int = 1 << 20) -> None:
    sdk.objects_api.upload_object("models", "main", path, content=b"x" * size)


@pytest.mark.parametrize("status", [500, 503])
def test_the_next_requests_of_an_operation_fail(main: lakefs.Branch, server: FakeLakefs, status: int) -> None:
    server.fail("upload_object", status=status, times=2, message="not now")
    for _ in range(2):
        with pytest.raises(ServerException, match="not now") as refused:
            main.object("a").upload(b"1")
        assert refused.value.status_code == status
    main.object("a").upload(b"1")
    statuses = [seen.status for seen in server.requests if seen.operation == "upload_object"]
    assert statuses == [status, status, 201]


def test_another_operation_is_not_touched(main: lakefs.Branch, server: FakeLakefs) -> None:
    server.fail("commit")
    main.object("a").upload(b"1")
    with pytest.raises(ServerException):
        main.commit("one")
    assert main.commit("two").get_commit().message == "two"


def test_everything_fails_until_it_is_cleared(main: lakefs.Branch, server: FakeLakefs) -> None:
    server.fail(times=None)
    for _ in range(3):
        with pytest.raises(ServerException):
            main.get_commit()
    server.clear_faults()
    assert main.get_commit().message == "Repository created"


def test_a_cut_upload_leaves_nothing(main: lakefs.Branch, server: FakeLakefs, sdk: LakeFSClient) -> None:
    server.cut_request(after_bytes=300_000)
    with pytest.raises(LOST):
        upload(server, sdk)
    cut = server.requests[-1]
    assert (cut.operation, cut.status, cut.bytes_received) == ("upload_object", None, 300_000)
    assert list(main.objects()) == []
    assert stored_files(server) == 0
    upload(server, sdk)
    assert [found.path for found in main.objects()] == ["a"]


def stored_files(server: FakeLakefs) -> int:
    return len(list(server._state.blobs.path("x/x").parent.iterdir()))


def test_a_client_that_leaves_midway_leaves_nothing(main: lakefs.Branch, server: FakeLakefs) -> None:
    _upload_begun(server).close()
    wait_until(lambda: server.requests[-1].operation == "upload_object", 10, "the server to notice")
    assert (server.requests[-1].status, server.requests[-1].bytes_received) == (None, 10)
    assert list(main.objects()) == []


def test_a_cut_answer_is_short(main: lakefs.Branch, server: FakeLakefs) -> None:
    main.object("a").upload(b"x" * 100_000)
    server.cut_answer(after_bytes=50_000)
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
    connection.request("GET", "/api/v1/repositories/models/refs/main/objects?path=a", headers=_login(server))
    with connection.getresponse() as response:
        assert (response.status, response.length) == (200, 100_000)
        with pytest.raises(http.client.IncompleteRead, match="50000 bytes read"):
            response.read()
    connection.close()


def test_the_official_client_asks_again_for_an_answer_that_was_cut(main: lakefs.Branch, server: FakeLakefs) -> None:
    main.object("a").upload(b"x" * 100_000)
    server.cut_answer(after_bytes=50_000)
    assert main.object("a").reader().read() == b"x" * 100_000
    assert [seen.status for seen in server.requests if seen.operation == "get_object"] == [200, 200]


def test_a_lost_answer_was_still_done(main: lakefs.Branch, server: FakeLakefs) -> None:
    main.object("a").upload(b"1")
    server.lose_answer("commit")
    with pytest.raises(LOST):
        main.commit("one")
    assert main.get_commit().message == "one"
    assert next(seen.status for seen in server.requests if seen.operation == "commit") is None


def test_a_delayed_answer_comes_late(main: lakefs.Branch, server: FakeLakefs) -> None:
    server.delay(0.2, "get_commit")
    before = time.monotonic()
    main.get_commit()
    assert time.monotonic() - before >= 0.2


def test_stopping_ends_a_delay(main: lakefs.Branch, server: FakeLakefs) -> None:
    server.delay(600, "get_branch")
    failed = threading.Thread(target=lambda: _swallow(lambda: main.head))
    failed.start()
    wait_until(lambda: not server._faults._waiting, 10, "the delay to begin")
    server.stop()
    failed.join(30)
    assert not failed.is_alive()


def test_a_flipped_byte_shows_in_the_bytes_alone(main: lakefs.Branch, server: FakeLakefs) -> None:
    main.object("a").upload(b"0123456789")
    main.commit("one")
    before = main.object("a").stat().checksum
    server.corrupt("models", "a", offset=3)
    assert main.object("a").reader().read() == b"012" + bytes([ord("3") ^ 0xFF]) + b"456789"
    assert main.object("a").stat().checksum == before


def test_a_flip_finds_the_object_of_a_reference(main: lakefs.Branch, server: FakeLakefs) -> None:
    main.object("a").upload(b"1")
    old = main.commit("one")
    main.object("a").upload(b"2")
    main.commit("two")
    server.corrupt("models", "a", ref=old.id)
    assert main.object("a").reader().read() == b"2"
    assert old.object("a").reader().read() != b"1"


@pytest.mark.parametrize(
    ("flip", "error"),
    [
        (lambda server: server.corrupt("nowhere", "a"), ApiError),
        (lambda server: server.corrupt("models", "b"), ApiError),
        (lambda server: server.corrupt("models", "a", offset=1), ValueError),
    ],
)
def test_a_flip_of_nothing_is_an_error(
    main: lakefs.Branch, server: FakeLakefs, flip: Callable[[FakeLakefs], None], error: type[Exception]
) -> None:
    main.object("a").upload(b"1")
    with pytest.raises(error):
        flip(server)


def test_an_unknown_operation_is_an_error(server: FakeLakefs) -> None:
    with pytest.raises(ValueError, match=r"'put_object'; there are: commit, .*upload_object"):
        server.fail("put_object")


def test_a_stopped_server_refuses_and_a_started_one_remembers(
    main: lakefs.Branch, server: FakeLakefs, sdk: LakeFSClient
) -> None:
    main.object("a").upload(b"1")
    made = main.commit("one")
    url = server.url
    server.stop()
    with pytest.raises(urllib3.exceptions.MaxRetryError):
        sdk.config_api.get_config()
    server.start()
    assert server.url == url
    assert made.object("a").reader().read() == b"1"


def test_stopping_cuts_an_upload_in_progress(main: lakefs.Branch, server: FakeLakefs) -> None:
    with closing(_upload_begun(server)):
        wait_until(lambda: stored_files(server) == 1, 10, "the upload to begin")
        server.stop()
    server.start()
    assert list(main.objects()) == []
    assert stored_files(server) == 0


def test_a_server_runs_once(server: FakeLakefs) -> None:
    with pytest.raises(RuntimeError, match="runs already"):
        server.start()


def _swallow(call: Callable[[], object]) -> None:
    try:
        call()
    except (lakefs_sdk.ApiException, *LOST):
        pass


def _upload_begun(server: FakeLakefs) -> http.client.HTTPConnection:
    """Sends the head of an upload of a thousand bytes, and ten of them."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
    connection.putrequest("POST", "/api/v1/repositories/models/branches/main/objects?path=a")
    for name, value in {**_login(server), "Content-Length": "1000"}.items():
        connection.putheader(name, value)
    connection.endheaders(b"x" * 10)
    return connection


def _login(server: FakeLakefs) -> dict[str, str]:
    token = base64.b64encode(f"{server.access_key_id}:{server.secret_access_key}".encode()).decode()
    return {"Authorization": f"Basic {token}"}
