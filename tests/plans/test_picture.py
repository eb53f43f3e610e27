import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from torch import nn

import plans
from plans import Field
from plans.errors import BundleError
from plans.layered import place

SVG = "{http://www.w3.org/2000/svg}"


def labels(svg):
    return [element.text for element in ET.fromstring(svg).iter(f"{SVG}text")]


def small_graph(count, kind="Relu"):
    """`count` operators side by side on one input, summed up."""
    nodes = [helper.make_node(kind, ["x"], [f"v{at}"], name=f"n{at}") for at in range(count)]
    nodes.append(helper.make_node("Sum", [f"v{at}" for at in range(count)], ["y"]))
    value = [helper.make_tensor_value_info(name, 1, [2]) for name in ("x", "y")]
    return helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:])).SerializeToString()


def test_a_loops_body_stands_within_its_box(plan):
    svg = plans.picture(plan.graph("train"), title="small: train")
    root = ET.fromstring(svg)
    (loop,) = [r for r in root.iter(f"{SVG}rect") if r.get("class") == "control"]
    boxes = [r for r in root.iter(f"{SVG}rect") if r.get("class") == "product"]
    assert len(boxes) == 5  # two forward, two gradients of weights, one of activations
    assert all(float(box.get("width")) < float(loop.get("width")) for box in boxes)
    assert "Loop: its body, once per step" in labels(svg)
    assert "next_theta" in labels(svg)


def test_equal_operators_side_by_side_are_one_box_with_a_count():
    assert "Relu \u00d725" in labels(plans.picture(small_graph(25), title="t"))
    assert labels(plans.picture(small_graph(1), title="t")).count("Relu") == 1


def test_the_weight_gradient_of_a_convolution_stays_readable():
    torch.manual_seed(0)
    plan = plans.trace(
        nn.Sequential(nn.Conv2d(8, 4, 5), nn.Flatten(), nn.Linear(64, 3)), loss="cross_entropy", optimizer="sgd",
        inputs={"x": Field("float32", (8, 8, 8))}, targets={"y": Field("int64")}, name="t", version="1", check=False,
        fast_convolutions=False,
    )  # fmt: skip
    assert "MatMul \u00d725" in labels(plans.picture(plan.graph("train"), title="t"))


def test_names_of_a_plan_are_no_markup():
    model = onnx.ModelProto.FromString(small_graph(1))
    model.graph.node[0].name = "<script>alert(1)</script>"
    svg = plans.picture(model.SerializeToString(), title="<b>&")
    assert "<script" not in svg
    assert ET.fromstring(svg).find(f"{SVG}text").text == "<b>&"


def test_a_graph_nobody_could_read_is_refused():
    nodes = [helper.make_node("Relu", ["x" if at == 0 else f"v{at}"], [f"v{at + 1}"]) for at in range(4100)]
    value = [helper.make_tensor_value_info(name, 1, [2]) for name in ("x", "v4100")]
    model = helper.make_model(helper.make_graph(nodes, "long", value[:1], value[1:])).SerializeToString()
    with pytest.raises(BundleError, match="graph 'long' has 4102 boxes, at most 4000 are drawn"):
        plans.picture(model, title="t")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_boxes_never_overlap_and_lines_run_from_box_to_box(data):
    count = data.draw(st.integers(1, 25))
    layer_of = sorted(data.draw(st.lists(st.integers(0, 6), min_size=count, max_size=count)))
    pairs = [(a, b) for a in range(count) for b in range(count) if layer_of[a] < layer_of[b]]
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True, max_size=30)) if pairs else []
    sizes = data.draw(st.lists(st.tuples(st.floats(5, 200), st.floats(5, 90)), min_size=count, max_size=count))
    placed = place(sizes, edges, layer_of)
    corners = np.array(placed.corners)
    for a in range(count):
        for b in range(a):
            apart = [
                corners[a][axis] + sizes[a][axis] <= corners[b][axis] + 1e-6
                or corners[b][axis] + sizes[b][axis] <= corners[a][axis] + 1e-6
                for axis in (0, 1)
            ]
            assert any(apart)
    assert corners.min() >= -1e-6
    assert max(x + w for (x, _), (w, _) in zip(placed.corners, sizes, strict=True)) <= placed.width + 1e-6
    for (start, end), route in zip(edges, placed.routes, strict=True):
        assert route[0][1] == pytest.approx(placed.corners[start][1] + sizes[start][1])
        assert route[-1] == pytest.approx((placed.corners[end][0] + sizes[end][0] / 2, placed.corners[end][1]))
        assert all(upper[1] < lower[1] for upper, lower in pairwise(route))


def test_pictures_of_one_plan_are_equal(plan):
    first, again = (plans.picture(plan.graph("train"), title="t") for _ in range(2))
    assert first == again
    assert not re.search(r"nan|inf", first)
