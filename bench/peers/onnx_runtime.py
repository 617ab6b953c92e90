"""onnxruntime: the network as an ONNX graph of fixed shape, run by its CPU provider. Inference only."""

from __future__ import annotations

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from .base import Peer as Base


class Model:
    def __init__(self, network, weights):
        self.network, self.weights = network, weights


class Peer(Base):
    def version(self):
        return onnxruntime.__version__

    def model(self, network, weights):
        return Model(network, weights)

    def inference(self, model, batch):
        nodes, name, sizes = [], "x", model.network.sizes
        for i in range(len(sizes) - 1):
            nodes.append(helper.make_node("Gemm", [name, f"p{2 * i}", f"p{2 * i + 1}"], [f"z{i}"]))
            name = f"z{i}"
            if i < len(sizes) - 2:
                nodes.append(helper.make_node("Relu", [name], [f"a{i}"]))
                name = f"a{i}"
        graph = helper.make_graph(
            nodes, "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, sizes[0]])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, sizes[-1]])],
            [numpy_helper.from_array(w, f"p{i}") for i, w in enumerate(model.weights)],
        )  # fmt: skip
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(made)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(made.SerializeToString(), options, ["CPUExecutionProvider"])
        return lambda x: session.run(None, {"x": x})[0]
