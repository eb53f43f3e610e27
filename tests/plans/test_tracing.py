import getpass
import subprocess
import sys

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

import plans
from plans import Field
from plans.errors import TraceError
from protocol.errors import ManifestError
from protocol.manifest import decode_manifest, encode_manifest

X, Y = {"x": Field("float32", (6,))}, {"y": Field("int64")}


def trace(model=None, **options):
    settings = {"loss": "cross_entropy", "optimizer": "sgd", "inputs": X, "targets": Y, "name": "t", "version": "1"}
    return plans.trace(model or nn.Linear(6, 3), **(settings | options))


def test_public_names():
    assert sorted(plans.__all__) == [
        "Adam",
        "BoundedExecutor",
        "BundleError",
        "CancelledError",
        "ExecutionError",
        "Executor",
        "Field",
        "HarmfulPlanError",
        "Metrics",
        "PerExample",
        "Plan",
        "PlanError",
        "Preflight",
        "Progress",
        "RMSprop",
        "SGD",
        "SignedPlan",
        "StepCost",
        "TraceError",
        "TrainResult",
        "UnsafePlanError",
        "UnusableDataError",
        "card",
        "load",
        "lora",
        "open_signed",
        "picture",
        "preflight",
        "trace",
        "validate",
        "verify",
    ]
    assert all(hasattr(plans, name) for name in plans.__all__)


def test_plans_are_loaded_and_run_without_torch(plan, tmp_path):
    path = plan.save(tmp_path / "a.plan")
    code = (
        "import sys, plans\n"
        f"plan = plans.load({str(path)!r})\n"
        "plans.validate(plan); plans.card(plan)\n"
        "import numpy as np\n"
        "x = np.zeros((3, 6), np.float32)\n"
        "plans.Executor(plan).predict(plan.initial('theta'), plan.initial('buffers'), {'x': x})\n"
        "assert not {'torch', 'onnxscript'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_same_model_gives_the_same_digest_in_two_processes():
    code = (
        "import torch, plans\n"
        "torch.manual_seed(3)\n"
        "from torch.nn import Conv2d, Flatten, Linear, MaxPool2d, Sequential\n"
        "m = Sequential(Conv2d(1, 2, 3), MaxPool2d(2), Flatten(), Linear(18, 3))\n"
        "p = plans.trace(m, loss='cross_entropy', optimizer='adam',\n"
        "    inputs={'x': plans.Field('float32', (1, 8, 8))},\n"
        "    targets={'y': plans.Field('int64')}, name='t', version='1')\n"
        "print(p.digest)\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
        for _ in range(2)
    ]
    assert len({run.stdout for run in runs}) == 1
    assert runs[0].stderr == ""


def test_nothing_of_the_authors_machine_is_in_a_plan(plan):
    words = [__file__, "site-packages", "against_pytorch", "conftest", "Sequential", "/home", "/root", "torch"]
    if len(getpass.getuser()) > 4:
        words.append(getpass.getuser())
    for data in [plan.manifest_bytes, *(plan.graph(kind) for kind in plan.manifest.functions)]:
        for word in words:
            assert word.encode() not in data


def test_tracing_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.0), nn.Linear(4, 3)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace(model)
    assert not model.training
    assert all((before[name] == value).all() for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_frozen_parameters_are_part_of_the_plan_and_of_no_model():
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    model[0].requires_grad_(requires_grad=False)
    plan = trace(model)
    assert [p.name for p in plan.manifest.parameters] == ["1.weight", "1.bias"]
    assert (plan.manifest.parameter_count, plan.manifest.buffer_count, plan.manifest.frozen_count) == (15, 0, 28)
    weights = [model[0].weight.detach().numpy().ravel(), model[0].bias.detach().numpy()]
    assert (plan.initial("frozen") == np.concatenate(weights)).all()
    assert plans.card(plan).leaves_bytes == 4 * (15 + 1 + 1)


def test_a_frozen_blob_of_another_size_is_refused(plan):
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    model[0].requires_grad_(requires_grad=False)
    manifest = trace(model).manifest
    role = manifest.initial["frozen"]
    cut = msgspec.structs.replace(manifest.blob(role), size=27)
    blobs = tuple(cut if blob.digest == role else blob for blob in manifest.blobs)
    with pytest.raises(ManifestError, match="frozen has 27 bytes"):
        decode_manifest(encode_manifest(msgspec.structs.replace(manifest, blobs=blobs)))


def test_buffers_that_training_leaves_alone_do_not_travel():
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    manifest = trace(model).manifest
    assert (manifest.buffer_count, manifest.frozen_count) == (8, 1)
    model[1].train = lambda mode=True: nn.Module.train(model[1], False)
    manifest = trace(model).manifest
    assert (manifest.buffer_count, manifest.frozen_count) == (0, 9)


def test_tied_weights_travel_once():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    assert trace(model).manifest.parameter_count == 36 + 6 + 6


def test_classes_bound_the_labels():
    assert trace().manifest.targets[0].below == 3


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x):
        return self.inner(x.reshape(7, 6))


class Branching(Fixed):
    def forward(self, x):
        return self.inner(x) if x.sum() > 0 else self.inner(-x)


class Unsupported(Fixed):
    def forward(self, x):
        return self.inner(torch.special.i0(x))


