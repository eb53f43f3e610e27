from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from torch import nn
from torch.nn import functional as F

import plans
from plans import SGD, Field
from plans.authoring.lowering import GraphBuilder, Lowering, Value, port
from plans.authoring.lowering.minimal_filtering import MOST_PRODUCTS, Tiling, filtering
from plans.authoring.lowering.winograd import Winograd, worthwhile
from plans.onnx_runtime import onnxruntime
from tests.plans.against_pytorch import train_both

LABEL = {"y": Field("int64")}
STEP_AND_KERNEL = [(m, k) for k in range(1, MOST_PRODUCTS + 1) for m in range(1, MOST_PRODUCTS + 2 - k)]


@pytest.mark.parametrize(("step", "kernel"), STEP_AND_KERNEL)
def test_as_many_products_as_results_and_taps_less_one_make_a_filter(step, kernel):
    results, taps, signal = filtering(step, kernel)
    assert taps.shape == (step + kernel - 1, kernel)
    rng = np.random.default_rng(step)
    w, x = rng.standard_normal(kernel), rng.standard_normal(step + kernel - 1)
    np.testing.assert_allclose(results @ ((taps @ w) * (signal @ x)), np.correlate(x, w), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("step", "kernel"), [(0, 3), (3, 0), (5, 5)])
def test_filters_without_results_or_of_too_many_points_are_refused(step, kernel):
    with pytest.raises(ValueError, match=f"{step} results of {kernel} taps"):
        filtering(step, kernel)


@st.composite
def convolutions(draw):
    """A tiling of rows and one of columns that have little in common, channels and examples."""

    def tiling():
        kernel = draw(st.integers(2, 5))
        padding = draw(st.integers(0, kernel - 1))
        size = draw(st.integers(max(1, kernel - 2 * padding), 13))
        return Tiling(size, kernel, padding, draw(st.integers(1, MOST_PRODUCTS + 1 - kernel)))

    return Winograd(tiling(), tiling(), draw(st.integers(1, 5)), draw(st.integers(1, 5))), draw(st.integers(1, 4))


def by_plan(form, examples, dtype=torch.float32, seed=0):
    """(forward, dL/dx, dL/dw) of random arrays by the form's graph, and by PyTorch in float64."""
    rows, columns = form.rows, form.columns
    shapes = {
        "x": (examples, form.channels, rows.size, columns.size),
        "w": (form.outputs, form.channels, rows.kernel, columns.kernel),
        "b": (form.outputs,),
        "g": (examples, form.outputs, rows.out, columns.out),
    }
    rng = np.random.default_rng(seed)
    given = {name: torch.from_numpy(rng.standard_normal(shape)).to(dtype) for name, shape in shapes.items()}
    exact = {name: array.double().clone().requires_grad_() for name, array in given.items()}
    y = F.conv2d(exact["x"], exact["w"], exact["b"], padding=(rows.padding, columns.padding))
    y.backward(exact["g"])
    expected = [value.detach().numpy() for value in (y, exact["x"].grad, exact["w"].grad)]

    graph = GraphBuilder()
    to = Lowering(graph)
    open_batch = {name: (None, *shape[1:]) if name in "xg" else shape for name, shape in shapes.items()}
    x, w, b, g = (Value(name, dtype, shape) for name, shape in open_batch.items())
    made = {
        "y": form.forward(to, x, w, b),
        "dx": form.image_gradient(to, g, w),
        "dw": form.weight_gradient(to, g, x),
    }
    kind = 1 if dtype == torch.float32 else 11
    ports = [port(name, kind, ["n" if dim is None else dim for dim in dims]) for name, dims in open_batch.items()]
    leaving = [
        (value, port(name, kind, ["n" if dim is None else dim for dim in like.shape]))
        for (name, value), like in zip(made.items(), (g, x, w), strict=True)
    ]
    model = helper.make_model(
        graph.finish("g", ports, leaving), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: array.numpy() for name, array in given.items()}), expected


def relative(got, expected):
    return [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(got, expected, strict=True)]


