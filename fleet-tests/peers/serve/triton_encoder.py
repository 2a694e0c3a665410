"""Triton's python backend with onnxruntime: one batch of requests at a time, as its dynamic batcher gives them."""

import os
import sys

# The interpreter inside Triton reads no PYTHONPATH.
sys.path[:0] = os.environ["PEER_PATH"].split(os.pathsep)

import numpy
import triton_python_backend_utils as backend
from texts import Encoder


class TritonPythonModel:
    def initialize(self, _arguments) -> None:
        self.encoder = Encoder()

    def execute(self, requests):
        texts, counts = [], []
        for request in requests:
            given = backend.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)
            texts.extend(text.decode("utf-8") for text in given)
            counts.append(len(given))
        vectors = numpy.split(self.encoder.embed(texts), numpy.cumsum(counts)[:-1])
        return [backend.InferenceResponse([backend.Tensor("embedding", part)]) for part in vectors]
