"""Writes every form of a BERT encoder that `cargo xtask bench engine` compares, from its float weights.

    variants.py MODEL_FOLDER OUT_FOLDER SENTENCES

MODEL_FOLDER holds config.json, model.safetensors and tokenizer.json. All forms compute the same function from
`input_ids, attention_mask, token_type_ids` (i64[batch, tokens]) to `last_hidden_state` (f32[batch, tokens, width]):

f32          float weights
q8           MatMulNBits in blocks of 64 and GatherBlockQuantized in blocks of 32, 8 bits, scale = max |w| / 127; int8
             activations
q4           the same with the linear weights in 4 bits in blocks of 32 (scale = the value of largest magnitude / -8)
weight8      int8 per output channel at rest, DequantizeLinear before a float MatMul; tables per row
dynamic8     onnxruntime.quantization.quantize_dynamic of f32 (QInt8, per tensor)
dynamic8c    the same per channel
dynamic8f    the same of the graph that onnxruntime.transformers fused first (Attention, SkipLayerNormalization, BiasGelu)
qdq8         static QDQ, u8 activations and int8 weights per channel, calibrated on SENTENCES
identity     one small table of 8 numbers a token: what a request costs on its way to a model, and nothing else
openvino8    OpenVINO's own format, by NNCF's post-training quantization of f32 for transformers, calibrated likewise
"""

import json
import logging
import pathlib
import shutil
import sys

import numpy
import onnx
import onnxruntime
import onnxruntime.quantization
import tokenizers
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

BLOCK = 32
# What `socle model import` chooses for linears.
LINEAR_BLOCK = {"q8": 64, "q4": 32}
OPSET = 17
MICROSOFT = "com.microsoft"