@settings(max_examples=60)
@given(convolutions(), st.integers(0, 99))
def test_convolution_and_gradients_of_any_size_equal_pytorch(case, seed):
    form, examples = case
    got, expected = by_plan(form, examples, torch.float64, seed)
    for found, wanted in zip(got, expected, strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("form", "most"),
    [
        (Winograd(Tiling(14, 5, 2, 4), Tiling(14, 5, 2, 4), 32, 64), 1e-5),
        (Winograd(Tiling(8, 3, 1, 4), Tiling(8, 3, 1, 4), 64, 64), 2e-6),
        (Winograd(Tiling(8, 3, 0, 6), Tiling(8, 3, 0, 6), 64, 64), 1e-5),
        (Winograd(Tiling(7, 3, 1, 2), Tiling(9, 5, 1, 2), 64, 64), 5e-6),
    ],
)
def test_float32_rounds_little(form, most):
    assert max(relative(*by_plan(form, 32))) < most


def of_sizes(channels, outputs, size, kernel, padding, examples=32):
    image = Value("x", torch.float32, (None, channels, size, size))
    return worthwhile(
        image, Value("w", torch.float32, (outputs, channels, kernel, kernel)), (padding, padding), examples
    )


def test_it_is_taken_where_it_was_measured_to_gain():
    assert of_sizes(32, 64, 14, 5, 2).rows == Tiling(14, 5, 2, 4)
    assert of_sizes(64, 64, 8, 3, 1).columns == Tiling(8, 3, 1, 4)
    assert of_sizes(64, 128, 7, 3, 1) is not None


@pytest.mark.parametrize(
    "sizes",
    [
        (1, 32, 28, 5, 2),  # one channel: transforms cost more than the products
        (3, 32, 32, 5, 2),
        (16, 16, 32, 3, 1),  # a small kernel on a large image, as transforms are dense
        (32, 32, 32, 3, 1),
        (64, 64, 224, 3, 1),
        (64, 64, 14, 1, 0),  # nothing to save
        (64, 64, 8, 3, 1, 1),  # the kernel is transformed for one example
        (64, 64, 14, 11, 5),  # more points than float32 bears
    ],
)
def test_it_is_not_taken_where_it_gains_nothing(sizes):
    assert of_sizes(*sizes) is None


def test_open_sizes_are_left_to_conv():
    image = Value("x", torch.float32, (None, 32, None, 14))
    assert worthwhile(image, Value("w", torch.float32, (64, 32, 5, 5)), (2, 2), 32) is None


def cnn(**options):
    """Of three convolutions the second and third are worth it, the last with uneven sizes and padding. All is smooth:
    where ReLU or MaxPool choose the other way for rounding's sake, one gradient changes by far more than rounding.
    """
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(16, 16, 5, padding=2, **options),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 24, (3, 5), padding=(0, 3), bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.LazyLinear(3),
    )


SHAPE = (1, 13, 18)


def operators(plan, kind):
    """Counts over a graph and its loops."""
    found = Counter()

    def count(graph):
        for node in graph.node:
            found[node.op_type] += 1
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    count(attribute.g)

    count(onnx.load_from_string(plan.graph(kind)).graph)
    return found


@pytest.mark.parametrize("fast", [True, False])
def test_a_model_trains_as_in_pytorch_short_batches_included(fast):
    torch.manual_seed(6)
    model = cnn()
    model(torch.zeros(2, *SHAPE))
    both = train_both(
        model,
        loss="cross_entropy",
        torch_loss=F.cross_entropy,
        optimizer=SGD(lr=0.05, momentum=0.9),
        inputs={"x": Field("float32", SHAPE)},
        targets=LABEL,
        fast_convolutions=fast,
        check=True,
    )
    assert both.error < (2e-5 if fast else 2e-6)
    forwards, transposed = (1, 1) if fast else (3, 3)  # the pooling's gradient is a ConvTranspose too
    assert operators(both.plan, "train")["Conv"] == forwards
    assert operators(both.plan, "train")["ConvTranspose"] == transposed
    # one image at a time would be slower, and evaluation has larger batches than transforms have room for
    assert operators(both.plan, "predict")["Conv"] == operators(both.plan, "evaluate")["Conv"] == 3


@pytest.mark.parametrize("options", [{"stride": 2}, {"dilation": 2}, {"groups": 2}])
def test_only_plain_convolutions_take_the_form(options):
    torch.manual_seed(6)
    model = cnn(**options)
    model(torch.zeros(2, *SHAPE))
    plan = plans.trace(
        model,
        loss="cross_entropy",
        optimizer=SGD(lr=0.05),
        inputs={"x": Field("float32", SHAPE)},
        targets=LABEL,
        name="t",
        version="1",
    )
    assert operators(plan, "train")["Conv"] >= 2
