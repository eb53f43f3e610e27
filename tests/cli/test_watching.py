"""A watcher believes a logged round only for its quorum's signatures, whatever the signaling server says."""

import io
import struct
from contextlib import redirect_stdout
from types import SimpleNamespace

import msgspec
import pytest

from cli.errors import CommandError
from cli.watching import watch_run
from protocol.errors import ProtocolError
from protocol.identity import Identity
from protocol.signaling import (
    LogEntry,
    MemberSignature,
    RoundLogged,
    RoundOpened,
    RunChanged,
    RunStatus,
    compute_round_id,
    sign_result,
)
from protocol.tail import tail_length
from python_node.author import RunView, make_terms

RUN, MODEL = "ab" * 32, "cd" * 32
PEERS = sorted((Identity(bytes([number]) * 32) for number in range(1, 4)), key=lambda peer: peer.peer_id)


class FakeAuthor:
    """What `watch_run` needs of an author, with events as given."""

    def __init__(self, plan, events):
        self.session = SimpleNamespace(url="ws://nowhere:1")
        self._plan, self._events = plan, events
        self.terms = make_terms(plan, rounds=2, cohort_size=3)

    async def view(self, run):
        return RunView(status=status("waiting"), terms=self.terms, manifest=self._plan.manifest)

    async def watch(self, run):
        for event in self._events:
            yield event


def status(state, *, reached=0, reason=""):
    return RunStatus(
        run=RUN,
        plan="ef" * 32,
        name="small",
        author=PEERS[0].peer_id,
        state=state,
        reason=reason,
        rounds=2,
        round=reached,
        attempt=0,
        model_digest=MODEL,
        accepted=3,
        ready=3,
        opened_at=0.0,
    )


def entry(plan, *, number=1, signers=PEERS, **changes):
    """A logged round that its cohort signed."""
    terms = make_terms(plan, rounds=2, cohort_size=3)
    metrics = struct.pack(f"<{tail_length(plan.manifest, terms)}q", *[9] * tail_length(plan.manifest, terms))
    round_id = compute_round_id(RUN, number, 1)
    signatures = tuple(
        MemberSignature(
            index=PEERS.index(peer),
            signature=sign_result(peer, round_id=round_id, model_digest=MODEL, survivors=(0, 1, 2), metrics=metrics),
        )
        for peer in signers
    )
    made = LogEntry(
        run=RUN,
        round=number,
        attempt=1,
        round_id=round_id,
        cohort=tuple(peer.peer_id for peer in PEERS),
        survivors=(0, 1, 2),
        previous_digest="00" * 32,
        model_digest=MODEL,
        metrics=metrics,
        signatures=signatures,
        seconds=0.25,
        logged_at=1.0,
    )
    return msgspec.structs.replace(made, **changes)


async def watched(plan, *events, as_json=True):
    out = io.StringIO()
    with redirect_stdout(out):
        await watch_run(FakeAuthor(plan, events), RUN, as_json=as_json)
    return out.getvalue()


async def test_signed_rounds_are_shown(plan):
    opened = RoundOpened(run=RUN, round=1, attempt=1, cohort=tuple(peer.peer_id for peer in PEERS))
    events = (
        RunChanged(status=status("running")),
        opened,
        RoundLogged(entry=entry(plan)),
        RunChanged(status=status("finished", reached=2)),
    )
    lines = [msgspec.json.decode(line) for line in (await watched(plan, *events)).splitlines()]
    assert [line["event"] for line in lines] == ["run", "round_opened", "round", "run"]
    assert lines[2]["survivors"] == 3
    assert lines[2]["training"]["accuracy"] == 1.0
    shown = await watched(plan, *events, as_json=False)
    assert "round 1  survivors 3/3" in shown
    assert "finished, round 2 of 2" in shown


async def test_a_watcher_is_told_how_the_mean_update_is_applied(plan):
    author = FakeAuthor(plan, (RunChanged(status=status("finished", reached=2)),))
    author.terms = make_terms(plan, rounds=2, cohort_size=3, server_optimizer="fedyogi", server_tau=0.01)
    for as_json in (False, True):
        out = io.StringIO()
        with redirect_stdout(out):
            await watch_run(author, RUN, as_json=as_json)
        if as_json:
            told = msgspec.json.decode(out.getvalue())["server_optimizer"]
            expected = {"kind": "fedyogi", "learning_rate": 0.01, "beta1": 0.9, "beta2": 0.99, "tau": 0.01}
            assert told == expected
        else:
            assert "fedyogi at 0.01" in out.getvalue()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"signers": PEERS[:2]}, "2 peers signed round 1, expected 3 of 3"),
        ({"signers": [PEERS[0]] * 3}, "1 peers signed round 1"),
        ({"model_digest": "11" * 32}, "signature is not by"),
        ({"survivors": (0, 1)}, "signature is not by"),
        ({"metrics": bytes(48)}, "signature is not by"),
        ({"round_id": compute_round_id(RUN, 2, 1)}, "is not that of round 1"),
        ({"attempt": 2}, "is not that of round 1"),
        ({"round": 2}, "is not that of round 2"),
        ({"run": "99" * 32}, "no round 1"),
    ],
)
async def test_a_round_that_no_quorum_signed_ends_the_watch(plan, changes, complaint):
    with pytest.raises(ProtocolError, match=complaint):
        await watched(plan, RoundLogged(entry=entry(plan, **changes)), RunChanged(status=status("finished")))


@pytest.mark.parametrize(("state", "code"), [("failed", "run-failed"), ("stopped", "run-stopped")])
async def test_a_run_that_ended_badly_is_an_error(plan, state, code):
    with pytest.raises(CommandError, match="no peers left") as caught:
        await watched(plan, RunChanged(status=status(state, reached=1, reason="no peers left")))
    assert (caught.value.code, caught.value.exit_status) == (code, 5)


async def test_a_session_that_ends_before_the_run_is_an_error(plan):
    with pytest.raises(CommandError, match="ended after round 1 of 2") as caught:
        await watched(plan, RunChanged(status=status("running", reached=1)))
    assert (caught.value.code, caught.value.exit_status) == ("signaling-down", 4)
