"""STUN and TURN servers for the page: credentials that expire, and a secret that is told to nobody."""

import base64
import hashlib
import hmac
import json
import time

import pytest
import structlog

from signaling import ConfigError, IceServers, SignalingConfig
from tests.signaling.test_join_page import ask, build
from tests.signaling.world import QUICK, World

SECRET = b"what turn.example knows"
STUN = "stun:stun.example:3478"
TURN = ("turn:turn.example:3478?transport=udp", "turns:[2001:db8::1]:5349")
PATH = "/join/ice-servers.json"


def config_with(tmp_path, **settings):
    tmp_path.mkdir(exist_ok=True)
    page = build(tmp_path / "page")
    return SignalingConfig(folder=tmp_path / "signal", port=0, timing=QUICK, page=page, **settings)


async def test_the_page_is_told_of_servers_with_a_credential_of_its_own(tmp_path):
    ice = IceServers(stun=(STUN,), turn=TURN, turn_secret=SECRET, turn_lifetime_s=3600)
    async with World(config_with(tmp_path, ice=ice)) as world:
        before = int(time.time())
        told = []
        for _ in range(2):
            status, headers, body = await ask(world, PATH)
            assert (status, headers["Content-Type"]) == (200, "application/json")
            assert headers["Cache-Control"] == "no-store"
            assert "ETag" not in headers
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert headers["Content-Security-Policy"].startswith("default-src 'self'; ")
            assert "Access-Control-Allow-Origin" not in headers
            told.append(json.loads(body))
        for answer in told:
            assert answer["lifetime_s"] == 3600
            stun, turn = answer["ice_servers"]
            assert stun == {"urls": [STUN]}
            assert turn["urls"] == list(TURN)
            until, _, name = turn["username"].partition(":")
            assert before + 3600 <= int(until) <= time.time() + 3600
            assert len(name) == 16
            digest = hmac.new(SECRET, turn["username"].encode(), hashlib.sha1).digest()
            assert base64.b64decode(turn["credential"]) == digest
        assert told[0]["ice_servers"][1]["username"] != told[1]["ice_servers"][1]["username"]
        status, headers, body = await ask(world, PATH, "HEAD")
        assert (status, body, headers["Cache-Control"]) == (200, b"", "no-store")
        assert (await ask(world, PATH, "POST"))[0] == 405


async def test_without_servers_the_page_is_told_that_there_are_none(tmp_path):
    async with World(config_with(tmp_path)) as world:
        assert json.loads((await ask(world, PATH))[2]) == {"ice_servers": [], "lifetime_s": None}
    async with World(config_with(tmp_path / "other", ice=IceServers(stun=(STUN,)))) as world:
        assert json.loads((await ask(world, PATH))[2]) == {"ice_servers": [{"urls": [STUN]}], "lifetime_s": None}


async def test_neither_secret_nor_credential_is_in_logs_settings_metrics_or_the_folder(tmp_path, capfd):
    ice = IceServers(turn=TURN, turn_secret=SECRET)
    config = config_with(tmp_path, ice=ice)
    with structlog.testing.capture_logs() as logs:
        async with World(config) as world:
            answer = json.loads((await ask(world, PATH))[2])
            metrics = (await ask(world, "/metrics"))[2].decode()
    (turn,) = answer["ice_servers"]
    kept = b"".join(path.read_bytes() for path in (tmp_path / "signal").rglob("*") if path.is_file())
    assert kept
    shown = "".join([repr(logs), metrics, repr(config), str(ice), *capfd.readouterr()])
    for hidden in (SECRET.decode(), turn["credential"], turn["username"]):
        assert hidden not in shown
        assert hidden.encode() not in kept


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stun": ("turn:h:1",)}, "'turn:h:1' is no STUN server, expected stun:HOST:PORT"),
        ({"stun": ("stun:h",)}, "is no STUN server"),
        ({"stun": ("stun:h:99999",)}, "is no STUN server"),
        ({"stun": ("stun:a b:1",)}, "is no STUN server"),
        ({"stun": ("stun:h:1?transport=udp",)}, "is no STUN server"),
        ({"stun": tuple(f"stun:h{i}:1" for i in range(5))}, "5 STUN servers, expected 4 at most"),
        ({"turn": ("stun:h:1",), "turn_secret": SECRET}, "'stun:h:1' is no TURN server"),
        ({"turn": ("turn:h:1?transport=sctp",), "turn_secret": SECRET}, "is no TURN server"),
        ({"turn": ("turn:h:1",)}, "the TURN servers' secret has 0 bytes, expected 16 or more"),
        ({"turn": ("turn:h:1",), "turn_secret": b"short"}, "has 5 bytes"),
        ({"turn_lifetime_s": 599}, "TURN credentials for 599 s, expected 600 to 604800 s"),
        ({"turn_lifetime_s": 604_801}, "expected 600 to 604800 s"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError) as refused:
        IceServers(**settings)
    assert message in str(refused.value)
