"""ONNX Runtime's reports to its vendor are off in every process that runs plans."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
RUNS_A_MODEL = """
import numpy as np
from onnx import TensorProto, helper
{imported}
ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ports[:1], ports[1:])
model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
assert session.run(None, {{"x": np.ones(1, "float32")}})[0] == 1
"""


def files_left_by(imported: str, home: Path) -> list[Path]:
    """What a process that runs a model leaves in the home folder; ONNX Runtime queues its reports there."""
    env = {
        name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    env |= {"HOME": str(home), "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", RUNS_A_MODEL.format(imported=imported)], env=env, check=True)
    return [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "imported",
    [
        "from plans.onnx_runtime import onnxruntime",
        "import plans, onnxruntime",
        "import cli.main, onnxruntime",
        "import python_node.node, onnxruntime",
    ],
)
def test_running_a_model_leaves_no_report_to_be_sent(imported: str, tmp_path: Path) -> None:
    assert files_left_by(imported, tmp_path) == []
