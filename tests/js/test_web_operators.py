"""`plans.operators.WEB` against what onnxruntime-web loads: a model of each operator that plans may use."""

import json
import subprocess
import warnings
from pathlib import Path

import onnx
import pytest
from onnx import checker, helper

from plans.operators import ALLOWED, WEB

FOLDER = Path(__file__).parent
RANDOM = {"RandomNormal": [], "RandomUniform": [], "RandomNormalLike": ["x"], "RandomUniformLike": ["x"]}


def models():
    """By operator: a model of it alone, in the opset of plans where that has it; from ONNX's own tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 - takes seconds and warns

        cases = [case.model for case in collect_testcases(None)]
    found = {}
    for model in cases:
        (kind, *rest) = [node.op_type for node in model.graph.node]
        if rest or kind not in ALLOWED or any(node.domain for node in model.graph.node):
            continue
        unusual = sum(value.type.tensor_type.elem_type not in (1, 7, 9) for value in model.graph.input)
        for rank, made in ((unusual, in_opset_18(model)), (100 + unusual, model)):
            if made is not None and rank < found.get(kind, (1000, None))[0]:
                found[kind] = (rank, made)
    return {kind: model for kind, (_, model) in found.items()} | {kind: drawing(kind) for kind in RANDOM}


def in_opset_18(model):
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.opset_import[:]
    made.opset_import.add().version = 18
    made.ir_version = 8
    try:
        checker.check_model(made, full_check=True)
    except (checker.ValidationError, onnx.shape_inference.InferenceError):
        return None
    return made


def drawing(kind):
    shape = {} if RANDOM[kind] else {"shape": [2]}
    inputs = [helper.make_tensor_value_info(name, 1, [2]) for name in RANDOM[kind]]
    node = helper.make_node(kind, RANDOM[kind], ["y"], **shape)
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", 1, [2])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.slow
def test_the_list_of_web_operators_is_what_onnxruntime_web_loads(package, tmp_path):
    tried = models()
    assert set(tried) == ALLOWED
    for kind, model in tried.items():
        (tmp_path / f"{kind}.onnx").write_bytes(model.SerializeToString())
    done = subprocess.run(
        ["node", FOLDER / "operators.mjs", tmp_path, package],
        capture_output=True, text=True, check=True, timeout=150,
    )  # fmt: skip
    found = json.loads(done.stdout)
    lacking = {name.removesuffix(".onnx"): error for name, error in found.items() if error is not None}
    assert frozenset(found) == {f"{kind}.onnx" for kind in ALLOWED}
    assert set(lacking) == ALLOWED - WEB, lacking
