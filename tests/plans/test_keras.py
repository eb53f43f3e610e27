import keras
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import plans
from plans import SGD, Field
from plans.errors import TraceError
from tests.plans.against_pytorch import example_data, train_both
from tests.plans.keras_models import KERAS_MODELS, functional, sequential, with_twin

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras and numpy 2

LABEL = {"label": Field("int64", below=3)}
OWN_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize("name", KERAS_MODELS)
def test_keras_models_train_as_in_eager_mode(name):
    model, twin, inputs = with_twin(name)
    both = train_both(
        model,
        twin=twin,
        loss=OWN_LOSS,
        torch_loss=F.cross_entropy,
        optimizer=SGD(lr=0.1, momentum=0.5),
        inputs=inputs,
        targets=LABEL,
        epochs=2,
    )
    assert both.error < 1e-5
    if both.plan.manifest.buffer_count:
        assert both.buffer_error < 1e-5


def test_a_plan_trains_as_keras_trains_by_itself():
    """Keras's own optimizer, loss and batches; no code of ours on that side."""
    keras.utils.set_random_seed(1)
    model = functional()
    plan = plans.trace(
        model,
        loss=OWN_LOSS,
        optimizer=SGD(lr=0.1, momentum=0.5),
        inputs={"x": Field("float32", (8, 8, 2))},
        targets=LABEL,
        name="t",
        version="1",
    )
    data, start = example_data(plan, 40), plan.initial("theta")
    batches = np.arange(40).reshape(10, 4)
    theta, *_ = plans.Executor(plan).call_train(
        [start, plan.initial("optimizer_state"), plan.initial("buffers")],
        data,
        batches,
        np.full(10, 0.1, np.float32),
        0,
    )
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.5), loss=OWN_LOSS)
    for row in batches:
        model.train_on_batch(data["x"][row], data["label"][row])
    expected = np.concatenate([v.numpy().ravel() for v in model.trainable_variables])
    assert np.linalg.norm(theta - expected) < 1e-5 * np.linalg.norm(expected - start)


def test_parameters_have_kerass_names_and_tracing_changes_nothing():
    model = sequential()
    before = model.get_weights()
    plan = plans.trace(
        model, loss=OWN_LOSS, optimizer="sgd", inputs={"x": Field("float32", (6,))}, targets=LABEL, name="t",
        version="1",
    )  # fmt: skip
    names = [p.name.split("/")[-1] for p in plan.manifest.parameters]
    assert names == ["kernel", "bias", "gamma", "beta", "kernel", "bias"]
    assert plan.manifest.buffer_count == 16
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_layers_that_are_not_trainable_stay_in_the_plan():
    model = sequential()
    model.layers[0].trainable = False
    plan = plans.trace(
        model, loss="cross_entropy", optimizer="sgd", inputs={"x": Field("float32", (6,))}, targets=LABEL, name="t",
        version="1",
    )  # fmt: skip
    assert plan.manifest.frozen_count == 6 * 8 + 8
    assert [p.name.split("/")[-1] for p in plan.manifest.parameters] == ["gamma", "beta", "kernel", "bias"]


def test_a_keras_model_without_shapes_is_refused():
    with pytest.raises(
        TraceError, match=r"is not built, so its parameters have no shapes; begin it with keras.Input"
    ):
        plans.trace(
            keras.Sequential([keras.layers.Dense(3)]), loss="cross_entropy", optimizer="sgd",
            inputs={"x": torch.zeros(6)}, targets=LABEL, name="t", version="1",
        )  # fmt: skip


def test_keras_on_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(TraceError, match="Keras runs on jax here, expected torch: set KERAS_BACKEND=torch before"):
        plans.trace(
            sequential(), loss="cross_entropy", optimizer="sgd", inputs={"x": torch.zeros(6)}, targets=LABEL,
            name="t", version="1",
        )  # fmt: skip


def test_a_keras_loss_that_is_no_mean_is_refused():
    loss = keras.losses.MeanSquaredError(reduction="sum")
    with pytest.raises(
        TraceError, match="loss mean_squared_error has reduction 'sum', expected 'sum_over_batch_size'"
    ):
        plans.trace(
            sequential(), loss=loss, optimizer="sgd", inputs={"x": torch.zeros(6)},
            targets={"y": Field("float32", (3,))}, name="t", version="1",
        )  # fmt: skip


def test_what_is_no_model_is_refused():
    with pytest.raises(TraceError, match=r"model is function, expected torch.nn.Module or a Keras model on torch"):
        plans.trace(
            lambda x: x, loss="mse", optimizer="sgd", inputs={"x": torch.zeros(6)}, targets=LABEL, name="t",
            version="1",
        )  # fmt: skip