class Counting(Fixed):
    def __init__(self, start=0.0):
        super().__init__()
        self.register_buffer("calls", torch.tensor(start))

    def forward(self, x):
        self.calls += 1
        return self.inner(x)


class ReadingItsCount(Counting):
    def forward(self, x):
        if self.training:
            self.calls = self.calls + 1
        return self.inner(x) * (1 + self.calls.to(x.dtype))


class WritingAParameter(Fixed):
    def forward(self, x):
        with torch.no_grad():
            self.inner.bias.clamp_(-1, 1)
        return self.inner(x)


class DrawingAlways(Fixed):
    def forward(self, x):
        return self.inner(nn.functional.dropout(x, 0.5, training=True))


class Tuple(Fixed):
    def forward(self, x):
        return self.inner(x), x


class MeanOverBatch(Fixed):
    def forward(self, x):
        return self.inner(x).mean()


def test_an_error_names_the_module_the_line_and_the_way_out():
    model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.ReLU(), Branching()))
    with pytest.raises(TraceError) as caught:
        trace(model)
    message = str(caught.value)
    assert "in module 1.1, a Branching" in message
    assert f'File "{__file__}", line ' in message
    assert "write torch.where instead of if" in message
    assert len(message.splitlines()) == 1


def test_an_operator_without_lowering_is_named_with_its_line():
    with pytest.raises(TraceError, match=r"i0.default has no lowering .*in the model, a Unsupp.*test_tracing.py"):
        trace(Unsupported())


BAD = {
    "fixed batch": ({"model": Fixed()}, "fixes the batch size"),
    "branch on a value": ({"model": Branching()}, "could not trace"),
    "operator without lowering": (
        {"model": Unsupported()},
        "aten.special_i0.default has no lowering|aten.i0.default has no lowering",
    ),
    "buffer changed when not training": ({"model": Counting()}, "changes its buffer calls in forward when it is not"),
    "whole numbers that count": ({"model": ReadingItsCount(0)}, "counts in its buffer calls"),
    "draws in prediction": ({"model": DrawingAlways()}, "only training has a seed"),
    "momentum of none": (
        {"model": nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3, momentum=None))},
        "could not trace",
    ),
    "clip of zero": ({"clip_norm": 0.0}, "clip_norm=0.0, expected a finite number above 0"),
    "negative proximal term": ({"proximal": -1.0}, "proximal=-1.0, expected"),
    "two outputs": ({"model": Tuple()}, "gives tuple, expected one tensor"),
    "scalar output": ({"model": MeanOverBatch()}, "tensor of rank 0"),
    "double": ({"model": nn.Linear(6, 3).double()}, "expected torch.float32"),
    "nothing to train": ({"model": nn.ReLU()}, "nothing to train"),
    "unknown loss": ({"loss": "hinge"}, "loss 'hinge' is unknown"),
    "loss per example": (
        {"loss": lambda out, y: nn.functional.cross_entropy(out, y, reduction="none")},
        "expected a scalar",
    ),
    "unknown optimizer": ({"optimizer": "lion"}, "optimizer 'lion' is unknown"),
    "unknown metric": ({"metrics": ["f1"]}, "metric 'f1' is unknown"),
    "metric named loss": ({"metrics": [plans.PerExample("loss", lambda o, y: y, bound=1.0)]}, "repeat a name"),
    "metric of a scalar": (
        {"metrics": [plans.PerExample("m", lambda o, y: o.mean(), bound=1.0)]},
        "one number per example",
    ),
    "field named theta": ({"inputs": {"theta": Field("float32", (6,))}}, "taken by a port"),
    "field on both sides": ({"targets": {"x": Field("int64")}}, "repeat a name"),
    "no inputs": ({"inputs": {}}, "expected at least one field"),
    "field of a list": ({"inputs": {"x": [1.0]}}, "expected a Field"),
    "float labels": ({"targets": {"y": Field("float32")}}, "int64 labels"),
    "two labels": ({"targets": {"y": Field("int64"), "z": Field("int64")}}, "reads one target"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_traced_is_refused_with_a_reason(options, message):
    with pytest.raises(TraceError, match=message):
        trace(**options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Field("float16", (3,)),
        lambda: Field("float32", (-1,)),
        lambda: Field("float32", (0,)),
        lambda: Field("float32", (3,), below=4),
        lambda: Field("int64", below=0),
        lambda: plans.SGD(lr=0),
        lambda: plans.SGD(momentum=1.0),
        lambda: plans.SGD(nesterov=True),
        lambda: plans.Adam(betas=(0.9, 1.0)),
        lambda: plans.Adam(eps=0),
        lambda: plans.PerExample("m", abs, bound=0.0),
        lambda: plans.PerExample("m", abs, bound=float("inf")),
    ],
)
def test_options_out_of_range_are_refused(make):
    with pytest.raises(TraceError, match=r"expected|needs|below 1"):
        make()


def test_example_tensors_stand_for_fields():
    plan = trace(inputs={"x": torch.zeros(6)}, targets={"y": torch.tensor(0)})
    assert [(f.name, f.dtype, f.shape) for f in plan.manifest.data_fields] == [
        ("x", "float32", (6,)),
        ("y", "int64", ()),
    ]
