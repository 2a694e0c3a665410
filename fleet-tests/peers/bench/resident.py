"""One peer of `cargo xtask bench engine`: loads a model once, then does what each line of standard input asks.

    resident.py RUNTIME MODEL TOKENIZER THREADS [BATCH]

RUNTIME is onnxruntime, openvino, openvino-f32 or fastembed. The lines are those of fleet-tests/src/bench/resident.rs: one
JSON object a line each way. What is timed is the whole way from token ids (fastembed: from texts) to unit vectors.
"""

import gc
import json
import os
import pathlib
import sys
import time

import numpy

LIMIT = 1 << 20


def resident_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def unit(vectors: numpy.ndarray) -> numpy.ndarray:
    return vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)


def padded(batch: list[list[int]]) -> dict[str, numpy.ndarray]:
    """A batch in arrival order, padded to its longest sequence: what these runtimes take."""
    longest = max(map(len, batch))
    ids = numpy.zeros((len(batch), longest), dtype=numpy.int64)
    mask = numpy.zeros_like(ids)
    for row, sequence in enumerate(batch):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}


def pooled(hidden: numpy.ndarray, mask: numpy.ndarray) -> numpy.ndarray:
    """The mean over the tokens that are no padding, of length one."""
    if mask.all():
        return unit(hidden.mean(axis=1))
    weights = mask[..., None].astype(numpy.float32)
    return unit((hidden * weights).sum(axis=1) / weights.sum(axis=1))


class Onnxruntime:
    takes = "ids"

    def __init__(self, model: str, _tokenizer: str, threads: int) -> None:
        import onnxruntime

        self.version = onnxruntime.__version__
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def ready(self, batch: list[list[int]]) -> dict[str, numpy.ndarray]:
        return padded(batch)

    def run(self, feed: dict[str, numpy.ndarray]) -> numpy.ndarray:
        return pooled(self.session.run(None, feed)[0], feed["attention_mask"])


class Openvino:
    takes = "ids"
    precision = None

    def __init__(self, model: str, _tokenizer: str, threads: int) -> None:
        import openvino

        self.version = openvino.__version__.split("-")[0]
        wanted = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if self.precision:
            wanted["INFERENCE_PRECISION_HINT"] = self.precision
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(model), "CPU", wanted)
        self.version += f" ({compiled.get_property('INFERENCE_PRECISION_HINT').get_type_name()})"
        self.request = compiled.create_infer_request()

    def ready(self, batch: list[list[int]]) -> dict[str, numpy.ndarray]:
        return padded(batch)

    def run(self, feed: dict[str, numpy.ndarray]) -> numpy.ndarray:
        return pooled(self.request.infer(feed)[0], feed["attention_mask"])


class OpenvinoF32(Openvino):
    precision = "f32"


class Fastembed:
    """From texts: that is all it takes. Its own tokenizer, batching and padding."""

    takes = "texts"

    def __init__(self, model: str, tokenizer: str, threads: int) -> None:
        import importlib.metadata

        import fastembed
        from fastembed.common.model_description import ModelSource, PoolingType

        self.version = importlib.metadata.version("fastembed")
        file = pathlib.Path(model)
        folder = pathlib.Path(tokenizer).parent
        fastembed.TextEmbedding.add_custom_model(
            model="local/model",
            pooling=PoolingType.MEAN,
            normalization=True,
            sources=ModelSource(url="http://127.0.0.1/"),
            dim=384,
            model_file=os.path.relpath(file, folder),
        )
        self.embedding = fastembed.TextEmbedding("local/model", threads=threads, specific_model_path=str(folder))

    def ready(self, batch: list[str]) -> list[str]:
        return batch

    def run(self, batch: list[str]) -> numpy.ndarray:
        return numpy.stack(list(self.embedding.embed(batch, batch_size=len(batch))))


RUNTIMES = {"onnxruntime": Onnxruntime, "openvino": Openvino, "openvino-f32": OpenvinoF32, "fastembed": Fastembed}


def main() -> None:
    runtime, model, tokenizer, threads = sys.argv[1:]
    kind = RUNTIMES[runtime]
    # What the runtime's own modules take is no part of the model's memory, nor importing them of its loading.
    __import__("onnxruntime" if runtime == "fastembed" else runtime.split("-")[0])
    if runtime == "fastembed":
        __import__("fastembed")
    before = resident_bytes()
    began = time.perf_counter()
    peer = kind(model, tokenizer, int(threads))
    peer.run(peer.ready([[101, 102]] if kind.takes == "ids" else ["ready"]))
    loaded = time.perf_counter() - began
    gc.collect()
    held = {}
    answer = {
        "version": peer.version,
        "load_ms": loaded * 1e3,
        "resident_bytes": resident_bytes(),
        "before_bytes": before,
    }
    print(json.dumps({"ready": answer}), flush=True)
    for line in sys.stdin:
        ((what, given),) = json.loads(line).items()
        if what == "hold":
            held = {given["name"]: [peer.ready(batch) for batch in given[kind.takes]]}
            answer = {"held": len(held)}
        elif what == "time":
            batches = held[given["name"]]
            wall, cpu = [], []
            for _ in range(given["turns"]):
                start, start_cpu = time.perf_counter(), time.process_time()
                for batch in batches:
                    peer.run(batch)
                cpu.append((time.process_time() - start_cpu) * 1e3)
                wall.append((time.perf_counter() - start) * 1e3)
            answer = {"took": {"wall_ms": wall, "cpu_ms": cpu}}
        else:
            vectors = [peer.run(peer.ready([one]))[0].tolist() for one in given[kind.takes]]
            answer = {"vectors": vectors}
        print(json.dumps(answer), flush=True)


main()
