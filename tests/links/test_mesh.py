import asyncio
import base64
import json
import os
import sys
from pathlib import Path

import msgspec
import pytest

import python_node.mesh.link as link_module
from protocol.errors import LimitExceededError, LinkError
from protocol.identity import Identity
from protocol.link import (
    FrameEncoder,
    LinkIdentity,
    MessageKind,
    OutgoingMessage,
    open_negotiation,
    seal_negotiation,
)
from python_node.mesh import MeshConfig

ROOT = Path(__file__).parents[2]


async def linked_pair(network, **options):
    low, high = network.pair(**options)
    results = await network.connect_all()
    assert [len(r.linked) for r in results] == [1, 1], [r.failed for r in results]
    return low, high


async def test_two_meshes_exchange_messages_of_each_kind(network):
    low, high = await linked_pair(network)
    big = os.urandom(700_000)
    network.meshes[high].set_bulk_limit(1 << 20)
    network.meshes[low].send(high, MessageKind.CONTROL, b"vote")
    network.meshes[low].send(high, MessageKind.BULK, big)
    network.meshes[low].send(high, MessageKind.MODEL, big)
    await network.meshes[low].drain(high)
    await network.until(lambda: len(network.messages) == 3)
    assert sorted(network.messages, key=lambda m: m[2]) == [
        (high, low, MessageKind.CONTROL, b"vote"),
        (high, low, MessageKind.BULK, big),
        (high, low, MessageKind.MODEL, big),
    ]


async def test_five_meshes_link_and_keep_their_links(network):
    everyone = [network.add(number) for number in range(1, 6)]
    results = await network.connect_all()
    assert all(len(r.linked) == 4 for r in results), [r.failed for r in results]
    links = {(a, b): network.link(a, b) for a in everyone for b in everyone if a != b}
    signals = len(network.signals)
    again = await network.connect_all()
    assert all(len(r.linked) == 4 for r in again)
    assert len(network.signals) == signals
    assert all(network.link(a, b) is link for (a, b), link in links.items())


async def test_fingerprints_and_counters_agree_on_both_sides(network):
    low, high = await linked_pair(network)
    a, b = network.meshes[low], network.meshes[high]
    assert a.remote_fingerprint(high) == b.fingerprint
    assert b.remote_fingerprint(low) == a.fingerprint
    a.send(high, MessageKind.CONTROL, bytes(200))
    await network.until(lambda: network.messages)
    assert a.total == a.counters(high)
    hello = link_module.seal_hello(network.identities[low], network.link(low, high).view)
    assert b.counters(low).bytes_received >= 12 + len(hello) + 12 + 200


async def test_one_side_alone_can_ask_for_a_link(network):
    low, high = network.pair(config=MeshConfig(offer_grace_s=0.01))
    result = await network.meshes[high].connect([low], timeout_s=60)
    assert result.linked == {low}
    await network.until(lambda: network.meshes[low].linked == {high})


async def test_offers_that_cross_end_in_one_link(network):
    low, high = network.pair(config=MeshConfig(offer_grace_s=0.0))
    held = []
    both_offered = asyncio.Event()

    def hold(me, to, kind, payload):
        if both_offered.is_set():
            return payload
        held.append((me, to, kind, payload))
        if len(held) == 2:
            both_offered.set()
            for sender, receiver, kind_, payload_ in held:
                network.meshes[receiver].receive_signal(sender, kind_, payload_)
        return None

    network.tamper = hold
    results = await network.connect_all()
    assert {kind for _, _, kind, _ in held} == {"offer"}
    assert [len(r.linked) for r in results] == [1, 1]
    assert len([x for x in network.links if x[2]]) == 2
    network.meshes[low].send(high, MessageKind.CONTROL, b"one link")
    await network.until(lambda: network.messages)


