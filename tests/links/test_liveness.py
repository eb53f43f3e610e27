"""When a silent peer is dead, and which time counts: links and attempts by a clock that the test moves."""

import asyncio

import pytest

from protocol.identity import Identity
from protocol.link import FrameEncoder, Limits, LinkIdentity, MessageKind, OutgoingMessage, seal_hello
from protocol.round.machine import Stage
from protocol.server_optimizer import FEDAVG
from python_node.attempt import Attempt
from python_node.mesh import MeshConfig
from python_node.mesh.link import Link, LinkCounters, LinkEvents
from python_node.running_clock import RunningClock
from tests.round.network import Network

BEAT_S = 0.25
HERE, THERE = Identity(b"h" * 32), Identity(b"t" * 32)


class Time:
    """Seconds, moved by hand."""

    def __init__(self):
        self.s = 1000.0
        self.clock = RunningClock(lambda: self.s, beat_s=BEAT_S)

    def run(self, seconds, beat=lambda: None):
        """The process runs for so long: its clock is read at every beat."""
        for _ in range(round(seconds / BEAT_S)):
            self.s += BEAT_S
            self.clock.now()
            beat()

    def stop(self, seconds):
        """The process stands still for so long."""
        self.s += seconds


class Channel:
    """A data channel that takes everything."""

    usable = True
    buffered_bytes = 0
    max_message_bytes = 65_536

    def send(self, _frame):
        pass

    async def _closed(self):
        pass

    def close(self):
        return asyncio.ensure_future(self._closed())


class Watched:
    """A ready link on a channel over which the other side speaks when the test says so."""

    def __init__(self):
        self.time = Time()
        self.ends = []
        view = LinkIdentity(
            local=HERE.peer_id,
            remote=THERE.peer_id,
            local_fingerprint="11" * 32,
            remote_fingerprint="22" * 32,
            local_nonce="33" * 16,
            remote_nonce="44" * 16,
        )
        self.link = Link(
            Channel(),
            view,
            HERE,
            config=MeshConfig(),
            clock=self.time.clock,
            limits=Limits(),
            counters=LinkCounters(),
            events=LinkEvents(
                on_ready=lambda: None,
                on_message=lambda *_: None,
                on_end=lambda end: self.ends.append((end.reason.removeprefix(THERE.peer_id[:8]), end.retry)),
            ),
        )
        self._encoder = FrameEncoder()
        self._say(MessageKind.HELLO, seal_hello(THERE, view.reversed()))
        assert self.link.ready

    def hear(self):
        self._say(MessageKind.CONTROL, b"x")

    def run(self, seconds):
        self.time.run(seconds, lambda: self.link.tick(self.time.clock.now()))

    def _say(self, kind, payload):
        self.link.receive(self._encoder.next_frame(OutgoingMessage(kind, payload)))


@pytest.fixture
async def watched():
    return Watched()


async def test_a_silent_peer_may_be_slow_and_its_link_stays_for_seven_seconds(watched):
    watched.run(6.75)
    watched.hear()
    watched.run(6.75)
    assert watched.ends == []
    watched.run(BEAT_S)
    assert watched.ends == [(" was silent for 7.0 s", True)]


@pytest.mark.parametrize("before_s", [0, 0.5, 2])
async def test_a_silent_peer_that_signaling_lost_is_dead_after_two_and_a_half_seconds(watched, before_s):
    watched.run(before_s)
    watched.link.signaling_lost()
    watched.run(2.25 - before_s)
    assert watched.ends == []
    watched.run(BEAT_S)
    assert watched.ends == [(" was silent for 2.5 s, signaling lost it too", True)]


async def test_the_last_words_of_a_peer_may_come_after_signaling_lost_it(watched):
    watched.link.signaling_lost()
    watched.run(0.75)
    watched.hear()
    watched.run(2.5)
    assert watched.ends == [(" was silent for 2.5 s, signaling lost it too", True)]


async def test_a_peer_that_signaling_lost_alone_is_as_alive_as_any_other(watched):
    watched.link.signaling_lost()
    watched.run(1)
    watched.hear()
    watched.run(6.75)
    assert watched.ends == []


@pytest.mark.parametrize("regained_s", [0, 1.0, 2.25])
async def test_a_peer_whose_session_is_back_may_be_slow_again(watched, regained_s):
    watched.link.signaling_lost()
    watched.run(regained_s)
    watched.link.signaling_regained()
    watched.run(6.75 - regained_s)
    assert watched.ends == []
    watched.run(BEAT_S)
    assert watched.ends == [(" was silent for 7.0 s", True)]


