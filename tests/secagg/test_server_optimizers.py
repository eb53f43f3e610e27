"""Server optimizers against references that share nothing with them: torch.optim, and numpy in binary64."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import torch

from protocol.errors import EncodingError, TermsError
from protocol.secagg.apply import Aggregate, apply_aggregate
from protocol.server_optimizer import FEDAVG, ServerOptimizer, chosen_optimizer, initial_moments, moment_count
from protocol.terms import decode_terms
from spec.reference.apply import Optimizer
from spec.reference.apply import apply_aggregate as slow_apply

SURVIVORS, LARGEST, CLIP, ROUNDS = 5, 2**15 - 1, 0.25, 12
PARAMETERS, BUFFERS = 20_000, 17  # more than one tile of theta, and a tile that ends with it
KINDS = ("fedavg", "fedavgm", "fedadam", "fedyogi")


def optimizer_of(kind: str) -> ServerOptimizer:
    rate = {"fedavg": 0.5, "fedavgm": 0.3}.get(kind, 0.02)
    return ServerOptimizer(kind=kind, learning_rate=rate, beta1=0.8, beta2=0.95, tau=2e-3)


def fresh(optimizer: ServerOptimizer, random: np.random.Generator) -> np.ndarray:
    start = random.normal(0, 1, PARAMETERS + BUFFERS).astype(np.float32)
    return np.concatenate([start, *(np.full(PARAMETERS, v, np.float32) for v in initial_moments(optimizer))])


def rounds(random: np.random.Generator):
    """Aggregates of some rounds, each with its mean update in binary64."""
    for _ in range(ROUNDS):
        limit = SURVIVORS * LARGEST
        sums = random.integers(-limit, limit + 1, PARAMETERS + BUFFERS + 2).astype(np.int32)
        sums[PARAMETERS + BUFFERS] = weight = random.integers(limit // 2, limit)
        change = sums[: PARAMETERS + BUFFERS].astype(np.float64) * CLIP / weight
        yield Aggregate(sums=sums, survivors=frozenset(range(SURVIVORS))), change


def advance(model: np.ndarray, aggregate: Aggregate, optimizer: ServerOptimizer) -> np.ndarray:
    return apply_aggregate(
        model, aggregate, clip=CLIP, largest_value=LARGEST, optimizer=optimizer, parameter_count=PARAMETERS
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_server_optimizer_gives_the_bits_of_the_slow_reference_over_several_tiles(kind):
    random, optimizer = np.random.default_rng(1), optimizer_of(kind)
    model = fresh(optimizer, random)
    end = PARAMETERS + BUFFERS
    for aggregate, _ in rounds(random):
        slow = slow_apply(
            model[:PARAMETERS].tobytes(),
            model[PARAMETERS:end].tobytes(),
            [int(value) % 2**20 for value in aggregate.sums],
            SURVIVORS,
            clip=CLIP,
            value_bits=16,
            ring_bits=20,
            weight_lost=False,
            optimizer=Optimizer(**msgspec.to_builtins(optimizer)),
            moments=model[end:].tobytes(),
        )
        model = advance(model, aggregate, optimizer)
        assert model.tobytes() == slow.theta + slow.buffers + slow.moments


@pytest.mark.parametrize("kind", ["fedavg", "fedavgm"])
def test_fedavg_and_fedavgm_follow_torchs_sgd_on_the_negated_mean_update(kind):
    random, optimizer = np.random.default_rng(2), optimizer_of(kind)
    model = fresh(optimizer, random)
    theta = torch.nn.Parameter(torch.from_numpy(model[:PARAMETERS].astype(np.float64)))
    momentum = optimizer.beta1 if kind == "fedavgm" else 0.0
    torchs = torch.optim.SGD([theta], lr=optimizer.learning_rate, momentum=momentum)
    for aggregate, change in rounds(random):
        model = advance(model, aggregate, optimizer)
        theta.grad = torch.from_numpy(-change[:PARAMETERS])
        torchs.step()
    # twelve roundings to binary32 of values near one, against none
    np.testing.assert_allclose(model[:PARAMETERS], theta.detach().numpy(), rtol=0, atol=ROUNDS * 2.0**-22)


@pytest.mark.parametrize("kind", ["fedadam", "fedyogi"])
def test_adaptive_optimizers_follow_reddis_algorithm_2_in_binary64(kind):
    random, o = np.random.default_rng(3), optimizer_of(kind)
    model = fresh(o, random)
    theta = model[:PARAMETERS].astype(np.float64)
    m, v = np.zeros(PARAMETERS), np.full(PARAMETERS, o.tau**2)
    for aggregate, change in rounds(random):
        model = advance(model, aggregate, o)
        square = change[:PARAMETERS] ** 2
        m = o.beta1 * m + (1 - o.beta1) * change[:PARAMETERS]
        v = (
            o.beta2 * v + (1 - o.beta2) * square
            if kind == "fedadam"
            else v - (1 - o.beta2) * square * np.sign(v - square)
        )
        theta = theta + o.learning_rate * m / (np.sqrt(v) + o.tau)
    np.testing.assert_allclose(model[:PARAMETERS], theta, rtol=0, atol=ROUNDS * 2.0**-22)
    # moments are below a quarter: each round adds half a unit in the last place at most, and forgets some of it
    np.testing.assert_allclose(model[PARAMETERS + BUFFERS :], np.concatenate([m, v]), rtol=0, atol=ROUNDS * 2.0**-27)


@pytest.mark.parametrize("kind", KINDS)
def test_buffers_take_the_mean_update_whatever_the_optimizer(kind):
    random = np.random.default_rng(4)
    model = fresh(optimizer_of(kind), random)
    aggregate, change = next(rounds(random))
    after = advance(model, aggregate, optimizer_of(kind))
    at = slice(PARAMETERS, PARAMETERS + BUFFERS)
    np.testing.assert_array_equal(after[at], (model[at] + change[at]).astype(np.float32))


def test_moments_follow_from_terms_and_parameters():
    assert [moment_count(ServerOptimizer(kind=kind), 10) for kind in KINDS] == [0, 10, 20, 20]
    assert initial_moments(ServerOptimizer(kind="fedadam", tau=0.5)) == (0.0, 0.25)


TERMS = (
    b'{"name":"x","plan":"%b","nonce":"%b","rounds":1,"cohort_size":3,"min_cohort":3,"min_survivors":3,"clip":1,'
    b'"local":{"batch_size":1,"learning_rate":1},"server_optimizer":%%b}' % (b"0" * 64, b"0" * 64)
)
HOSTILE = {
    "unknown": b'{"kind":"fedsgd"}',
    "tau-zero": b'{"kind":"fedadam","tau":0}',
    "tau-negative": b'{"kind":"fedadam","tau":-0.001}',
    "tau-huge": b'{"kind":"fedadam","tau":2}',
    "tau-nan": b'{"kind":"fedadam","tau":NaN}',
    "beta1-one": b'{"kind":"fedavgm","beta1":1}',
    "beta1-negative": b'{"kind":"fedavgm","beta1":-0.1}',
    "beta2-one": b'{"kind":"fedyogi","beta2":1.0}',
    "beta2-infinite": b'{"kind":"fedyogi","beta2":1e999}',
    "rate-zero": b'{"kind":"fedavg","learning_rate":0}',
    "rate-negative": b'{"kind":"fedavg","learning_rate":-1}',
    "rate-huge": b'{"kind":"fedavg","learning_rate":1001}',
    "text": b'{"kind":"fedadam","tau":"0.1"}',
    "more": b'{"kind":"fedadam","epsilon":0.1}',
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_terms_are_refused(case):
    with pytest.raises(EncodingError, match="run terms"):
        decode_terms(TERMS % HOSTILE[case])


def test_terms_without_a_server_optimizer_mean_fedavg():
    assert decode_terms(TERMS % b"{}").server_optimizer == FEDAVG


@pytest.mark.parametrize(
    ("kind", "numbers", "said"),
    [
        ("fedsgd", {}, "there are fedavg"),
        ("fedavg", {"beta1": 0.5}, "fedavg uses learning_rate; got beta1 too"),
        ("fedavgm", {"tau": 0.5}, "got tau too"),
        ("fedadam", {"tau": 0.0}, "tau 0"),
        ("fedadam", {"beta1": 1.0}, "beta1 1"),
        ("fedyogi", {"learning_rate": math.nan}, "learning_rate is nan"),
        ("fedyogi", {"beta2": -0.5}, "beta2 -0.5"),
    ],
)
def test_an_author_is_told_what_an_optimizer_does_not_take(kind, numbers, said):
    with pytest.raises(TermsError, match=said):
        chosen_optimizer(kind, **numbers)