async def test_votes_overtake_bulk(network):
    low, high = await linked_pair(network)
    network.meshes[high].set_bulk_limit(8 << 20)
    network.meshes[low].send(high, MessageKind.BULK, bytes(8 << 20))
    network.meshes[low].send(high, MessageKind.CONTROL, b"vote")
    await network.until(lambda: len(network.messages) == 2)
    assert [m[2] for m in network.messages] == [MessageKind.CONTROL, MessageKind.BULK]


async def test_a_fingerprint_swapped_on_the_way_makes_no_link(network):
    low, high = network.pair(config=MeshConfig(link_timeout_s=0.5, reconnect_for_s=0.4))
    swapped = Identity(bytes([9]) * 32).peer_id

    def swap(me, to, kind, payload):
        document = json.loads(payload)
        inner = json.loads(base64.b64decode(document["document"]))
        inner["body"] = inner["body"].replace(inner["fingerprint"][:2].upper() + ":", swapped[:2].upper() + ":")
        document["document"] = base64.b64encode(json.dumps(inner).encode()).decode()
        return json.dumps(document).encode()

    network.tamper = swap
    result = await network.meshes[low].connect([high], timeout_s=3)
    assert not result.linked
    assert low[:8] in str(result.failed[high])
    assert high[:8] in str(result.failed[high])
    assert network.refused
    assert all("signature is not by" in str(e) for e in network.refused)


async def test_a_replayed_offer_is_refused_and_harms_no_link(network):
    low, high = await linked_pair(network)
    link = network.link(high, low)
    offer = next(s for s in network.signals if s[2] == "offer")
    with pytest.raises(LinkError, match="replayed"):
        network.meshes[offer[1]].receive_signal(offer[0], "offer", offer[3])
    assert network.link(high, low) is link


async def test_an_old_offer_replayed_to_a_restarted_node_ends_in_no_link(network):
    low, high = await linked_pair(network)
    offer = next(s for s in network.signals if s[2] == "offer" and s[1] == high)
    await network.meshes[high].close()
    await network.until(lambda: not network.meshes[low].linked)
    network.tamper = lambda *_: None
    assert network.add(2, config=MeshConfig(link_timeout_s=0.3)) in (low, high)
    network.add(1, config=MeshConfig(link_timeout_s=0.3))
    network.links.clear()
    mesh = network.meshes[high]
    mesh.receive_signal(low, "offer", offer[3])
    peer = mesh._peers[low]
    await asyncio.wait_for(wait_for_settled(peer), 60)
    assert not mesh.linked
    assert "not made within" in str(peer.error)
    assert not network.links


async def wait_for_settled(peer):
    while peer._attempt is None:
        await peer._changed.wait()
    await asyncio.shield(peer._attempt.settled)


async def test_an_answer_to_nobody_is_refused(network):
    await linked_pair(network)
    answer = next(s for s in network.signals if s[2] == "answer")
    third = network.add(3)
    with pytest.raises(LinkError):
        network.meshes[third].receive_signal(answer[0], "answer", answer[3])


