"""Text of options: what is meant is understood, and anything else is one usage error."""

import pytest
from aiortc import RTCIceServer
from aiortc.rtcicetransport import connection_kwargs
from hypothesis import example, given
from hypothesis import strategies as st

from cli.errors import USAGE, CommandError
from cli.model_inputs import parse_fields
from cli.options import ice_servers
from cli.publish_command import parse_deadlines
from protocol.terms import Deadlines
from signaling import IceServers


def outcome(parse):
    """What a parser gives, or None where it refuses as it should; any other error fails the test."""
    try:
        return parse()
    except CommandError as refused:
        if refused.exit_status != USAGE:
            raise
        return None


def addresses(**options):
    given_options = {"stun": None, "turn": None, "username": "me", "credential": "secret"} | options
    return [server.urls[0] for server in ice_servers(**given_options)]


@pytest.mark.parametrize(
    ("word", "url"),
    [
        ("stun.example:3478", "stun:stun.example:3478"),
        ("stun:stun.example:3478", "stun:stun.example:3478"),
        ("192.0.2.1:3478", "stun:192.0.2.1:3478"),
    ],
)
def test_stun_servers_may_be_given_with_or_without_their_scheme(word, url):
    assert addresses(stun=[word]) == [url]


def test_turn_servers_keep_their_transport_and_hide_their_credential():
    (server,) = ice_servers(None, ["turn.example:3478?transport=tcp"], "me", "secret")
    assert server.urls == ("turn:turn.example:3478?transport=tcp",)
    assert (server.username, server.credential) == ("me", "secret")
    assert "secret" not in repr(server)


@pytest.mark.parametrize(
    ("given_options", "said"),
    [
        ({"stun": ["a.example:1", "b.example:2"]}, "2 STUN servers: a Python node uses one"),
        ({"turn": ["a.example:1", "turns:b.example:2"]}, "2 TURN servers: a Python node uses one"),
        ({"stun": ["stuns:stun.example:5349"]}, "'stuns:stun.example:5349': expected stun:HOST:PORT"),
        ({"stun": ["stun.example:3478?transport=tcp"]}, "a STUN server has no transport"),
        ({"turn": ["turns:a.example:5349?transport=udp"]}, "over TCP alone, expected turns:HOST:PORT"),
        ({"turn": ["a.example:3478?transport=tls"]}, "turn:HOST:PORT[?transport=tcp] or turns:HOST:PORT"),
        ({"turn": ["[::1]:3478"]}, "HOST a name or an IPv4 address"),
        ({"turn": ["a.example:65536"]}, "'turn:a.example:65536': expected"),
    ],
)
def test_servers_that_a_node_would_leave_out_without_a_word_are_refused(given_options, said):
    with pytest.raises(CommandError) as refused:
        addresses(**given_options)
    assert refused.value.exit_status == USAGE
    assert said in str(refused.value)


@pytest.mark.parametrize("url", ["turn:a.example:3478", "turn:a.example:3478?transport=tcp", "turns:a.example:443"])
async def test_servers_that_a_node_uses_reach_its_library(url):
    (server,) = ice_servers(None, [url], "me", "secret")
    parsed = connection_kwargs([RTCIceServer(urls=list(server.urls), username="me", credential="secret")])
    assert parsed["turn_server"] == ("a.example", int(url.partition("?")[0].rpartition(":")[2]))
    assert parsed["turn_ssl"] == url.startswith("turns:")
    assert parsed["turn_transport"] == ("udp" if url == "turn:a.example:3478" else "tcp")


@given(st.text())
@example("stun:")
@example("stun:3478")
@example("turn:host:1")
@example(":1")
def test_an_address_is_understood_or_refused(word):
    made = outcome(lambda: addresses(stun=[word]))
    if made is not None:
        assert made[0].endswith(word.removeprefix("stun:").removeprefix("stuns:"))


@given(st.text())
@example("train=٣")
@example("train=1e3")
@example("train=nan")
def test_a_deadline_is_understood_or_refused(word):
    made = outcome(lambda: parse_deadlines([word]))
    if made is not None:
        stage, _, seconds = word.partition("=")
        assert getattr(made, f"{stage}_ms") == round(1000 * float(seconds))


def test_deadlines_are_seconds_and_others_stay():
    made = parse_deadlines(["train=120", "link=2.5"])
    assert (made.train_ms, made.link_ms, made.sum_ms) == (120_000, 2_500, Deadlines().sum_ms)


@given(st.text())
def test_columns_are_understood_or_refused(word):
    made = outcome(lambda: parse_fields([word]))
    if made is not None:
        ((name, columns),) = made.items()
        assert f"{name}={','.join(columns)}" == word


def test_the_page_is_told_of_servers_with_the_secret_of_a_file(peerplan, monkeypatch, tmp_path):
    configs = []
    monkeypatch.setattr("cli.signal_command.run", lambda config, **_: configs.append(config))
    secret = tmp_path / "turn.secret"
    secret.touch(0o600)
    secret.write_text("sixteen bytes and more\n", encoding="ascii")
    servers = ("--stun", "stun.example:3478", "--turn", "turn.example:3478", "--turn", "turns:turn.example:443")
    shown = peerplan("signal", *servers, "--turn-secret", secret, "--turn-lifetime", 3600)
    assert shown.exit_code == 0
    assert configs[0].ice == IceServers(
        stun=("stun:stun.example:3478",),
        turn=("turn:turn.example:3478", "turns:turn.example:443"),
        turn_secret=b"sixteen bytes and more",
        turn_lifetime_s=3600,
    )
    assert "sixteen" not in repr(configs[0]) + shown.output
