"""Everything that leaves nodes, at the three places where it is still plain, and a search for given bytes in it.

Taps: websocket frames before they are masked (client side), data-channel messages as the mesh hands them over, and
SCTP packets as they go into DTLS. Below that all bytes are encrypted.
"""

from __future__ import annotations

import base64

import numpy as np
from websockets.frames import Frame
from websockets.protocol import CLIENT, Protocol

from protocol.round import jobs
from protocol.secagg.quantise import WholeNumbers
from python_node.mesh.fast_sctp import FastDtlsTransport
from python_node.mesh.rtc import RtcConnection
from tests.secagg.ring import read_whole

WINDOW = 16
TABLE_BITS = 24
LEAST_DISTINCT = 7
"""A window of fewer different bytes (padding, runs of one value) may turn up anywhere and proves nothing."""


class Wiretap:
    """Install with a pytest `monkeypatch`; what was seen is in `websocket`, `channel` and `sctp`."""

    def __init__(self, monkeypatch) -> None:
        self.websocket: list[bytes] = []
        self.channel: list[bytes] = []
        self.sctp: list[bytes] = []
        self.plain: list[np.ndarray] = []
        """uint32 [D] of each peer and round: the quantised update before a mask touched it."""
        self.updates: list[np.ndarray] = []
        """float32 [P + B] of each peer and round."""
        self.masked: list[bytes] = []
        self._tap_websocket(monkeypatch)
        self._tap_channel(monkeypatch)
        self._tap_sctp(monkeypatch)
        self._tap_jobs(monkeypatch)

    @property
    def everything(self) -> Haystack:
        return Haystack([*self.websocket, *self.channel, *self.sctp])

    def _tap_websocket(self, monkeypatch) -> None:
        real = Protocol.send_frame

        def send_frame(protocol: Protocol, frame: Frame) -> None:
            if protocol.side is CLIENT:
                self.websocket.append(bytes(frame.data))
            real(protocol, frame)

        monkeypatch.setattr(Protocol, "send_frame", send_frame)

    def _tap_channel(self, monkeypatch) -> None:
        real = RtcConnection.send

        def send(connection: RtcConnection, frame: bytes) -> None:
            self.channel.append(bytes(frame))
            real(connection, frame)

        monkeypatch.setattr(RtcConnection, "send", send)

    def _tap_sctp(self, monkeypatch) -> None:
        real = FastDtlsTransport.send_now

        def send_now(transport: FastDtlsTransport, data: bytes) -> None:
            self.sctp.append(bytes(data))
            real(transport, data)

        monkeypatch.setattr(FastDtlsTransport, "send_now", send_now)

    def _tap_jobs(self, monkeypatch) -> None:
        """The needles themselves, taken where masking begins."""
        quantised, mask = jobs.Quantised, jobs.mask_update

        def tapped_quantised(update, *arguments, **options):
            self.updates.append(np.array(update))
            return quantised(update, *arguments, **options)

        def tapped_mask(plain, keys, *, chunk_bounds, **options):
            words = read_whole(plain, chunk_bounds[-1][1])
            self.plain.append(words)
            masked = mask(WholeNumbers(words.view(np.int32)), keys, chunk_bounds=chunk_bounds, **options)
            self.masked.append(b"".join(bytes(chunk) for chunk in masked.chunks))
            return masked

        monkeypatch.setattr(jobs, "Quantised", tapped_quantised)
        monkeypatch.setattr(jobs, "mask_update", tapped_mask)


class Haystack:
    """Captured bytes made ready for many searches."""

    def __init__(self, texts: list[bytes]) -> None:
        # what is cut at a boundary of a frame or packet cannot be found; the taps above it hold it in one piece
        self.text = bytes(WINDOW).join(texts)
        self.slots = _slots(self.text)


class Needles:
    """All telling 16-byte windows of some byte strings."""

    def __init__(self, texts: list[bytes]) -> None:
        texts = [text for text in texts if len(text) >= WINDOW]
        self.total = sum(len(text) - WINDOW + 1 for text in texts)
        self.kept = 0
        self._table = np.zeros(1 << TABLE_BITS, np.bool_)
        self._windows: set[bytes] = set()
        for text in texts:
            places = np.flatnonzero(_telling(text))
            self.kept += len(places)
            self._table[_slots(text)[places]] = True
            self._windows.update(text[at : at + WINDOW] for at in places)

    def found_in(self, haystack: Haystack) -> int:
        """How many places of the haystack hold one of the windows, byte for byte."""
        candidates = np.flatnonzero(self._table[haystack.slots])
        return sum(haystack.text[at : at + WINDOW] in self._windows for at in candidates)


def every_form(vectors: list[np.ndarray]) -> dict[str, list[bytes]]:
    """The forms in which a vector could be sent."""
    forms = {
        "float32": [vector.astype("<f4").tobytes() for vector in vectors],
        "float32, big endian": [vector.astype(">f4").tobytes() for vector in vectors],
        "float64": [vector.astype("<f8").tobytes() for vector in vectors],
        "float16": [vector.astype("<f2").tobytes() for vector in vectors],
    }
    forms["hex"] = [text.hex().encode() for text in forms["float32"]]
    for phase in range(3):
        forms[f"base64 from byte {phase}"] = [base64.b64encode(text[phase:]) for text in forms["float32"]]
    return forms


def _slots(text: bytes) -> np.ndarray:
    """A slot of the table per window: equal windows have equal slots."""
    data = np.frombuffer(text, np.uint8)
    halves = np.lib.stride_tricks.sliding_window_view(data, 8).copy().view("<u8").reshape(-1)
    mixed = (halves[:-8] ^ (halves[8:] * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xD6E8FEB86659FD93)
    return (mixed >> np.uint64(64 - TABLE_BITS)).astype(np.intp)


def _telling(text: bytes) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(text, np.uint8), WINDOW)
    ordered = np.sort(windows, axis=1)
    return (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1) + 1 >= LEAST_DISTINCT