class Graph:
    """Nodes and initializers in the order in which they were asked for."""

    def __init__(self) -> None:
        self.nodes = []
        self.weights = {}

    def add(self, op: str, inputs: list[str], name: str, domain: str = "", **attributes) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def weight(self, name: str, value: numpy.ndarray) -> str:
        self.weights.setdefault(name, numpy.array(value, order="C"))
        return name

    def ints(self, name: str, values: list[int]) -> str:
        return self.weight(name, numpy.array(values, dtype=numpy.int64))

    def floats(self, name: str, value: float) -> str:
        return self.weight(name, numpy.array(value, dtype=numpy.float32))

    def model(self, inputs: list[str], output: str, width: int) -> onnx.ModelProto:
        shape = ["batch", "tokens"]
        graph = helper.make_graph(
            self.nodes,
            "encoder",
            [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in inputs],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [*shape, width])],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain == MICROSOFT for node in self.nodes):
            opsets.append(helper.make_opsetid(MICROSOFT, 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(model, full_check=not any(node.domain for node in self.nodes))
        return model


def blocks_of(weight: numpy.ndarray, bits: int, block: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Codes (unsigned, zero point 2^(bits-1)) and scales of `weight[n, k]` in blocks of `block` along k."""
    rows, width = weight.shape
    blocks = weight.reshape(rows, width // block, block)
    if bits == 8:
        scales = numpy.abs(blocks).max(axis=2) / 127.0
    else:
        at = numpy.abs(blocks).argmax(axis=2)[..., None]
        scales = numpy.take_along_axis(blocks, at, axis=2)[..., 0] / -8.0
    scales = scales.astype(numpy.float32)
    divisor = numpy.where(scales == 0, 1, scales)[..., None]
    zero = 1 << (bits - 1)
    codes = numpy.clip(numpy.rint(blocks / divisor) + zero, 0, (1 << bits) - 1).astype(numpy.uint8)
    if bits == 4:
        codes = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return codes, scales


def linear(graph: Graph, form: str, x: str, name: str, weight: numpy.ndarray, bias: numpy.ndarray) -> str:
    """`x · weightᵀ + bias`; `weight[n, k]` as PyTorch stores it."""
    outputs, inputs = weight.shape
    if form in ("q8", "q4"):
        bits = int(form[1])
        codes, scales = blocks_of(weight, bits, LINEAR_BLOCK[form])
        product = graph.add(
            "MatMulNBits",
            [x, graph.weight(f"{name}.codes", codes), graph.weight(f"{name}.scales", scales.reshape(-1))],
            f"{name}/MatMul",
            MICROSOFT,
            K=inputs,
            N=outputs,
            bits=bits,
            block_size=LINEAR_BLOCK[form],
            accuracy_level=4,
        )
    elif form == "weight8":
        scales = (numpy.abs(weight).max(axis=1) / 127.0).astype(numpy.float32)
        codes = numpy.rint(weight / scales[:, None]).astype(numpy.int8).T
        held = [graph.weight(f"{name}.codes", codes), graph.weight(f"{name}.scales", scales)]
        wide = graph.add("DequantizeLinear", held, f"{name}/Dequantize", axis=1)
        product = graph.add("MatMul", [x, wide], f"{name}/MatMul")
    else:
        product = graph.add("MatMul", [x, graph.weight(f"{name}.weight", weight.T)], f"{name}/MatMul")
    return graph.add("Add", [graph.weight(f"{name}.bias", bias), product], f"{name}/Add")


def gather(graph: Graph, form: str, ids: str, name: str, table: numpy.ndarray) -> str:
    if form in ("q8", "q4"):
        codes, scales = blocks_of(table, 8, BLOCK)
        held = [
            graph.weight(f"{name}.codes", codes.reshape(len(table), -1)),
            ids,
            graph.weight(f"{name}.scales", scales),
        ]
        layout = {"bits": 8, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1}
        return graph.add("GatherBlockQuantized", held, f"{name}/Gather", MICROSOFT, **layout)
    if form == "weight8":
        scales = (numpy.abs(table).max(axis=1, keepdims=True) / 127.0).astype(numpy.float32)
        codes = numpy.rint(table / numpy.where(scales == 0, 1, scales)).astype(numpy.int8)
        small = graph.add("Gather", [graph.weight(f"{name}.codes", codes), ids], f"{name}/Gather")
        row = graph.add("Gather", [graph.weight(f"{name}.scales", scales), ids], f"{name}/Scale")
        wide = graph.add("Cast", [small], f"{name}/Cast", to=TensorProto.FLOAT)
        return graph.add("Mul", [wide, row], f"{name}/Mul")
    return graph.add("Gather", [graph.weight(f"{name}.weight", table), ids], f"{name}/Gather")


def encoder(form: str, config: dict, weights: dict[str, numpy.ndarray]) -> onnx.ModelProto:
    graph = Graph()
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head = width // heads

    def norm(x: str, name: str) -> str:
        held = [graph.weight(f"{name}.{part}", weights[f"{name}.{part}"]) for part in ("weight", "bias")]
        return graph.add("LayerNormalization", [x, *held], name, axis=-1, epsilon=config["layer_norm_eps"])

    def dense(x: str, name: str) -> str:
        return linear(graph, form, x, name, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def table(ids: str, name: str) -> str:
        return gather(graph, form, ids, f"embeddings.{name}", weights[f"embeddings.{name}.weight"])

    shape = graph.add("Shape", ["input_ids"], "shape")
    tokens = graph.add("Gather", [shape, graph.weight("one", numpy.array(1, dtype=numpy.int64))], "tokens")
    tokens = graph.add("Unsqueeze", [tokens, graph.ints("axis.0", [0])], "tokens/Unsqueeze")
    longest = config["max_position_embeddings"]
    positions = graph.weight("positions", numpy.arange(longest, dtype=numpy.int64)[None])
    positions = graph.add("Slice", [positions, graph.ints("from", [0]), tokens, graph.ints("axis.1", [1])], "position_ids")
    x = graph.add("Add", [table("input_ids", "word_embeddings"), table("token_type_ids", "token_type_embeddings")], "types")
    x = graph.add("Add", [x, table(positions, "position_embeddings")], "places")
    x = norm(x, "embeddings.LayerNorm")

    # One axis at a time, as PyTorch exports it: that is the form which onnxruntime fuses.
    mask = graph.add("Unsqueeze", ["attention_mask", graph.ints("axis.1", [1])], "mask/Unsqueeze.1")
    mask = graph.add("Unsqueeze", [mask, graph.ints("axis.2", [2])], "mask/Unsqueeze.2")
    mask = graph.add("Cast", [mask], "mask/Cast", to=TensorProto.FLOAT)
    mask = graph.add("Sub", [graph.floats("unit", 1.0), mask], "mask/Sub")
    mask = graph.add("Mul", [mask, graph.floats("far", -10000.0)], "mask")

    apart = graph.ints("apart", [0, 0, heads, head])
    together = graph.ints("together", [0, 0, width])
    root = graph.floats("root", float(numpy.sqrt(head)))
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"

        def split(part: str, order: list[int]) -> str:
            name = f"{at}.attention.self.{part}"
            apart_now = graph.add("Reshape", [dense(x, name), apart], f"{name}/Reshape")
            return graph.add("Transpose", [apart_now], f"{name}/Transpose", perm=order)

        query, key, value = split("query", [0, 2, 1, 3]), split("key", [0, 2, 3, 1]), split("value", [0, 2, 1, 3])
        scores = graph.add("MatMul", [query, key], f"{at}/scores")
        scores = graph.add("Div", [scores, root], f"{at}/scaled")
        scores = graph.add("Add", [scores, mask], f"{at}/masked")
        scores = graph.add("Softmax", [scores], f"{at}/softmax", axis=-1)
        context = graph.add("MatMul", [scores, value], f"{at}/context")
        context = graph.add("Transpose", [context], f"{at}/context/Transpose", perm=[0, 2, 1, 3])
        context = graph.add("Reshape", [context, together], f"{at}/context/Reshape")
        context = dense(context, f"{at}.attention.output.dense")
        x = norm(graph.add("Add", [context, x], f"{at}/attended"), f"{at}.attention.output.LayerNorm")
        inner = dense(x, f"{at}.intermediate.dense")
        bent = graph.add("Div", [inner, graph.floats("root2", float(numpy.sqrt(2.0)))], f"{at}/gelu/Div")
        bent = graph.add("Erf", [bent], f"{at}/gelu/Erf")
        bent = graph.add("Add", [bent, graph.floats("unit", 1.0)], f"{at}/gelu/Add")
        bent = graph.add("Mul", [inner, bent], f"{at}/gelu/Mul")
        bent = graph.add("Mul", [bent, graph.floats("half", 0.5)], f"{at}/gelu")
        outer = dense(bent, f"{at}.output.dense")
        x = norm(graph.add("Add", [outer, x], f"{at}/fed"), f"{at}.output.LayerNorm")
    graph.add("Identity", [x], "last_hidden_state")
    return graph.model(["input_ids", "attention_mask", "token_type_ids"], "last_hidden_state", width)


def identity(vocabulary: int) -> onnx.ModelProto:
    graph = Graph()
    rows = numpy.arange(vocabulary * 8, dtype=numpy.float32).reshape(vocabulary, 8) / vocabulary
    graph.add("Gather", [graph.weight("rows", rows), "input_ids"], "last_hidden_state")
    return graph.model(["input_ids"], "last_hidden_state", 8)


def fused(source: pathlib.Path, config: dict, target: pathlib.Path) -> None:
    """What onnxruntime's own tool makes of the graph before it is quantized."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("bert")
    heads, width = config["num_attention_heads"], config["hidden_size"]
    model = optimizer.optimize_model(
        str(source), "bert", num_heads=heads, hidden_size=width, optimization_options=options, opt_level=0
    )
    print(json.dumps({"fused": model.get_fused_operator_statistics()}), file=sys.stderr)
    model.save_model_to_file(str(target))


class Sentences(onnxruntime.quantization.CalibrationDataReader):
    """The sentences of the repository, one at a time."""

    def __init__(self, tokenizer: pathlib.Path, sentences: pathlib.Path) -> None:
        reader = tokenizers.Tokenizer.from_file(str(tokenizer))
        reader.no_padding()
        lines = [line for line in sentences.read_text(encoding="utf-8").splitlines() if line.strip()]
        self.feeds = iter([feed(encoding.ids) for encoding in reader.encode_batch(lines)])

    def get_next(self):
        return next(self.feeds, None)


def by_nncf(source: pathlib.Path, tokenizer: pathlib.Path, sentences: pathlib.Path, target: pathlib.Path) -> None:
    """OpenVINO's own way to int8."""
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    feeds = list(Sentences(tokenizer, sentences).feeds)
    model = openvino.Core().read_model(source)
    kind = nncf.ModelType.TRANSFORMER
    model = nncf.quantize(model, nncf.Dataset(feeds), model_type=kind, subset_size=len(feeds))
    openvino.save_model(model, target, compress_to_fp16=False)


def feed(ids: list[int]) -> dict[str, numpy.ndarray]:
    row = numpy.array([ids], dtype=numpy.int64)
    return {"input_ids": row, "attention_mask": numpy.ones_like(row), "token_type_ids": numpy.zeros_like(row)}


def main() -> None:
    source, out, sentences = (pathlib.Path(word) for word in sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    # fastembed wants these beside the model.
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(source / name, out / name)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    weights = load_file(source / "model.safetensors")
    for form in ("f32", "q8", "q4", "weight8"):
        onnx.save(encoder(form, config, weights), out / f"{form}.onnx")
    onnx.save(identity(config["vocab_size"]), out / "identity.onnx")
    quantization = onnxruntime.quantization
    dynamic = {"weight_type": quantization.QuantType.QInt8}
    quantization.quantize_dynamic(out / "f32.onnx", out / "dynamic8.onnx", **dynamic)
    quantization.quantize_dynamic(out / "f32.onnx", out / "dynamic8c.onnx", per_channel=True, **dynamic)
    fused(out / "f32.onnx", config, out / "fused.onnx")
    # Types cannot be inferred through the fused operators, but there is only one.
    float_type = {"DefaultTensorType": TensorProto.FLOAT}
    quantization.quantize_dynamic(out / "fused.onnx", out / "dynamic8f.onnx", extra_options=float_type, **dynamic)
    quantization.quantize_static(
        out / "f32.onnx",
        out / "qdq8.onnx",
        Sentences(source / "tokenizer.json", sentences),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["MatMul", "Gather"],
        nodes_to_exclude=["tokens"],
    )
    by_nncf(out / "f32.onnx", source / "tokenizer.json", sentences, out / "openvino8.xml")
    print(json.dumps(sorted(path.name for path in out.glob("*.onnx"))))


main()
