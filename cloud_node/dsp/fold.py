"""Folds the layout copies of a switch into a stage's ONNX graph: parts in, parts out, wire conversion included."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from cloud_node.dsp.wire import Wire
from skyshore.domain.errors import InvalidTask

_ELEMENT = {Wire.EXACT: TensorProto.FLOAT, Wire.FP16: TensorProto.FLOAT16}

INPUT, OUTPUT, SIZES = "x", "y", "sizes"
"""Names in an exported stage: the activation in and out. A folded one takes run-time part sizes as well."""


def part_names(name: str, ranks: int) -> list[str]:
    """Names of the parts that replace an input or output."""
    return [f"{name}_{rank}" for rank in range(ranks)]


def fold(
    stage: onnx.ModelProto, ranks: int, wire: Wire, *, join_dim: int | None, cut_dim: int | None
) -> onnx.ModelProto:
    """A stage whose input is joined from `ranks` parts along `join_dim` and whose output is cut along `cut_dim`.

    None leaves that side as it is. Sizes stay run-time values, so one folded graph serves every shape on `ranks`.

    Raises:
        InvalidTask: the wire has no ONNX cast (bf16 and int8 are the torch engine's).
    """
    if wire not in _ELEMENT:
        raise InvalidTask(f"an ONNX stage sends exact or fp16, not {wire}; use the torch engine for it")
    folded = onnx.ModelProto()
    folded.CopyFrom(stage)
    if join_dim is not None:
        _join(folded.graph, ranks, wire, join_dim)
    if cut_dim is not None:
        _cut(folded.graph, ranks, wire, cut_dim)
    onnx.checker.check_model(folded)
    return folded


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


def _part_infos(name: str, ranks: int, wire: Wire) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(part, _ELEMENT[wire], [f"{part}_{axis}" for axis in range(4)])
        for part in part_names(name, ranks)
    ]


def _join(graph: onnx.GraphProto, ranks: int, wire: Wire, dim: int) -> None:
    joined = "joined"
    _rename(graph, INPUT, joined)
    parts = part_names(INPUT, ranks)
    if wire is Wire.EXACT:
        nodes = [helper.make_node("Concat", parts, [joined], axis=dim)]
    else:
        nodes = [
            helper.make_node("Concat", parts, ["joined_narrow"], axis=dim),
            helper.make_node("Cast", ["joined_narrow"], [joined], to=TensorProto.FLOAT),
        ]
    inside = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *inside])
    graph.input.extend(_part_infos(INPUT, ranks, wire))


def _cut(graph: onnx.GraphProto, ranks: int, wire: Wire, dim: int) -> None:
    whole = "uncut"
    _rename(graph, OUTPUT, whole)
    if wire is not Wire.EXACT:
        graph.node.append(helper.make_node("Cast", [whole], ["uncut_narrow"], to=_ELEMENT[wire]))
        whole = "uncut_narrow"
    graph.node.append(helper.make_node("Split", [whole, SIZES], part_names(OUTPUT, ranks), axis=dim))
    del graph.output[:]
    graph.output.extend(_part_infos(OUTPUT, ranks, wire))
    graph.input.append(helper.make_tensor_value_info(SIZES, TensorProto.INT64, [ranks]))
