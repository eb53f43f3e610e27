"""A signaling server that lies about offers and rounds: the node refuses, says so and goes on."""

import msgspec
import pytest

from protocol.envelope import RUN_TYPE, seal_envelope
from protocol.identity import Identity
from protocol.signaling import LogEntry, Member, Offer, RoundLogged, RoundStart, RunChanged, compute_round_id
from protocol.terms import encode_terms
from python_node import early_messages
from python_node import node as node_module
from python_node import participation as participation_module
from tests.e2e.test_bad_input import as_envelope
from tests.e2e.world import DEADLINES, finished, terms

STRANGERS = sorted(Identity(bytes([number]) * 32).peer_id for number in range(1, 4))


async def joined(world, plan, **changes):
    """One node in a run that waits for more."""
    host = await world.node("node-0")
    author = await world.author()
    run = (await world.publish(author, plan, **changes)).run
    await host.diary.until("ready", run=run)
    return host, run, author


def start(host, run, *, members=None, number=1, attempt=1, model=None):
    named = members if members is not None else sorted([host.peer, *STRANGERS[:2]])
    return RoundStart(
        run=run,
        round=number,
        attempt=attempt,
        round_id=compute_round_id(run, number, attempt),
        model_digest=model or host.model(run)[1],
        members=tuple(Member(peer=peer) for peer in named),
    )


def logged(host, run, *, number):
    named = start(host, run, number=number)
    return RoundLogged(
        entry=LogEntry(
            run=run,
            round=number,
            attempt=1,
            round_id=named.round_id,
            cohort=tuple(member.peer for member in named.members),
            survivors=(0, 1, 2),
            previous_digest="11" * 32,
            model_digest="22" * 32,
            metrics=b"",
            signatures=(),
            seconds=0.1,
            logged_at=0.0,
        )
    )


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ({"members": STRANGERS}, "without this peer"),
        ({"attempt": 7}, "attempt 7 at round 1, terms say 6 at most"),
        ({"attempt": 1 << 20}, "terms say 6 at most"),
        ({"number": 2}, "signaling names round 2"),
        ({"model": "ab" * 32}, "this node holds round 0"),
    ],
)
async def test_a_round_that_is_not_this_nodes_is_refused_and_the_next_one_is_served(world, plan, lie, words):
    host, run, author = await joined(world, plan)

    host.node._handle(start(host, run, **lie))
    refused = await host.diary.until("round_failed", run=run)
    assert words in refused.fields["reason"]
    assert host.state.entries(start(host, run, **lie).round_id) == []

    # the run is still looked after: two more nodes, and it goes through
    await world.nodes(2, first=1)
    assert (await finished(author, run)).state == "finished"


async def test_a_cohort_that_names_this_peer_twice_is_refused(world, plan):
    host, run, _ = await joined(world, plan)

    host.node._handle(start(host, run, members=sorted([host.peer, host.peer, STRANGERS[0]])))

    assert "names a peer twice" in (await host.diary.until("round_failed", run=run)).fields["reason"]


async def test_signaling_cannot_have_an_earlier_round_trained_again(world, plan):
    """Each time would give one more sum over the same data and model, by cohorts of its choice."""
    hosts = await world.nodes(3)
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=3, rounds=3)).run
    assert (await finished(author, run)).state == "finished"
    host = hosts[0]
    await host.diary.until("round_completed", round=3)
    membership = host.node._runs[run].membership

    held = host.state.load_checkpoint(run, 1)
    assert held is not None
    membership.round, membership.digest = held[0], held[1]  # as after a fetch of what signaling calls current
    host.node._handle(start(host, run, number=2, attempt=2, model=held[1]))

    refused = await host.diary.until("round_failed", run=run, round=2)
    assert "goes back to round 2, this node finished 3" in refused.fields["reason"]


async def test_an_attempt_that_the_others_left_behind_is_not_waited_for(world, plan):
    """As after a sleep: without the word of the log it would take the stages' deadlines, and nobody else is left."""
    deadlines = msgspec.structs.replace(DEADLINES, link_ms=600_000)
    host, run, _ = await joined(world, plan, deadlines=deadlines)
    host.node._handle(start(host, run))
    await host.diary.until("round_started", run=run)

    host.node._handle(logged(host, run, number=1))  # this very round may still end here
    assert host.node._runs[run].membership.at_work
    host.node._handle(logged(host, run, number=2))

    assert "a later round was logged" in (await host.diary.until("round_failed", run=run)).fields["reason"]


async def test_rounds_named_while_one_is_under_way_take_bounded_memory(world, plan):
    host, run, _ = await joined(world, plan)
    for attempt in range(1, 200):
        host.node._handle(start(host, run, attempt=attempt))
    assert host.node._runs[run]._starts.qsize() <= participation_module._WAITING_STARTS


async def test_offers_by_the_thousand_are_not_looked_at_together(world, plan):
    host = await world.node("node-0")
    signed = plan.sign(world.author_identity)
    tasks = len(host.node._tasks)
    for number in range(1000):
        asked = msgspec.structs.replace(terms(plan), plan=signed.digest, nonce=f"{number:064x}")
        sealed = as_envelope(seal_envelope(world.author_identity, RUN_TYPE, encode_terms(asked)))
        host.node._handle(
            Offer(
                run=f"{number:064x}",
                envelope=sealed,
                plan_envelope=as_envelope(signed.envelope),
                round=0,
                model_digest="00" * 32,
            )
        )
    assert len(host.node._tasks) - tasks <= node_module._MOST_OFFERS


async def test_a_node_accepts_a_bounded_number_of_runs(world, plan, monkeypatch):
    monkeypatch.setattr(node_module, "_MOST_RUNS", 1)
    host, first, author = await joined(world, plan)
    second = (await world.publish(author, plan)).run

    refused = await host.diary.until("offer_refused", run=second)

    assert "takes part in 1 runs already" in refused.fields["reason"]
    assert list(host.node._runs) == [first]


async def test_runs_that_are_over_are_let_go(world, plan, monkeypatch):
    monkeypatch.setattr(node_module, "_KEPT_ENDED", 0)
    host, first, author = await joined(world, plan)
    status = (await author.session.get_run(first)).status
    for _ in range(2):  # as after a reconnect
        host.node._handle(RunChanged(status=msgspec.structs.replace(status, state="stopped")))
    assert len(host.diary.of("run_ended")) == 1

    second = (await world.publish(author, plan)).run
    await host.diary.until("accepted", run=second)

    assert first not in host.node._runs
    assert first not in host.node._serving


async def test_a_peers_flood_of_early_messages_takes_nobody_elses_place(world, plan):
    host, run, _ = await joined(world, plan)
    tag = start(host, run).round_id
    advert = bytes(4) + bytes.fromhex(tag)[:8] + bytes(20)
    host.node._on_round_message(STRANGERS[0], advert, False)
    for number in range(100_000):
        host.node._on_round_message(STRANGERS[1], bytes(4) + number.to_bytes(8, "little") + bytes(20), False)
    kept = host.node._early
    assert kept.count(STRANGERS[1]) <= early_messages._MESSAGES
    assert kept.take(bytes.fromhex(tag)[:8]) == [(STRANGERS[0], advert)]
