"""What a server sends, or does not send, ends at the bounds."""

import asyncio
import http.server
import threading

import pytest

from src.core.errors import InvalidInputError, PayloadTooLargeError, QueueFullError
from src.core.settings_sections import MediaSettings
from src.media.fetching import Fetcher
from tests.unit.media.sites import Site, answer, closing, refusal

pytestmark = pytest.mark.anyio


async def test_a_length_past_the_bound_is_refused_before_the_body(site: Site) -> None:
    site.answers["/big"] = lambda handler: answer(handler, b"", Content_Length="40000000")
    error = await refusal(site.fetcher(), site.url("/big"))
    assert isinstance(error, PayloadTooLargeError)
    assert "media.max_image_mb" in error.message


async def test_a_body_that_tells_no_length_ends_at_the_bound(site: Site) -> None:
    sent = []

    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        answer(handler, b"", Content_Length="")
        try:
            for _ in range(2000):
                handler.wfile.write(bytes(100_000))
                sent.append(100_000)
        except OSError:
            pass

    site.answers["/endless"] = endless
    error = await refusal(site.fetcher(MediaSettings(max_image_mb=1)), site.url("/endless"))
    assert isinstance(error, PayloadTooLargeError)
    assert sum(sent) < 100_000_000


async def test_a_compressed_answer_is_refused_and_not_unpacked(site: Site) -> None:
    site.answers["/zipped"] = lambda handler: answer(handler, b"\x1f\x8b", Content_Encoding="gzip")
    assert "compressed" in (await refusal(site.fetcher(), site.url("/zipped"))).message


async def test_a_server_that_only_trickles_ends_with_the_time(site: Site) -> None:
    done = threading.Event()

    def trickle(handler: http.server.BaseHTTPRequestHandler) -> None:
        answer(handler, b"", Content_Length="1000")
        while not done.wait(0.05):
            try:
                handler.wfile.write(b"x")
            except OSError:
                return

    site.answers["/slow"] = trickle
    try:
        error = await refusal(site.fetcher(MediaSettings(fetch_timeout=0.5)), site.url("/slow"))
        assert "0.5 s (media.fetch_timeout)" in error.message
    finally:
        done.set()


async def test_an_answer_that_breaks_off_is_refused(site: Site) -> None:
    def break_off(handler: http.server.BaseHTTPRequestHandler) -> None:
        answer(handler, b"half", Content_Length="1000")
        handler.close_connection = True

    site.answers["/half"] = break_off
    assert "breaks off" in (await refusal(site.fetcher(), site.url("/half"))).message


async def test_nobody_listening_is_refused(site: Site) -> None:
    fetcher = Fetcher(MediaSettings(), ["127.0.0.1:9"])
    assert "cannot be reached" in (await refusal(fetcher, "http://127.0.0.1:9/")).message


async def test_cancelling_leaves_no_connection(site: Site) -> None:
    done = threading.Event()
    site.answers["/slow"] = lambda handler: (answer(handler, b"", Content_Length="10"), done.wait(20))[0]
    async with closing(site.fetcher()) as fetcher:
        task = asyncio.create_task(fetcher.fetch(site.url("/slow"), "image", "image"))
        while not site.asked:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        done.set()


async def test_no_more_are_fetched_at_a_time_than_may_be_until_one_is_closed(site: Site) -> None:
    async with closing(site.fetcher(MediaSettings(max_fetches=2, fetch_timeout=0.5))) as fetcher:
        held = [await fetcher.fetch(site.url("/picture"), "image", "image") for _ in range(2)]
        with pytest.raises(QueueFullError, match=r"media\.max_fetches"):
            await fetcher.fetch(site.url("/picture"), "image", "image")
        for content in held:
            content.close()
        for path in ("/missing-one", "/missing-two", "/missing-three"):
            site.answers[path] = lambda handler: answer(handler, b"", 404)
            with pytest.raises(InvalidInputError):
                await fetcher.fetch(site.url(path), "image", "image")
        (await fetcher.fetch(site.url("/picture"), "image", "image")).close()
