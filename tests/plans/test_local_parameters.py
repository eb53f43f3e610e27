"""Local parameters: traced to the end of theta, trained like any others, named apart in the manifest."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import plans
from plans import TraceError
from protocol.errors import EncodingError, ManifestError
from protocol.manifest import decode_manifest


def model():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


def trace(local):
    return plans.trace(
        model(),
        loss="cross_entropy",
        optimizer=plans.Adam(lr=0.05),
        inputs={"x": plans.Field("float32", (4,))},
        targets={"y": plans.Field("int64")},
        local=local,
        name="local",
        version="1",
    )


def trained(plan, data):
    start = [plan.initial(role) for role in ("theta", "optimizer_state", "buffers")]
    done = plans.Executor(plan).train(*start, data, batch_size=8, epochs=3, learning_rate=0.05, seed=b"local")
    named = {
        item.name: done.theta[item.offset : item.offset + int(np.prod(item.shape))]
        for item in plan.manifest.parameters
    }
    return named, done.buffers


@pytest.mark.parametrize("local", [["3.*"], ["0.weight"], ["0.*", "1.bias"]])
def test_local_parameters_train_to_the_bits_they_train_to_as_shared_ones(local):
    random = np.random.default_rng(1)
    data = {"x": random.normal(size=(40, 4)).astype(np.float32), "y": random.integers(0, 3, 40)}
    named, buffers = trained(trace(local), data)
    expected, expected_buffers = trained(trace([]), data)
    assert named.keys() == expected.keys()
    for name, values in expected.items():
        assert named[name].tobytes() == values.tobytes(), name
    assert buffers.tobytes() == expected_buffers.tobytes()


def test_the_manifest_puts_them_last_and_gives_them_initial_values_of_their_own():
    plan = trace(["0.*"])
    manifest = plan.manifest
    assert (manifest.parameter_count, manifest.local_count, manifest.shared_count) == (63, 30, 33)
    assert [item.name for item in manifest.parameters][-2:] == ["0.weight", "0.bias"]
    state = model().state_dict()
    assert plan.initial("local").tobytes() == b"".join(
        state[f"0.{part}"].numpy().tobytes() for part in ("weight", "bias")
    )
    assert len(plan.initial("theta")) == 63
    assert manifest.blob(manifest.initial["theta"]).size == 4 * 33
    card = plans.card(plan)
    assert card.leaves_bytes == 4 * (33 + 12 + 1 + 1)


@pytest.mark.parametrize(
    ("local", "said"), [(["head.*"], "names no trained parameter"), (["*"], "nothing is left to share")]
)
def test_a_pattern_that_names_nothing_or_everything_is_refused(local, said):
    with pytest.raises(TraceError, match=said):
        trace(local)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"local_count": 1}, ManifestError),
        ({"local_count": 63, "initial": {}}, ManifestError),
        ({"local_count": 64, "initial": {}}, ManifestError),
        ({"local_count": -21}, EncodingError),
        ({"local_count": 2**26 + 1}, EncodingError),
        ({"local_count": 0}, ManifestError),
    ],
)
def test_a_manifest_whose_local_parameters_are_no_whole_tensors_at_the_end_is_refused(changes, error):
    document = json.loads(trace(["3.*"]).manifest_bytes)
    with pytest.raises(error):
        decode_manifest(json.dumps(document | changes).encode())


def test_a_manifest_without_the_field_has_none():
    document = json.loads(trace([]).manifest_bytes)
    assert document.pop("local_count") == 0
    assert decode_manifest(json.dumps(document).encode()).local_count == 0
