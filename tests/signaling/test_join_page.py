"""The page at /join: exactly the files that were built, nothing around them, and advice where there are none."""

import asyncio
import gzip
import hashlib
import http.client
import json

import pytest

from signaling import ConfigError, SignalingConfig, serve
from tests.signaling.world import QUICK, World

INDEX = b"<!doctype html><title>join</title>" * 40
SCRIPT = b"console.log('a script');\n" * 40
PART = bytes(range(256)) * 8


def build(folder, **changes):
    """A small page as `make js` leaves one."""
    folder.mkdir()
    listed = []
    for path, name, kind, encoding, data in (
        ("/join", "index.html", "text/html; charset=utf-8", "gzip", gzip.compress(INDEX)),
        ("/join/join.js", "join.js", "text/javascript; charset=utf-8", "gzip", gzip.compress(SCRIPT)),
        ("/join/runtime.0", "runtime.0", "application/octet-stream", "identity", PART),
    ):
        (folder / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        listed.append(
            {"path": path, "file": name, "type": kind, "encoding": encoding, "sha256": digest} | changes.get(name, {})
        )
    (folder / "files.json").write_text(json.dumps({"files": listed}))
    return folder


@pytest.fixture
async def world(tmp_path):
    config = SignalingConfig(folder=tmp_path / "signal", port=0, timing=QUICK, page=build(tmp_path / "page"))
    async with World(config) as world:
        yield world


async def ask(world, path, method="GET", **headers):
    """Status, headers and body of one request, with the path sent as it is."""

    def request():
        connection = http.client.HTTPConnection(world.url.removeprefix("ws://"), timeout=20)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    return await asyncio.to_thread(request)


async def test_the_page_and_its_files_are_served_compressed_and_plain(world):
    status, headers, body = await ask(world, "/join", Accept_Encoding="br, gzip")
    assert (status, headers["Content-Encoding"], gzip.decompress(body)) == (200, "gzip", INDEX)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    for accepted in ({}, {"Accept_Encoding": "gzip;q=0"}, {"Accept_Encoding": "br"}):
        status, headers, body = await ask(world, "/join/join.js?x=1", **accepted)
        assert (status, headers.get("Content-Encoding"), body) == (200, None, SCRIPT)
        assert headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert (await ask(world, "/join/runtime.0", Accept_Encoding="gzip"))[2] == PART


async def test_every_answer_forbids_other_origins_and_guessing(world):
    for path in ("/join", "/join/join.js", "/join/runtime.0", "/join/none", "/join/"):
        _, headers, _ = await ask(world, path)
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self'; ")
        assert "http" not in policy
        assert "unsafe-inline" not in policy
        assert "'unsafe-eval'" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"


async def test_what_a_browser_holds_is_not_sent_again(world):
    _, headers, _ = await ask(world, "/join", Accept_Encoding="gzip")
    status, again, body = await ask(world, "/join", Accept_Encoding="gzip", If_None_Match=headers["ETag"])
    assert (status, body, again["ETag"]) == (304, b"", headers["ETag"])
    assert headers["Cache-Control"] == "no-cache"
    assert (await ask(world, "/join", If_None_Match=headers["ETag"]))[0] == 200  # plain bytes are another answer
    assert (await ask(world, "/join", Accept_Encoding="gzip", If_None_Match='"other"'))[0] == 200


async def test_head_is_get_without_a_body_and_other_methods_are_refused(world):
    status, headers, body = await ask(world, "/join", "HEAD", Accept_Encoding="gzip")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == len(gzip.compress(INDEX))
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        status, headers, _ = await ask(world, "/join", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")


async def test_no_path_leads_out_of_the_listed_files(world):
    for path in (
        "/join/../../signaling.sqlite",
        "/join/..%2f..%2fidentity.key",
        "/join/%2e%2e/%2e%2e/identity.key",
        "/join/./join.js",
        "/join//join.js",
        "/join/JOIN.JS",
        "/join/files.json",
        "/join/index.html",
        "/join/join.js/",
        "/join/join.js%00.css",
        "/join\\join.js",
        "/joint",
        "/identity.key",
    ):
        status, _, body = await ask(world, path)
        assert status == 404, path
        assert SCRIPT not in body


async def test_a_slash_at_the_end_leads_to_the_page(world):
    status, headers, _ = await ask(world, "/join/")
    assert (status, headers["Location"]) == (308, "../join")


async def test_a_server_without_the_page_says_how_to_build_it_and_serves_peers(tmp_path):
    config = SignalingConfig(folder=tmp_path / "signal", port=0, timing=QUICK, page=tmp_path / "nothing")
    async with World(config) as world:
        status, headers, body = await ask(world, "/join")
        assert (status, headers["Content-Type"]) == (503, "text/html; charset=utf-8")
        assert b"make js" in body
        node = await world.node("node")
        assert await node.session.list_plans() is not None


async def test_the_server_tells_where_the_page_is(tmp_path):
    for page, expected in ((build(tmp_path / "page"), True), (tmp_path / "nothing", False)):
        config = SignalingConfig(folder=tmp_path / f"signal{expected}", port=0, timing=QUICK, page=page)
        async with await serve(config) as server:
            assert server.join_url == (server.url.replace("ws:", "http:") + "/join" if expected else None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"join.js": {"sha256": "0" * 64}}, "join.js has digest .* files.json says 000000000000"),
        ({"join.js": {"file": "gone.js"}}, "gone.js"),
        ({"join.js": {"encoding": "br"}}, "br"),
    ],
)
async def test_a_damaged_page_stops_the_server_from_starting(tmp_path, changes, message):
    config = SignalingConfig(folder=tmp_path / "signal", port=0, page=build(tmp_path / "page", **changes))
    with pytest.raises(ConfigError, match=message):
        await serve(config)


async def test_a_file_too_large_to_be_out_in_time_is_refused(tmp_path):
    page = build(tmp_path / "page")
    large = bytes((512 << 10) + 1)
    (page / "runtime.0").write_bytes(large)
    with pytest.raises(ConfigError, match="has 524289 bytes, expected 524288 at most"):
        await serve(SignalingConfig(folder=tmp_path / "signal", port=0, page=page))
