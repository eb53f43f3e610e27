"""A released model is the plan's predict function, whole, in one file stock ONNX Runtime reads."""

import msgspec
import numpy as np
import onnx
import pytest
import torch
from torch import nn

import plans
from plans.errors import BundleError, UnusableDataError
from plans.onnx_runtime import onnxruntime
from plans.release import released_model


def predict(data, feeds):
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def test_it_predicts_as_the_plan_does(plan):
    generator = np.random.default_rng(1)
    theta = generator.normal(size=plan.manifest.parameter_count).astype(np.float32)
    x = generator.normal(size=(17, 6)).astype(np.float32)
    data = released_model(plan, theta, plan.initial("buffers"), facts={"peerplan.round": "3"})
    np.testing.assert_array_equal(
        predict(data, {"x": x}), plans.Executor(plan).predict(theta, plan.initial("buffers"), {"x": x})
    )
    model = onnx.load_from_string(data)
    assert [port.name for port in model.graph.input] == ["x"]
    told = {item.key: item.value for item in model.metadata_props}
    assert told == {
        "peerplan.plan": plan.digest,
        "peerplan.name": "small",
        "peerplan.version": "1",
        "peerplan.round": "3",
    }


def test_what_the_model_holds_besides_parameters_is_part_of_it():
    torch.manual_seed(0)

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.register_buffer("mean", torch.tensor([1.0, 2.0, 3.0]))

        def forward(self, x):
            return self.linear(x - self.mean)

    model = Scaled()
    plan = plans.trace(
        model,
        loss="mse",
        optimizer=plans.SGD(lr=0.1),
        inputs={"x": plans.Field("float32", (3,))},
        targets={"y": plans.Field("float32", (2,))},
        name="scaled",
        version="1",
    )
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    data = released_model(plan, plan.initial("theta"), plan.initial("buffers"))
    np.testing.assert_allclose(predict(data, {"x": x}), model(torch.from_numpy(x)).detach().numpy(), rtol=1e-5)


def test_vectors_that_do_not_fit_are_refused(plan):
    theta, buffers = plan.initial("theta"), plan.initial("buffers")
    with pytest.raises(UnusableDataError, match=r"theta is float32\[82\], expected float32\[83\]"):
        released_model(plan, theta[:-1], buffers)
    with pytest.raises(UnusableDataError, match="buffers is"):
        released_model(plan, theta, np.zeros(1, np.float32))
    with pytest.raises(UnusableDataError, match="float64"):
        released_model(plan, theta.astype(np.float64), buffers)
    theta[3] = np.nan
    with pytest.raises(UnusableDataError, match="NaN"):
        released_model(plan, theta, buffers)


def test_a_plan_without_predict_has_no_model_to_release(plan):
    functions = {name: value for name, value in plan.manifest.functions.items() if name != "predict"}
    blobs = [blob for blob in plan.manifest.blobs if blob.digest != plan.manifest.functions["predict"].graph]
    manifest = msgspec.structs.replace(plan.manifest, functions=functions, blobs=tuple(blobs))
    bare = plans.Plan.of(manifest, {blob.digest: plan.blobs[blob.digest] for blob in blobs})
    with pytest.raises(BundleError, match="no function 'predict'"):
        released_model(bare, bare.initial("theta"), bare.initial("buffers"))


def test_a_model_that_does_not_fit_one_file_is_refused(plan, monkeypatch):
    monkeypatch.setattr("plans.release.MAX_RELEASE_BYTES", 100)
    with pytest.raises(BundleError, match="100 at most"):
        released_model(plan, plan.initial("theta"), plan.initial("buffers"))