@pytest.mark.parametrize("field", ["local_fingerprint", "remote_fingerprint", "remote_nonce"])
async def test_a_wrong_hello_makes_no_link(network, monkeypatch, field):
    low, high = network.pair(config=MeshConfig(link_timeout_s=5, reconnect_for_s=0.2))
    honest = link_module.seal_hello

    def lie(identity, view):
        if identity.peer_id == low:
            size = len(getattr(view, field))
            view = LinkIdentity(**{**view.__dict__, field: "ee" * (size // 2)})
        return honest(identity, view)

    monkeypatch.setattr(link_module, "seal_hello", lie)
    await network.meshes[low].connect([high], timeout_s=8)
    await network.until(lambda: any(x[0] == low and not x[2] for x in network.links))
    reason = next(x[3] for x in network.links if x[0] == low and not x[2])
    assert "HELLO" in reason
    assert low[:8] in reason
    assert high[:8] in reason
    assert not [x for x in network.links if x[0] == high]


HOSTILE = {
    "an unknown kind": (bytes([0x17, 3, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]) + b"abc", "kind"),
    "an announced total above the limit": (bytes([0x13, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 255]) + bytes(1012), "limit 0"),
    "a reserved bit": (bytes([0x12, 3, 1, 0, 1, 0, 0, 0, 3, 0, 0, 0]) + b"abc", "reserved"),
    "a second HELLO": (bytes([0x11, 3, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]) + b"abc", "second HELLO"),
    "a bad ping": (bytes([0x15, 3, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]) + b"abc", "ping"),
    "a bad goodbye": (bytes([0x16, 3, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]) + b"\xff", "BYE"),
    "an oversized frame": (bytes(65537), "65537"),
}


@pytest.mark.parametrize("attack", HOSTILE)
async def test_a_broken_rule_ends_the_link_with_its_reason(network, attack):
    frame, says = HOSTILE[attack]
    low, high = await linked_pair(network)
    network.link(low, high)._rtc.send(frame)
    await network.until(lambda: any(x[0] == high and not x[2] for x in network.links))
    reason = next(x[3] for x in network.links if x[0] == high and not x[2])
    assert says in reason
    assert low[:8] in reason
    assert not network.messages
    assert not network.meshes[high].linked


async def test_a_peer_that_closes_amid_a_message_delivers_nothing(network):
    low, high = await linked_pair(network, config=MeshConfig(reconnect_for_s=0.1))
    network.meshes[high].set_bulk_limit(1 << 20)
    link = network.link(low, high)
    frame = link._outbox._encoder.next_frame(OutgoingMessage(MessageKind.BULK, bytes(200_000)))
    link._rtc.send(frame)
    network.meshes[low].send(high, MessageKind.CONTROL, b"the first frame is there")
    await network.until(lambda: network.messages)
    assert network.link(high, low)._decoder.unfinished == 1
    await network.meshes[low].close()
    await network.until(lambda: not network.meshes[high].linked)
    assert [m[3] for m in network.messages] == [b"the first frame is there"]


async def test_a_killed_process_is_noticed_and_its_successor_is_linked(network):
    me = network.add(1)
    other = Identity(bytes([7]) * 32).peer_id
    pumps = []

    async def start():
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("peer_process.py")),
            "7",
            me,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

        async def pump():
            while line := await process.stdout.readline():
                kind, payload = json.loads(line)
                network.meshes[me].receive_signal(other, kind, bytes.fromhex(payload))

        pumps.append(asyncio.create_task(pump()))
        return process

    process = await start()

    class Far:
        def receive_signal(self, _sender, kind, payload):
            if process.returncode is None:
                process.stdin.write((json.dumps([kind, payload.hex()]) + "\n").encode())

        async def close(self):
            pass

    network.meshes[other] = Far()
    mesh = network.meshes[me]
    assert (await mesh.connect([other], timeout_s=20)).linked == {other}
    mesh.send(other, MessageKind.CONTROL, b"echo")
    await network.until(lambda: network.messages)
    process.kill()
    mesh.signaling_lost(other)
    await network.until(lambda: not mesh.linked)
    with pytest.raises(LinkError, match=r"silent.*signaling lost it too"):
        mesh.send(other, MessageKind.CONTROL, b"gone")
    await process.wait()
    process = await start()
    await network.until(lambda: mesh.linked == {other}, timeout_s=20)
    process.stdin.close()
    await network.until(lambda: not mesh.linked)
    await process.wait()
    await asyncio.gather(*pumps)


async def test_a_lost_transport_is_made_again_while_wanted(network):
    low, high = await linked_pair(network)
    old = network.link(low, high)
    await old._rtc.close()
    await network.until(lambda: sum(x[2] for x in network.links) == 4)
    assert network.link(low, high) is not old
    network.meshes[low].send(high, MessageKind.CONTROL, b"again")
    await network.until(lambda: network.messages)


async def test_a_goodbye_is_final_until_the_next_connect(network):
    low, high = await linked_pair(network, config=MeshConfig(close_timeout_s=600))
    await network.meshes[low].release([high])  # the other side answers: nothing waits for the timeout
    await network.until(lambda: not network.meshes[high].linked)
    assert "'no longer needed'" in next(x[3] for x in network.links if x[0] == high and not x[2])
    results = await network.connect_all()
    assert [len(r.linked) for r in results] == [1, 1]


async def test_a_peer_that_may_not_link_is_refused_by_name(network):
    low, high = network.pair(config=MeshConfig(link_timeout_s=0.3, reconnect_for_s=0.2), may_link=lambda _peer: False)
    result = await network.meshes[low].connect([high], timeout_s=2)
    assert not result.linked
    assert "refuses links" in str(network.refused[0])


async def test_silence_ends_a_link_and_pings_prevent_it(network):
    config = MeshConfig(ping_after_s=0.05, dead_after_s=0.4, reconnect_for_s=0.1)
    low, high = await linked_pair(network, config=config)
    link = network.link(low, high)
    answered = link._ping_or_pong
    link._ping_or_pong = lambda payload: (answered(payload), network._notify())
    await network.until(lambda: network.meshes[low].rtt_s(high) is not None)
    assert network.meshes[low].linked == {high}
    network.link(high, low)._rtc._over = True  # The other side receives nothing and answers nothing.
    await network.until(lambda: not network.meshes[low].linked)
    assert "silent" in next(x[3] for x in network.links if x[0] == low and not x[2])


async def test_a_full_queue_is_refused_and_drains(network):
    low, high = await linked_pair(network, config=MeshConfig(queue_bytes=3 << 20))
    network.meshes[high].set_bulk_limit(4 << 20)
    mesh = network.meshes[low]
    mesh.send(high, MessageKind.BULK, bytes(3 << 20))
    with pytest.raises(LimitExceededError, match="drain"):
        mesh.send(high, MessageKind.BULK, bytes(3 << 20))
    await mesh.drain(high)
    mesh.send(high, MessageKind.BULK, bytes(3 << 20))
    await network.until(lambda: len(network.messages) == 2)


async def test_a_peer_that_reads_nothing_cannot_keep_others_from_being_looked_after(network, monkeypatch):
    """It fills the queue and falls silent: its link ends, and the tick goes on to the other links."""
    low, high = await linked_pair(network)
    mesh, link = network.meshes[low], network.link(low, high)
    link._rtc.send = lambda _frame: None
    monkeypatch.setattr(type(link._rtc), "buffered_bytes", property(lambda _rtc: 1 << 20))

    def fill(size):
        while True:
            mesh.send(high, MessageKind.MODEL, bytes(size))

    for size in (1 << 20, 1):
        with pytest.raises(LimitExceededError):
            fill(size)

    link.tick(link.last_heard + 0.8)
    monkeypatch.undo()

    await network.until(lambda: any(not up for _, _, up, _ in network.links))
    ended = next(reason for me, _, up, reason in network.links if me == low and not up)
    assert "silent, and cannot be asked" in ended


async def test_what_cannot_be_sent_is_refused_naming_both_sides(network):
    low, high = network.pair()
    mesh = network.meshes[low]
    with pytest.raises(LinkError, match=f"{low[:8]} and {high[:8]}"):
        mesh.send(high, MessageKind.CONTROL, b"x")
    await network.connect_all()
    with pytest.raises(LinkError, match="own"):
        mesh.send(high, MessageKind.PING, b"x")
    with pytest.raises(LimitExceededError, match="65537"):
        mesh.send(high, MessageKind.CONTROL, bytes(65537))
    with pytest.raises(LimitExceededError, match="at least 1 byte"):
        mesh.send(high, MessageKind.CONTROL, b"")
    with pytest.raises(LinkError, match="itself"):
        await mesh.connect([low], timeout_s=1)


async def test_control_messages_of_the_largest_size_arrive(network):
    low, high = await linked_pair(network)
    payload = os.urandom(65536)
    network.meshes[low].send(high, MessageKind.CONTROL, payload)
    await network.until(lambda: network.messages)
    assert network.messages[0][3] == payload


async def test_links_have_a_bounded_number(network):
    me = network.add(1, config=MeshConfig(max_links=2))
    others = [network.add(number) for number in (2, 3, 4)]
    with pytest.raises(LimitExceededError, match="no room"):
        await network.meshes[me].connect(others, timeout_s=1)


async def test_links_that_are_not_needed_make_room_for_those_wanted_here(network):
    """Neither peers that fetch models nor the cohorts of long ago keep a node out of a round."""
    node, *others = [network.add(number, config=MeshConfig(max_links=2)) for number in range(1, 7)]
    mesh = network.meshes[node]
    assert (await mesh.connect(others[:1], timeout_s=60)).linked == {others[0]}
    assert (await network.meshes[others[1]].connect([node], timeout_s=60)).linked == {node}
    await network.until(lambda: mesh.linked == set(others[:2]))

    assert (await mesh.connect(others[2:3], timeout_s=60)).linked == {others[2]}
    assert mesh.linked == {others[0], others[2]}  # the one that was not wanted here is gone
    assert (await mesh.connect(others[:1], timeout_s=60)).linked == {others[0]}
    assert (await mesh.connect(others[3:4], timeout_s=60)).linked == {others[3]}
    assert mesh.linked == {others[0], others[3]}  # the one that was wanted longest ago is gone

    for gone in others[1:3]:
        await network.until(lambda gone=gone: (gone, node, False) in [link[:3] for link in network.links])
    late = asyncio.ensure_future(network.meshes[others[4]].connect([node], timeout_s=60))
    await network.until(lambda: network.refused)
    late.cancel()
    assert f"no room for {others[4][:8]}" in str(network.refused[0])
    assert mesh.linked == {others[0], others[3]}


async def test_a_peer_that_was_given_up_takes_no_place(network):
    config = MeshConfig(max_links=1, link_timeout_s=0.05, reconnect_for_s=0.1)
    node, other = [network.add(number, config=config) for number in (1, 2)]
    network.tamper = lambda *_: None
    assert not (await network.meshes[node].connect([other], timeout_s=60)).linked

    network.tamper = None
    third = network.add(3)
    assert (await network.meshes[third].connect([node], timeout_s=60)).linked == {node}


def test_the_encoder_refuses_a_peer_with_tiny_messages():
    with pytest.raises(LinkError, match="1023"):
        FrameEncoder(max_frame_bytes=1023)


async def test_a_failing_handler_is_reported_and_ends_no_link(network):
    low, high = await linked_pair(network)
    reported = []
    context = network.meshes[high]._context
    library, context.on_message = context.on_message, lambda *_: 1 / 0
    failed = asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, report: (reported.append(report), failed.set()))
    network.meshes[low].send(high, MessageKind.CONTROL, b"breaks")
    await asyncio.wait_for(failed.wait(), 60)
    context.on_message = library
    network.meshes[low].send(high, MessageKind.CONTROL, b"works")
    await network.until(lambda: network.messages)
    assert isinstance(reported[0]["exception"], ZeroDivisionError)
    assert not [x for x in network.links if not x[2]]


async def test_an_offer_that_only_a_dead_predecessor_saw_is_sent_again(network):
    """The impolite side waits for an answer that never comes; the other's own offer must not wait with it."""
    low, _ = network.pair(config=MeshConfig(link_timeout_s=600))  # nothing below waits that long
    lost = []

    def tamper(me, _to, kind, payload):
        if me == low and kind == "offer" and not lost:
            lost.append(payload)
            return None
        return payload

    network.tamper = tamper

    results = await network.connect_all(timeout_s=60)

    assert [len(r.linked) for r in results] == [1, 1], [r.failed for r in results]
    assert lost


async def test_one_offer_is_sent_four_times_at_most(network):
    """However often the other side offers: every one of them would have it signed, sealed and relayed again."""
    low, high = network.pair()
    insisting = []

    async def insist(payload):
        document = open_negotiation(payload, sender=high, receiver=low, kind="offer")
        for _ in range(6):
            fresh = msgspec.structs.replace(
                document, sequence=network.meshes[high]._peers[low]._context.next_sequence()
            )
            network.meshes[low].receive_signal(high, "offer", seal_negotiation(network.identities[high], fresh))

    def offers():
        return [signal for signal in network.signals if (signal[0], signal[2]) == (low, "offer")]

    def tamper(me, _to, kind, payload):
        if me == high and kind == "offer" and not insisting:
            insisting.append(asyncio.ensure_future(insist(payload)))
        return None if me == low and kind == "offer" and len(offers()) != 4 else payload

    network.tamper = tamper
    results = await network.connect_all()

    await asyncio.gather(*insisting)
    assert insisting
    assert len(offers()) == 4
    assert [len(r.linked) for r in results] == [1, 1], [r.failed for r in results]


@pytest.mark.parametrize("at", ["offer", "answer", "linked"])
async def test_an_offer_that_comes_once_more_is_answered_once(network, at):
    low, high = network.pair()
    again = []

    async def repeat():
        peer = network.meshes[low]._peers[high]
        offer = next(signal for signal in network.signals if signal[2] == "offer")
        document = open_negotiation(offer[3], sender=low, receiver=high, kind="offer")
        fresh = msgspec.structs.replace(document, sequence=peer._context.next_sequence())
        network.meshes[high].receive_signal(low, "offer", seal_negotiation(network.identities[low], fresh))

    def tamper(_me, _to, kind, payload):
        if kind == at and not again:
            again.append(asyncio.ensure_future(repeat()))
        return payload

    network.tamper = tamper
    results = await network.connect_all()
    if at == "linked":
        again.append(asyncio.ensure_future(repeat()))
    await asyncio.gather(*again)
    await network.until(lambda: not network.meshes[high]._peers[low]._waiting_signals)

    assert [len(r.linked) for r in results] == [1, 1], [r.failed for r in results]
    assert len([signal for signal in network.signals if signal[2] == "answer"]) == 1
    assert network.meshes[high]._peers[low]._attempt is None


async def test_a_side_that_gave_up_what_it_had_answered_is_answered_at_once(network):
    """An offer that follows an answer does not cross: the impolite side has no reason to insist on its own."""
    low, high = network.pair()
    kept = []

    def tamper(_me, _to, kind, payload):
        if kind == "answer" and not kept:
            kept.append(payload)
            peer = network.meshes[high]._peers[low]
            peer._settle(peer._attempt, LinkError("the connection is failed"))
        return payload

    network.tamper = tamper
    results = await network.connect_all()

    assert kept
    assert [len(r.linked) for r in results] == [1, 1], [r.failed for r in results]
    assert [(s[0], s[2]) for s in network.signals] == [
        (low, "offer"),
        (high, "answer"),
        (high, "offer"),
        (low, "answer"),
    ]


async def test_an_offer_that_signaling_could_not_deliver_is_made_anew_at_once(network):
    low, high = network.pair()

    def tamper(me, to, kind, payload):
        if len(network.signals) > 1:
            return payload
        asyncio.get_running_loop().call_soon(network.meshes[me].undelivered, to)
        return None

    network.tamper = tamper
    result = await network.meshes[low].connect([high], timeout_s=12)  # an offer without an answer waits 15 s

    assert result.linked == {high}
    assert [(s[0], s[2]) for s in network.signals] == [(low, "offer"), (low, "offer"), (high, "answer")]