async def test_a_peer_that_is_lost_once_more_is_dead_after_two_and_a_half_seconds_again(watched):
    watched.link.signaling_lost()
    watched.link.signaling_regained()
    watched.run(2)
    watched.link.signaling_lost()
    watched.run(0.25)
    assert watched.ends == []
    watched.run(BEAT_S)
    assert watched.ends == [(" was silent for 2.5 s, signaling lost it too", True)]


@pytest.mark.parametrize(("last", "died_after_s"), [("lost", 2.5), ("regained", 7.0)])
async def test_signaling_that_tells_both_in_turn_chooses_between_the_two_limits(watched, last, died_after_s):
    first = "regained" if last == "lost" else "lost"

    def lie():
        for word in (first, last):
            getattr(watched.link, f"signaling_{word}")()
        watched.link.tick(watched.time.clock.now())

    watched.time.run(died_after_s - BEAT_S, lie)
    assert watched.ends == []
    watched.time.run(BEAT_S, lie)
    assert [end[0].split(",")[0] for end in watched.ends] == [f" was silent for {died_after_s} s"]


async def test_nobody_is_silent_while_this_process_stands_still(watched):
    watched.link.signaling_lost()
    watched.run(1)
    watched.time.stop(60)
    watched.run(1.25)  # the stop counts as one beat
    assert watched.ends == []
    watched.run(BEAT_S)
    assert watched.ends == [(" was silent for 2.5 s, signaling lost it too", True)]


def test_a_clock_leaves_stops_out_and_nothing_else():
    time = Time()
    begun = time.clock.now()
    time.stop(1.0)  # timers may be as late as that
    assert time.clock.now() - begun == 1.0
    time.stop(7.25)
    assert time.clock.now() - begun == 1.0 + BEAT_S
    assert time.clock.when(begun + 10) == begun + 17
    time.run(5)
    assert time.clock.now() - begun == 6.0 + BEAT_S


class Deaf:
    """A mesh with links to all the others, over which nothing comes."""

    fingerprint = "00" * 32
    total = LinkCounters()

    def __init__(self, clock, cohort):
        self.clock = clock
        self.linked = frozenset(cohort)

    async def connect(self, peers, *, timeout_s):
        pass

    def remote_fingerprint(self, _peer):
        return "11" * 32

    def send(self, *_args):
        pass


async def test_a_stage_is_not_over_because_this_process_stood_still():
    """Else it would go on without peers whose messages wait to be read."""
    time, network = Time(), Network(4)
    loop, joined = asyncio.get_running_loop(), asyncio.Event()

    async def never():
        await asyncio.Event().wait()

    attempt = Attempt(
        parameters=network.parameters,
        identity=network.identities[0],
        mesh=Deaf(time.clock, network.parameters.cohort),
        deadlines=network.deadlines,
        checkpoint=network.model,
        optimizer=FEDAVG,
        parameter_count=len(network.model),
        record=lambda *_: loop.call_soon_threadsafe(joined.set),
        contribute=never,
    )
    running = asyncio.ensure_future(attempt.run())
    await joined.wait()
    due = attempt._machine.next_deadline()
    time.stop(100 * 60)
    attempt._tick()
    assert attempt._machine.next_deadline() == due
    assert not attempt.ended
    time.run(120, attempt._tick)
    assert "only 1 peers for the roster" in (await running).failure
    attempt.close()


@pytest.mark.parametrize("stage", list(Stage)[:6])
def test_vanished_leaders_are_noticed_before_those_who_wait_for_their_words_give_up(stage):
    """They lose power together, in the middle of what they sent: all the others bring the round to its end."""
    network = Network(10, seed="power")
    first = network.members[0].machine.leader
    vanished = [first, (first + 1) % 10]
    network.start()
    network.run_until(lambda: all(network.members[index].machine.stage >= stage for index in vanished))
    for index in vanished:
        network.members[index].dead = True
    network.wire = [item for item in network.wire if item[0] not in vanished]
    noticed_at = network.now + MeshConfig().dead_after_s + 1.0  # ticks, and what is then said about it
    network.run_until(lambda: not network.wire and network.next_due() > noticed_at)
    network.now = noticed_at
    for index in vanished:
        network.kill(index)
    network.run()
    alive = network.alive()
    assert len(alive) == 8
    assert [member.failed for member in alive] == [None] * 8
    assert all(member.completed for member in alive)
