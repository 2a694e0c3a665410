"""What both peers of `cargo xtask bench serve` compute: unit vectors of texts, by onnxruntime, padded to the longest of a
batch. Where the model lies and how many threads it has comes from the environment: MODEL, TOKENIZER, THREADS."""

import os

import numpy
import onnxruntime
import tokenizers


class Encoder:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THREADS"])
        options.inter_op_num_threads = 1
        # Threads that spin take the processor from those that read requests.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=providers)
        self.inputs = {given.name for given in self.session.get_inputs()}
        self.tokenizer = tokenizers.Tokenizer.from_file(os.environ["TOKENIZER"])
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()
        self.embed(["ready"])

    def embed(self, texts: list[str]) -> numpy.ndarray:
        encodings = self.tokenizer.encode_batch(texts)
        ids = numpy.array([encoding.ids for encoding in encodings], dtype=numpy.int64)
        mask = numpy.array([encoding.attention_mask for encoding in encodings], dtype=numpy.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        hidden = self.session.run(None, {name: feed[name] for name in self.inputs})[0]
        weights = mask[..., None].astype(numpy.float32)
        mean = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        return (mean / numpy.linalg.norm(mean, axis=1, keepdims=True)).astype(numpy.float32)
