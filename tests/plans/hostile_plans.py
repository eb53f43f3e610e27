"""Plans whose `train` takes much memory: small files in which one value, or many, grow large while they run."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from plans import Plan
from protocol.encoding import digest_of
from protocol.manifest import Blob

__all__ = ["ATTACKS", "hostile"]

GIB = 1 << 30
node = helper.make_node
Nodes = list[onnx.NodeProto]
value = helper.make_tensor_value_info


class Attack:
    """Nodes that make a float value `large` of the parameters, and the constants they read."""

    def __init__(self) -> None:
        self.nodes: Nodes = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: object, dtype: type = np.int64) -> str:
        name = f"attack_constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: object) -> str:
        output = output or f"attack_{len(self.nodes)}"
        self.nodes.append(node(operator, inputs, [output], **attributes))
        return output

    def unforeseen(self, *sizes: int) -> str:
        """A shape that nothing knows before the graph runs."""
        nothing = self.add("Mul", self.add("Shape", "theta"), self.constant([0]))
        return self.add("Add", self.constant(sizes), nothing)

    def ones(self, *sizes: int, dtype: int = TensorProto.FLOAT) -> str:
        one = helper.make_tensor("one", dtype, [1], [1])
        return self.add("ConstantOfShape", self.unforeseen(*sizes), value=one)


def filled(attack: Attack) -> str:
    return attack.ones(8 * GIB)


def folded(attack: Attack) -> str:
    """Constants that are made while the graph is loaded, a little at a time."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    shape = attack.constant([4 << 20])
    parts = [
        attack.add("Mul", attack.add("ConstantOfShape", shape, value=one), attack.constant(number, np.float32))
        for number in range(1000)
    ]
    return attack.add("Sum", *parts)


def expanded(attack: Attack) -> str:
    return attack.add("Expand", attack.ones(1), attack.unforeseen(8 * GIB))


def tiled(attack: Attack) -> str:
    """Below what ONNX Runtime itself refuses."""
    return attack.add("Tile", attack.ones(1 << 10), attack.unforeseen((1 << 20) - 1))


def counted(attack: Attack) -> str:
    end = attack.add("Squeeze", attack.unforeseen(8 * GIB))
    return attack.add("Range", attack.constant(0), end, attack.constant(1))


def padded(attack: Attack) -> str:
    return attack.add("Pad", attack.ones(1), attack.unforeseen(0, 8 * GIB))


def resized(attack: Attack) -> str:
    scales = attack.constant([1, 1, 90_000, 90_000], np.float32)
    return attack.add("Resize", attack.ones(1, 1, 1, 1), "", scales, mode="nearest")


def multiplied(attack: Attack) -> str:
    return attack.add("MatMul", attack.ones(90_000, 1), attack.ones(1, 90_000))


def convolved(attack: Attack) -> str:
    kernel = attack.constant(np.ones((1, 1, 1, 1)), np.float32)
    return attack.add("Conv", attack.ones(1, 1, 1, 1), kernel, pads=[45_000] * 4)


def doubled(attack: Attack) -> str:
    """A value that a Loop makes twice as long in each turn."""
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Concat", ["v", "v"], ["longer"], axis=0)],
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("v", TensorProto.FLOAT, None),
        ],
        [value("on", TensorProto.BOOL, []), value("longer", TensorProto.FLOAT, [None])],
    )
    return attack.add("Loop", attack.constant(40), attack.constant(True, bool), attack.ones(1), body=body)


def collected(attack: Attack) -> str:
    """A Loop that keeps a value of 4 MiB from each turn."""
    ones = attack.ones(1 << 20)
    body = helper.make_graph(
        [
            node("Identity", ["go"], ["on"]),
            node("Cast", ["turn"], ["number"], to=TensorProto.FLOAT),
            node("Add", [ones, "number"], ["kept"]),
        ],
        "body",
        [value("turn", TensorProto.INT64, []), value("go", TensorProto.BOOL, [])],
        [value("on", TensorProto.BOOL, []), value("kept", TensorProto.FLOAT, [None])],
    )
    return attack.add("Loop", attack.constant(10_000), attack.constant(True, bool), body=body)


def crumbs(attack: Attack) -> str:
    """A Loop that keeps a scalar from each turn: what ONNX Runtime spends on each is more than the scalar."""
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Cast", ["turn"], ["kept"], to=TensorProto.FLOAT)],
        "body",
        [value("turn", TensorProto.INT64, []), value("go", TensorProto.BOOL, [])],
        [value("on", TensorProto.BOOL, []), value("kept", TensorProto.FLOAT, [])],
    )
    return attack.add("Loop", attack.constant(1 << 40), attack.constant(True, bool), body=body)


def scanned(attack: Attack) -> str:
    ones = attack.ones(1 << 20)
    body = helper.make_graph(
        [node("Add", ["e", ones], ["kept"])],
        "body",
        [value("e", TensorProto.FLOAT, [])],
        [value("kept", TensorProto.FLOAT, [1 << 20])],
    )
    return attack.add("Scan", attack.ones(10_000), body=body, num_scan_inputs=1)


def searched(attack: Attack) -> str:
    """What an operator takes for itself: a bool becomes places of eight bytes per dimension."""
    return attack.add("NonZero", attack.ones(60_000_000, 1, 1, 1, 1, 1, 1, 1, dtype=TensorProto.BOOL))


def deduplicated(attack: Attack) -> str:
    """The same: a search tree of as many numbers."""
    end = attack.add("Squeeze", attack.unforeseen(30_000_000))
    return attack.add("Unique", attack.add("Range", attack.constant(0), end, attack.constant(1)))


ATTACKS: list[Callable[[Attack], str]] = [
    filled, folded, expanded, tiled, counted, padded, resized, multiplied, convolved, doubled, collected, crumbs,
    scanned, searched, deduplicated,
]  # fmt: skip


def hostile(plan: Plan, make: Callable[[Attack], str]) -> Plan:
    """The plan with an attack in `train`, whose result its next parameters depend on."""
    attack = Attack()
    large = attack.add("Cast", make(attack), to=TensorProto.FLOAT)
    nothing = attack.add("Mul", attack.add("ReduceMax", large, keepdims=0), attack.constant(0, np.float32))
    attack.add("Add", "honest_theta", nothing, output="next_theta")
    model = onnx.ModelProto.FromString(plan.graph("train"))
    for found in model.graph.node:
        found.output[:] = ["honest_theta" if name == "next_theta" else name for name in found.output]
    model.graph.node.extend(attack.nodes)
    model.graph.initializer.extend(attack.constants)
    graph = model.SerializeToString()
    manifest, honest = plan.manifest, plan.manifest.functions["train"]
    manifest = msgspec.structs.replace(
        manifest,
        functions=manifest.functions | {"train": msgspec.structs.replace(honest, graph=digest_of(graph))},
        blobs=(
            *(blob for blob in manifest.blobs if blob.digest != honest.graph),
            Blob(digest=digest_of(graph), size=len(graph), role="train"),
        ),
    )
    blobs = {digest: data for digest, data in plan.blobs.items() if digest != honest.graph}
    return Plan.of(manifest, blobs | {digest_of(graph): graph})
