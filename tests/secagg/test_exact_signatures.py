"""A libsodium that follows another rule than spec 02 §1 stops the process; a weaker rule would take each trial."""

import pickle

import pytest

from protocol import identity
from protocol.identity import Identity
from spec.reference.curve import BASE, ORDER, TORSION, add, encode_point, multiply, scalar_of


def trial(what):
    key, signature = (bytes.fromhex(text) for text in identity._WRONG[what])
    return key, signature[:32], int.from_bytes(signature[32:], "little")


@pytest.mark.parametrize("what", list(identity._WRONG))
def test_a_library_that_takes_a_wrong_signature_stops_the_process(what, monkeypatch):
    real, (key, signature) = identity.crypto_sign_open, identity._WRONG[what]

    def lenient(signed, public_key):
        if (signed.hex(), public_key.hex()) == (signature, key):
            return b""
        return real(signed, public_key)

    monkeypatch.setattr(identity, "crypto_sign_open", lenient)
    with pytest.raises(ImportError, match=f"takes a signature {what}, expected to be refused"):
        identity._check_library()


def test_the_trials_are_what_they_are_called():
    key, r, s = trial("that only the equation times the cofactor allows")
    point = add(BASE, TORSION)
    sides = [multiply(BASE, s), add(point, multiply(BASE, scalar_of(r, key)))]
    assert (key, r) == (encode_point(BASE), encode_point(point))
    assert sides[0] != sides[1]
    assert multiply(sides[0], 8) == multiply(sides[1], 8)

    key, r, s = trial("whose S is not below the order")
    assert s >= ORDER
    assert multiply(BASE, s) == add(BASE, multiply(BASE, scalar_of(r, key)))
    assert key == r == encode_point(BASE)

    key, r, s = trial("by a key of small order")
    assert (key, r, s) == (encode_point((0, 1)), encode_point(BASE), 1)


def test_an_identity_cannot_be_pickled():
    with pytest.raises(TypeError, match="seed"):
        pickle.dumps(Identity(bytes(32)))
