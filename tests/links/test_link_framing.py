import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LimitExceededError, LinkError, ProtocolError
from protocol.link import CONTROL_MAX_BYTES, FRAME_MAX_BYTES, FrameDecoder, FrameEncoder, Limits, MessageKind
from protocol.link import OutgoingMessage as Outgoing

LIMITS = Limits(bulk_bytes=1 << 20, model_bytes=1 << 20)
ONE_CHUNK = bytes.fromhex("130300000000000003000000") + b"abc"


def frames_of(kind, payload, encoder=None):
    encoder = encoder or FrameEncoder()
    message = Outgoing(kind, payload)
    out = []
    while not message.finished:
        out.append(encoder.next_frame(message))
    return out


def receive_all(decoder, frames):
    return [m for m in (decoder.receive_data(f) for f in frames) if m is not None]


def test_a_small_message_is_one_frame_with_the_written_header():
    assert frames_of(MessageKind.BULK, b"abc") == [ONE_CHUNK]


@given(
    st.lists(
        st.tuples(st.sampled_from([MessageKind.CONTROL, MessageKind.BULK, MessageKind.MODEL]), st.integers(1, 65536)),
        min_size=1,
        max_size=6,
    ),
    st.integers(1024, 65536),
    st.randoms(use_true_random=False),
)
def test_interleaved_messages_arrive_whole(plan, max_frame_bytes, random):
    encoder = FrameEncoder(max_frame_bytes=max_frame_bytes)
    decoder = FrameDecoder(limits=LIMITS)
    lanes = {}
    for index, (kind, size) in enumerate(plan):
        lanes.setdefault(kind, []).append(Outgoing(kind, bytes([index + 1]) * size))
    got = {}
    while lanes:
        kind = random.choice(sorted(lanes))
        message = lanes[kind][0]
        frame = encoder.next_frame(message)
        assert len(frame) <= max_frame_bytes
        done = decoder.receive_data(frame)
        if done is not None:
            got.setdefault(done.kind, []).append(bytes(done.payload))
        if message.finished:
            lanes[kind].pop(0)
            if not lanes[kind]:
                del lanes[kind]
    assert decoder.unfinished == 0
    for kind in {k for k, _ in plan}:
        assert got[kind] == [bytes([i + 1]) * size for i, (k, size) in enumerate(plan) if k is kind]


@given(st.lists(st.binary(max_size=2000), max_size=20))
def test_arbitrary_frames_raise_documented_errors_only(frames):
    decoder = FrameDecoder(limits=LIMITS)
    for frame in frames:
        try:
            decoder.receive_data(frame)
        except ProtocolError:
            return


@given(st.integers(1, 3000), st.integers(0, 3000), st.integers(0, 255))
def test_a_changed_byte_gives_another_payload_or_a_documented_error(size, at, value):
    encoder = FrameEncoder(max_frame_bytes=1024)
    frames = frames_of(MessageKind.BULK, bytes(size), encoder)
    stream = [bytearray(f) for f in frames]
    target = stream[at % len(stream)]
    target[at % len(target)] = value
    decoder = FrameDecoder(limits=Limits(bulk_bytes=3000))
    try:
        got = receive_all(decoder, map(bytes, stream))
    except ProtocolError:
        return
    assert all(len(m.payload) <= 3000 for m in got)


def header(byte=0x13, flags=3, reserved=0, number=0, total=3):
    return (
        bytes([byte, flags])
        + reserved.to_bytes(2, "little")
        + number.to_bytes(4, "little")
        + total.to_bytes(4, "little")
    )


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"", "no header"),
        (header()[:8], "no header"),
        (header(byte=0x23) + b"abc", "version"),
        (header(byte=0x17) + b"abc", "kind"),
        (header(byte=0x10) + b"abc", "kind"),
        (header(flags=7) + b"abc", "reserved"),
        (header(reserved=1) + b"abc", "reserved"),
        (header(number=1) + b"abc", "expected number 0, got 1"),
        (header(total=4) + b"abc", "4 bytes announced, 3 came"),
        (header(total=2) + b"abc", "2 bytes announced, 3 came"),
        (header(flags=2)[:8] + b"abc", "unfinished in its class is none"),
        (header(flags=1, total=2000) + b"abc", "at least 1024"),
        (header(flags=1, total=2000) + bytes(2000), "2000 bytes announced, 2000 came"),
        (header(flags=3, total=0) + b"", "no total and payload"),
    ],
)
def test_a_frame_against_the_rules_is_refused_by_name(frame, says):
    with pytest.raises(LinkError, match=says):
        FrameDecoder(limits=LIMITS).receive_data(frame)


@pytest.mark.parametrize(
    ("kind", "total"),
    [(1, 225), (5, 10), (6, 202), (2, CONTROL_MAX_BYTES + 1), (3, (1 << 20) + 1), (4, 0xFFFFFFFF), (6, 0xFFFFFFFF)],
)
def test_a_total_above_its_bound_is_refused_before_memory_is_taken(kind, total):
    frame = header(byte=0x10 | kind, flags=1, total=total) + bytes(1012)
    with pytest.raises(LimitExceededError, match=str(total)):
        FrameDecoder(limits=LIMITS).receive_data(frame)


def test_bulk_is_refused_until_a_limit_is_set():
    decoder = FrameDecoder(limits=Limits())
    with pytest.raises(LimitExceededError, match="limit 0"):
        decoder.receive_data(ONE_CHUNK)
    decoder = FrameDecoder(limits=Limits())
    decoder.limits = LIMITS
    assert bytes(decoder.receive_data(ONE_CHUNK).payload) == b"abc"


def test_an_oversized_frame_is_refused():
    with pytest.raises(LimitExceededError, match="65537"):
        FrameDecoder(limits=LIMITS).receive_data(bytes(FRAME_MAX_BYTES + 1))


def test_a_second_message_of_a_class_before_the_first_ended_is_refused():
    decoder = FrameDecoder(limits=LIMITS)
    decoder.receive_data(header(flags=1, total=5000) + bytes(2000))
    with pytest.raises(LinkError, match="before message 0"):
        decoder.receive_data(header(flags=1, number=1, total=5000) + bytes(2000))


def test_frames_of_another_message_cannot_be_slipped_into_one():
    decoder = FrameDecoder(limits=LIMITS)
    decoder.receive_data(header(flags=1, total=5000) + bytes(2000))
    with pytest.raises(LinkError, match="unfinished in its class is BULK 0"):
        decoder.receive_data(header(flags=2, number=7)[:8] + bytes(3000))


def test_a_replayed_frame_is_refused():
    decoder = FrameDecoder(limits=LIMITS)
    decoder.receive_data(ONE_CHUNK)
    with pytest.raises(LinkError, match="expected number 1, got 0"):
        decoder.receive_data(ONE_CHUNK)


def test_an_empty_message_cannot_be_framed():
    with pytest.raises(LinkError, match="at least 1 byte"):
        FrameEncoder().next_frame(Outgoing(MessageKind.CONTROL, b""))


def test_two_messages_of_a_class_cannot_be_framed_at_once():
    encoder = FrameEncoder(max_frame_bytes=1024)
    encoder.next_frame(Outgoing(MessageKind.BULK, bytes(5000)))
    with pytest.raises(LinkError, match="not ended"):
        encoder.next_frame(Outgoing(MessageKind.BULK, b"abc"))


def test_bulk_payloads_are_read_only():
    payload = receive_all(FrameDecoder(limits=LIMITS), frames_of(MessageKind.BULK, bytes(200000)))[0].payload
    assert isinstance(payload, memoryview)
    assert payload.readonly
    assert payload.nbytes == 200000
