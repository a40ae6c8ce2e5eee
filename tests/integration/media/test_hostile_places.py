"""Paths and URLs of strangers over HTTP: only what lies below a media root, and what is public, is read."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import PNG, Hostile, refused, undecodable
from tests.hostile_service import CHANGING, FAR
from tests.unit.media.sites import answer


@pytest.fixture(scope="module")
def tree(hostile: Hostile) -> Path:
    """The media root, with a picture, and ways out of it."""
    root = hostile.root
    (root / "inner").mkdir()
    (root / "inner/a.png").write_bytes(PNG)
    (root.parent / "secret.png").write_bytes(PNG)
    (root.parent / "root-beside").mkdir()
    (root.parent / "root-beside/b.png").write_bytes(PNG)
    (root / "link.png").symlink_to(root.parent / "secret.png")
    (root / "folder").symlink_to(root.parent)
    (root / "round").symlink_to(root / "round")
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "environ.png").symlink_to("/proc/self/environ")
    (root / "self").symlink_to("/proc/self/root")
    os.mkfifo(root / "pipe.png")
    return root


@pytest.fixture(autouse=True)
def unharmed(hostile: Hostile) -> Iterator[None]:
    """Looks, after each test, whether the model still answers."""
    hostile.site.asked.clear()
    yield
    hostile.works()


@pytest.mark.parametrize("path", ["inner/a.png", "{root}/inner/a.png"])
def test_what_lies_below_a_media_root_is_read(hostile: Hostile, tree: Path, path: str) -> None:
    assert hostile.ask({"image": path.format(root=tree)}).status_code == 200
    assert hostile.ask({"image": {"path": path.format(root=tree)}}).status_code == 200


@pytest.mark.parametrize("wrap", [str, lambda path: {"path": path}], ids=["text", "object"])
@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/self/fd/0",
        "/proc/self/root/etc/passwd",
        "/dev/zero",
        "/dev/stdin",
        "../secret.png",
        "inner/../../secret.png",
        "inner/../inner/a.png",
        "..",
        "./../{root.name}/inner/a.png",
        "{root}/../secret.png",
        "{root}/../root-beside/b.png",
        "{outside}/secret.png",
        "{outside}/root-beside/b.png",
        "{outside}/missing.png",
        "link.png",
        "folder/secret.png",
        "round",
        "zero.png",
        "environ.png",
        "self/etc/passwd",
        "pipe.png",
        "inner",
        "missing.png",
        "~/.ssh/id_rsa",
        "inner/a.png\0.txt",
        "file:///etc/passwd",
        "file:/etc/passwd",
        "FILE://localhost/etc/passwd",
        "file:inner/a.png",
        "\\\\server\\share\\a.png",
        "C:\\Windows\\win.ini",
        "x" * 900,
    ],
)
def test_nothing_else_is(hostile: Hostile, tree: Path, path: str, wrap: object) -> None:
    value = wrap(path.format(root=tree, outside=tree.parent))  # type: ignore[operator]
    body = refused(hostile.ask({"image": value}), 400)
    assert "`data.image`" in body["error"]
    assert body["details"]["field"] == "data.image"
    assert "root:" not in body["error"]


def test_whether_a_file_outside_exists_is_not_told(hostile: Hostile, tree: Path) -> None:
    told = [
        refused(hostile.ask({"image": str(tree.parent / name)}), 400)["error"].replace(name, "")
        for name in ("secret.png", "absent.png")
    ]
    assert told[0] == told[1]


# ---------------------------------------------------------------------- URLs

NOT_PUBLIC = [
    "http://127.0.0.1/",
    "http://127.0.0.1.:80/",
    "http://127.1/",
    "http://0/",
    "http://0.0.0.0:8080/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0X7F.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://127.0.0.0x1/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://127｡0｡0｡1/",
    "http://１２７.0.0.1/",
    "http://%31%32%37.0.0.1/",
    "http://localhost/",
    "http://localhost./",
    "http://LOCALHOST:8080/",
    "http://[::1]/",
    "http://[::]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1%25eth0]/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://10.0.0.1/",
    "http://172.31.255.255/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://0xA9FEA9FE/",
    "http://[::ffff:169.254.169.254]/",
    "http://metadata.test/computeMetadata/v1/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://255.255.255.255/",
    "http://224.0.0.1/",
    "https://other.test/",
    "http://other.test./",
    "http://mixed.test/",
    "http://inner6.test/",
    "http://nat64.test/",
    "http://münchen.test/",
    "http://nowhere.test/",
]
MISLEADING = [
    "http://public.test@127.0.0.1/",
    "http://public.test:80@127.0.0.1:80/",
    "http://user:pass@public.test/",
    "http://127.0.0.1\\@public.test/",
    "http://127.0.0.1#@public.test/",
    "http://public.test%00.127.0.0.1/",
    "http://public.test\t@127.0.0.1/",
    "http://public.test\r\nHost: 127.0.0.1/",
    "http:127.0.0.1/",
    "http:///127.0.0.1/",
    "http://",
    "http://[::1",
    "http://public.test:22/",
    "http://public.test:6379/",
    "http://public.test:0/",
    "http://public.test:-1/",
    "https://public.test:99999/",
    "ftp://public.test/a.png",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "dict://127.0.0.1:11211/stats",
    "jar:http://public.test!/a",
    "//127.0.0.1/a.png",
    "unix:///var/run/docker.sock",
]


@pytest.mark.parametrize("url", [*NOT_PUBLIC, *MISLEADING])
def test_a_url_that_leads_inside_is_refused_however_it_is_spelled(hostile: Hostile, url: str) -> None:
    body = refused(hostile.ask({"image": url}), 400)
    assert "`data.image`" in body["error"]
    assert not {"127.0.0.1", "169.254.169.254", "10.0.0.1"} & set(body["error"].split())
    assert hostile.site.asked == []


def test_what_is_public_is_fetched(hostile: Hostile) -> None:
    for url in ("http://public.test/a.png", "http://PUBLIC.test.:8080/a", "HTTP://public.test?x#y"):
        (found,) = hostile.ask({"image": url}).json()["result"]["shapes"]["image"]
        assert found["pixels"] == [*FAR, 3]


def test_a_name_that_changes_its_mind_changes_nothing(hostile: Hostile) -> None:
    url = f"http://{CHANGING}/a.png"
    (found,) = hostile.ask({"image": url}).json()["result"]["shapes"]["image"]
    assert found["pixels"] == [*FAR, 3]  # asked once, and gone where that led
    assert "public address" in refused(hostile.ask({"image": url}), 400)["error"]
    assert hostile.site.asked == []


def test_an_exempted_host_and_port_is_fetched_and_no_other(hostile: Hostile) -> None:
    site = hostile.site
    (found,) = hostile.ask({"image": site.url("/a.png")}).json()["result"]["shapes"]["image"]
    assert found["type"] == "image/png"
    assert site.asked == [(f"files.test:{site.port}", "/a.png")]
    for host in ("127.0.0.1", "localhost", "other.test", "files.test.", "[::ffff:127.0.0.1]", "xfiles.test"):
        assert "AIML_FETCH_ALLOW" in refused(hostile.ask({"image": site.url("/a.png", host)}), 400)["error"]
    assert "public address" in refused(hostile.ask({"image": "http://files.test/a.png"}), 400)["error"]
    assert len(site.asked) == 1


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/b.png",
        "http://localhost/b.png",
        "//other.test:{port}/b.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://2130706433/",
        "http://mixed.test/",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "gopher://127.0.0.1:6379/_x",
        "http://user@public.test/",
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_judged_like_a_url_of_its_own(hostile: Hostile, target: str, status: int) -> None:
    site = hostile.site
    location = target.format(port=site.port)
    site.answers["/away"] = lambda handler: answer(handler, b"", status, Location=location)
    refused(hostile.ask({"image": site.url("/away")}), 400)
    assert site.asked == [(f"files.test:{site.port}", "/away")]


def test_a_redirect_to_what_is_public_is_followed(hostile: Hostile) -> None:
    site = hostile.site
    site.answers["/away"] = lambda handler: answer(handler, b"", 302, Location="http://public.test/a.png")
    (found,) = hostile.ask({"image": site.url("/away")}).json()["result"]["shapes"]["image"]
    assert found["pixels"] == [*FAR, 3]


def test_a_content_type_of_another_kind_is_refused_and_a_fitting_one_is_not_believed(hostile: Hostile) -> None:
    site = hostile.site
    site.answers["/page"] = lambda handler: answer(handler, PNG, Content_Type="text/html")
    assert "answers with text/html" in refused(hostile.ask({"image": site.url("/page")}), 400)["error"]
    site.answers["/posing"] = lambda handler: answer(handler, b"<html><script>", Content_Type="image/png")
    assert undecodable(hostile.ask({"image": site.url("/posing")}), "image")["details"]["detected"] == "HTML"
    site.answers["/empty"] = lambda handler: answer(handler, b"")
    assert undecodable(hostile.ask({"image": site.url("/empty")}), "image")["details"]["detected"] == "empty"


def test_a_download_past_the_bound_is_refused_by_its_length_and_without_one(hostile: Hostile) -> None:
    site = hostile.site
    site.answers["/told"] = lambda handler: answer(handler, b"", Content_Length="3000000")
    site.answers["/untold"] = lambda handler: answer(handler, bytes(3_000_000), Content_Length="")
    for path in ("/told", "/untold"):
        body = refused(hostile.ask({"image": site.url(path)}), 413)
        assert body["details"]["setting"] == "media.max_image_mb"
