"""The same two models for MLServer."""

import asyncio

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from texts import Encoder as Texts


class Encoder(MLModel):
    async def load(self) -> bool:
        self.texts = Texts()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = [text for one in payload.inputs for text in StringCodec.decode_input(one)]
        # Off the event loop, so that requests are read meanwhile.
        vectors = await asyncio.to_thread(self.texts.embed, given)
        output = ResponseOutput(name="embedding", shape=list(vectors.shape), datatype="FP32", data=vectors.ravel().tolist())
        return InferenceResponse(model_name=self.name, outputs=[output])


class Identity(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = payload.inputs[0]
        output = ResponseOutput(name="same", shape=given.shape, datatype=given.datatype, data=given.data)
        return InferenceResponse(model_name=self.name, outputs=[output])
