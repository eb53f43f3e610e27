import sys

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import plans
from plans import limits
from plans.errors import UnsafePlanError
from plans.validate import validate_graph
from protocol.manifest import Function, Port

KINDS = ["train", "evaluate", "predict"]


def check(plan, kind, model):
    validate_graph(model.SerializeToString(), plan.manifest.functions[kind], opset=18, what="plan small")


def model_of(plan, kind="predict"):
    return onnx.ModelProto.FromString(plan.graph(kind))


def body_of(model):
    return next(a.g for node in model.graph.node for a in node.attribute if a.name == "body")


def test_traced_functions_are_run(plan):
    plans.validate(plan)
    for kind in KINDS:
        check(plan, kind, model_of(plan, kind))


def custom_domain(model):
    model.graph.node[0].domain = "com.microsoft"


def imported_domain(model):
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))


def other_opset(model):
    model.opset_import[0].version = 17


def no_opset(model):
    del model.opset_import[:]


def function(model):
    model.functions.append(helper.make_function("", "Mine", [], [], [], [helper.make_opsetid("", 18)]))


def training_info(model):
    model.training_info.append(onnx.TrainingInfoProto())


def external_data(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.append(onnx.StringStringEntryProto(key="location", value="/etc/passwd"))


def external_data_without_location(model):
    model.graph.initializer[0].external_data.append(onnx.StringStringEntryProto(key="location", value="x"))


def constant_in_a_file(model):
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "t")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    model.graph.node.insert(0, helper.make_node("Constant", [], ["extra"], value=tensor))


def sparse(model):
    model.graph.sparse_initializer.append(onnx.SparseTensorProto())


def unknown_operator(model):
    model.graph.node[0].op_type = "Frobnicate"


def operator_off_the_list(model):
    model.graph.node.append(helper.make_node("SequenceEmpty", [], ["sequence"]))


def huge_constant(model):
    tensor = model.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend([1 << 40])


def negative_dimension(model):
    model.graph.initializer[0].dims[:] = [-1]


def short_constant(model):
    model.graph.initializer[0].raw_data = b"\0"


def string_constant(model):
    model.graph.initializer.append(helper.make_tensor("text", onnx.TensorProto.STRING, [1], [b"x"]))


def renamed_input(model):
    model.graph.input[0].name = "omega"


def other_shape(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7


def other_dtype(model):
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def no_shape(model):
    model.graph.output[0].type.tensor_type.ClearField("shape")


def one_more_input(model):
    model.graph.input.append(helper.make_tensor_value_info("extra", 1, [1]))


def one_more_output(model):
    model.graph.output.append(model.graph.output[0])


def undefined_value(model):
    model.graph.node[0].input[0] = "nowhere"


def value_made_twice(model):
    model.graph.node.append(model.graph.node[0])


def referring_attribute(model):
    attribute = model.graph.node[0].attribute.add()
    attribute.name, attribute.ref_attr_name, attribute.type = "axis", "outer", onnx.AttributeProto.INT


def future_ir(model):
    model.ir_version = 99


ATTACKS = [
    custom_domain,
    imported_domain,
    other_opset,
    no_opset,
    function,
    training_info,
    external_data,
    external_data_without_location,
    constant_in_a_file,
    sparse,
    unknown_operator,
    operator_off_the_list,
    huge_constant,
    negative_dimension,
    short_constant,
    string_constant,
    renamed_input,
    other_shape,
    other_dtype,
    no_shape,
    one_more_input,
    one_more_output,
    undefined_value,
    value_made_twice,
    referring_attribute,
    future_ir,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_graph_outside_the_rules_is_refused(plan, attack):
    model = model_of(plan)
    attack(model)
    with pytest.raises(UnsafePlanError, match=r"^plan small"):
        check(plan, "predict", model)


def test_a_forbidden_operator_inside_a_loop_is_refused(plan):
    model = model_of(plan, "train")
    body_of(model).node[0].op_type = "SequenceEmpty"
    with pytest.raises(UnsafePlanError, match="not on the list"):
        check(plan, "train", model)


def test_a_file_read_inside_a_loop_is_refused(plan):
    model = model_of(plan, "train")
    body_of(model).initializer[0].data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(UnsafePlanError, match="another file"):
        check(plan, "train", model)


def test_graphs_nested_too_deep_are_refused(plan):
    graph = helper.make_graph([], "g", [], [])
    for _ in range(limits.MAX_DEPTH):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["o"], then_branch=graph)], "g", [], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(UnsafePlanError, match="nest deeper"):
        check(plan, "predict", model)


def test_more_nodes_than_the_limit_are_refused(plan, monkeypatch):
    monkeypatch.setattr(sys.modules["plans.validate"], "MAX_NODES", 20)
    with pytest.raises(UnsafePlanError, match="more than 20 nodes"):
        check(plan, "train", model_of(plan, "train"))


def test_a_graph_above_the_size_limit_is_refused_unparsed(plan, monkeypatch):
    monkeypatch.setattr(sys.modules["plans.validate"], "MAX_GRAPH_BYTES", 100)
    with pytest.raises(UnsafePlanError, match="at most 100"):
        check(plan, "train", model_of(plan, "train"))


def test_ports_that_contradict_the_manifests_own_counts_are_refused(plan):
    function = plan.manifest.functions["train"]
    wrong = Function(graph=function.graph, inputs=function.inputs[1:], outputs=function.outputs)
    manifest = plan.manifest
    changed = type(manifest)(
        **{name: getattr(manifest, name) for name in manifest.__struct_fields__ if name != "functions"},
        functions=manifest.functions | {"train": wrong},
    )
    with pytest.raises(UnsafePlanError, match="declares other ports"):
        plans.validate(plans.Plan.of(changed, plan.blobs))


@settings(max_examples=300)
@given(data=st.binary(max_size=400))
def test_any_bytes_are_refused_by_name(data):
    port = Port(name="x", dtype="float32", shape=(1,))
    with pytest.raises(UnsafePlanError):
        validate_graph(data, Function(graph="0" * 64, inputs=(port,), outputs=(port,)), opset=18, what="plan small")


@settings(max_examples=400)
@given(
    kind=st.sampled_from(KINDS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=6),
)
def test_a_mutated_graph_is_run_or_refused_by_name(plan, kind, changes):
    data = bytearray(plan.graph(kind))
    for place, change in changes:
        data[int(place * len(data))] ^= change
    try:
        validate_graph(bytes(data), plan.manifest.functions[kind], opset=18, what="plan small")
    except UnsafePlanError:
        return
    assert onnx.ModelProto.FromString(bytes(data)).graph.node
