"""Asks an agent with clients as they come from the package index, one library a process.

    clients.py LIBRARY URL MODEL < token

Prints one JSON object a line: {"client", "version", "check", "ok", "detail"}. Each answer is held against the same
question asked with nothing but Python's own HTTP client.
"""

import asyncio
import base64
import importlib.metadata
import json
import os
import queue
import struct
import sys
import tempfile
import urllib.request

TEXTS = ["How do I reset my password?", "Où est l'imprimante du deuxième étage ?"]
CLOSE = 1e-6


class Agent:
    """Where the agent is, and what it says without any client's help."""

    def __init__(self, url, model, token):
        self.url, self.model, self.token = url.rstrip("/"), model, token
        self.host = self.url.removeprefix("http://")

    def post(self, path, body):
        request = urllib.request.Request(
            self.url + path,
            json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def vectors(self):
        data = self.post("/v1/embeddings", {
            "model": self.model, "input": TEXTS, "encoding_format": "base64"})["data"]
        raw = [base64.b64decode(row["embedding"]) for row in data]
        return [list(struct.unpack(f"<{len(row) // 4}f", row)) for row in raw]

    @property
    def headers(self):
        return {"authorization": f"Bearer {self.token}"}


def same(found, expected):
    found = [[float(number) for number in row] for row in found]
    assert len(found) == len(expected), f"{len(found)} rows, expected {len(expected)}"
    for one, other in zip(found, expected):
        assert len(one) == len(other), f"{len(one)} numbers, expected {len(other)}"
        worst = max(abs(a - b) for a, b in zip(one, other))
        assert worst <= CLOSE, f"a number differs by {worst}"
    return f"{len(found)} × {len(found[0])} numbers equal"


def refused(kind, call, *words):
    """That `call` raises `kind`, whose text holds `words`."""
    try:
        call()
    except kind as error:
        text = str(error)
        assert all(word in text for word in words), text
        return f"{type(error).__name__}: {text[:90]}"
    raise AssertionError(f"no {kind.__name__} was raised")


def tritonclient_http(agent, check):
    import numpy as np
    import tritonclient.http as triton

    client = triton.InferenceServerClient(agent.host)
    texts = np.array([text.encode() for text in TEXTS], dtype=object)

    def infer(binary_in, binary_out):
        tensor = triton.InferInput("text", [len(TEXTS)], "BYTES")
        tensor.set_data_from_numpy(texts, binary_data=binary_in)
        output = triton.InferRequestedOutput("embedding", binary_data=binary_out)
        answer = client.infer(agent.model, [tensor], outputs=[output], request_id="7",
                              headers=agent.headers)
        assert answer.get_response()["id"] == "7"
        return same(answer.as_numpy("embedding"), agent.vectors())

    def defaults():
        tensor = triton.InferInput("text", [len(TEXTS)], "BYTES")
        tensor.set_data_from_numpy(texts)
        answer = client.infer(agent.model, [tensor], headers=agent.headers)
        return same(answer.as_numpy("embedding"), agent.vectors())

    def described():
        assert "binary_tensor_data" in client.get_server_metadata(headers=agent.headers)["extensions"]
        metadata = client.get_model_metadata(agent.model, headers=agent.headers)
        config = client.get_model_config(agent.model, headers=agent.headers)
        assert metadata["outputs"][0]["shape"] == config["output"][0]["dims"]
        return f"{metadata['platform']}, output {metadata['outputs'][0]['shape']}"

    def statistics():
        stats = client.get_inference_statistics(agent.model, headers=agent.headers)["model_stats"][0]
        assert stats["inference_count"] > 0 and stats["inference_stats"]["success"]["count"] > 0
        return f"{stats['inference_count']} inferences"

    def index():
        models = client.get_model_repository_index(headers=agent.headers)
        assert any(model["name"] == agent.model and model["state"] == "READY" for model in models)
        return f"{len(models)} models"

    error = triton.InferenceServerException if hasattr(triton, "InferenceServerException") else None
    if error is None:
        from tritonclient.utils import InferenceServerException as error
    check("live and ready", lambda: all([
        client.is_server_live(headers=agent.headers), client.is_server_ready(headers=agent.headers),
        client.is_model_ready(agent.model, headers=agent.headers)]) or 1 / 0)
    check("metadata and configuration", described)
    check("infer, its defaults", defaults)
    for binary_in in (True, False):
        for binary_out in (True, False):
            form = {True: "bytes", False: "JSON"}
            check(f"infer, {form[binary_in]} in, {form[binary_out]} out",
                  lambda: infer(binary_in, binary_out))
    check("statistics", statistics)
    check("repository index", index)
    check("an unknown model is an error", lambda: refused(
        error, lambda: client.get_model_metadata("gpt", headers=agent.headers), "no model `gpt`"))
    check("loading is refused", lambda: refused(
        error, lambda: client.load_model(agent.model, headers=agent.headers), "signed release"))
    check("no token, no answer", lambda: refused(
        error, lambda: client.get_server_metadata(), "Authorization"))


def tritonclient_grpc(agent, check):
    import numpy as np
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException as error

    client = triton.InferenceServerClient(agent.host)
    texts = np.array([text.encode() for text in TEXTS], dtype=object)

    def tensor():
        given = triton.InferInput("text", [len(TEXTS)], "BYTES")
        given.set_data_from_numpy(texts)
        return given

    def infer():
        answer = client.infer(agent.model, [tensor()], request_id="7", headers=agent.headers)
        assert answer.get_response().id == "7"
        return same(answer.as_numpy("embedding"), agent.vectors())

    def many():
        answers = queue.Queue()
        for _ in range(16):
            client.async_infer(agent.model, [tensor()], headers=agent.headers,
                               callback=lambda result, error: answers.put((result, error)))
        expected = agent.vectors()
        for _ in range(16):
            result, failed = answers.get(timeout=60)
            assert failed is None, failed
            said = same(result.as_numpy("embedding"), expected)
        return said

    def described():
        assert "statistics" in client.get_server_metadata(headers=agent.headers).extensions
        metadata = client.get_model_metadata(agent.model, headers=agent.headers)
        config = client.get_model_config(agent.model, headers=agent.headers).config
        assert list(metadata.outputs[0].shape) == list(config.output[0].dims)
        return f"{metadata.platform}, output {list(metadata.outputs[0].shape)}"

    def statistics():
        stats = client.get_inference_statistics(agent.model, headers=agent.headers).model_stats[0]
        assert stats.inference_count > 0
        return f"{stats.inference_count} inferences"

    def index():
        models = client.get_model_repository_index(headers=agent.headers).models
        assert any(model.name == agent.model and model.state == "READY" for model in models)
        return f"{len(models)} models"

    check("live and ready", lambda: all([
        client.is_server_live(headers=agent.headers), client.is_server_ready(headers=agent.headers),
        client.is_model_ready(agent.model, headers=agent.headers)]) or 1 / 0)
    check("metadata and configuration", described)
    check("infer", infer)
    check("16 calls at once", many)
    check("statistics", statistics)
    check("repository index", index)
    check("an unknown model is an error", lambda: refused(
        error, lambda: client.get_model_metadata("gpt", headers=agent.headers), "NOT_FOUND"))
    check("loading is refused", lambda: refused(
        error, lambda: client.load_model(agent.model, headers=agent.headers), "signed release"))
    check("no token, no answer", lambda: refused(
        error, lambda: client.get_server_metadata(), "UNAUTHENTICATED"))


def kserve(agent, check):
    from kserve import InferInput, InferRequest, InferenceGRPCClient, InferenceRESTClient, RESTConfig

    def request():
        tensor = InferInput("text", [len(TEXTS)], "BYTES", data=TEXTS)
        return InferRequest(model_name=agent.model, infer_inputs=[tensor])

    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    metadata = (("authorization", f"Bearer {agent.token}"),)

    async def over_rest():
        answer = await rest.infer(agent.url, request(), agent.model, headers=agent.headers)
        return same(answer.outputs[0].as_numpy(), agent.vectors())

    async def state():
        assert await rest.is_server_live(agent.url, headers=agent.headers)
        assert await rest.is_server_ready(agent.url, headers=agent.headers)
        assert await rest.is_model_ready(agent.url, agent.model, headers=agent.headers)
        return "live, server ready, model ready"

    async def over_grpc():
        client = InferenceGRPCClient(agent.host)
        try:
            answer = await client.infer(request(), headers=metadata)
            return same(answer.outputs[0].as_numpy(), agent.vectors())
        finally:
            await client.close()

    async def grpc_state():
        client = InferenceGRPCClient(agent.host)
        try:
            assert await client.is_server_ready(headers=metadata)
            assert await client.is_model_ready(agent.model, headers=metadata)
            return "server ready, model ready"
        finally:
            await client.close()

    loop = asyncio.new_event_loop()
    check("REST: infer", lambda: loop.run_until_complete(over_rest()))
    check("REST: live and ready", lambda: loop.run_until_complete(state()))
    check("gRPC: infer", lambda: loop.run_until_complete(over_grpc()))
    check("gRPC: ready", lambda: loop.run_until_complete(grpc_state()))


def openai(agent, check):
    import openai as library

    client = library.OpenAI(base_url=f"{agent.url}/v1", api_key=agent.token, max_retries=0)

    def embed(**more):
        answer = client.embeddings.create(model=agent.model, input=TEXTS, user="u", **more)
        assert answer.usage.total_tokens > 0
        return same([row.embedding for row in answer.data], agent.vectors())

    def models():
        names = [model.id for model in client.models.list()]
        assert agent.model in names and client.models.retrieve(agent.model).id == agent.model
        return ", ".join(names)

    stranger = library.OpenAI(base_url=f"{agent.url}/v1", api_key="wrong", max_retries=0)
    check("embeddings, its default (base64)", embed)
    check("embeddings, float", lambda: embed(encoding_format="float"))
    check("models", models)
    check("an unknown model is NotFoundError", lambda: refused(
        library.NotFoundError, lambda: client.embeddings.create(model="gpt", input="a"), "gpt"))
    check("an empty text is BadRequestError", lambda: refused(
        library.BadRequestError, lambda: client.embeddings.create(model=agent.model, input=""), "empty"))
    check("a wrong token is AuthenticationError", lambda: refused(
        library.AuthenticationError, lambda: list(stranger.models.list())))


def huggingface_hub(agent, check):
    from huggingface_hub import InferenceClient

    client = InferenceClient(token=agent.token)

    def embed(url):
        return same([client.feature_extraction(text, model=url)[0] for text in TEXTS], agent.vectors())

    def alike():
        scores = client.sentence_similarity(TEXTS[0], [TEXTS[0], TEXTS[1]], model=f"{agent.url}/similarity")
        assert abs(scores[0] - 1) < 1e-5 and scores[1] < 0.9, scores
        return str([round(score, 3) for score in scores])

    check("feature_extraction at /embed", lambda: embed(f"{agent.url}/embed"))
    check("feature_extraction at the server's address", lambda: embed(agent.url))
    check("sentence_similarity", alike)


def cohere(agent, check):
    import cohere as library

    documents = ["The cafeteria opens at noon.", TEXTS[0], "Parking is on level two."]

    def rerank(client, **more):
        answer = client.rerank(model=agent.model, query="I forgot my password",
                               documents=documents, top_n=2, **more)
        assert [result.index for result in answer.results][0] == 1, answer
        assert len(answer.results) == 2
        return f"best is document {answer.results[0].index}, {answer.results[0].relevance_score:.3f}"

    one = library.Client(api_key=agent.token, base_url=agent.url)
    two = library.ClientV2(api_key=agent.token, base_url=agent.url)
    check("rerank, version 1", lambda: rerank(one))
    check("rerank, version 2", lambda: rerank(two))
    check("an unknown model is NotFoundError", lambda: refused(
        library.errors.NotFoundError, lambda: two.rerank(model="gpt", query="a", documents=["b"]), "gpt"))


def mlflow(agent, check):
    import pandas
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    host, port = agent.host.split(":")
    # This client takes no token; its HTTP library takes a password from a file.
    netrc = tempfile.NamedTemporaryFile("w", suffix="netrc")
    netrc.write(f"machine {host} login socle password {agent.token}\n")
    netrc.flush()
    os.environ["NETRC"] = netrc.name
    client = ScoringServerClient(host, port)

    def invoke(data):
        predictions = json.loads(client.invoke(data).to_json())["predictions"]
        return same(predictions, agent.vectors())

    check("ping and version", lambda: client.ping() or client.get_version())
    check("invoke, a data frame", lambda: invoke(pandas.DataFrame({"text": TEXTS})))
    check("invoke, a list", lambda: invoke(TEXTS))
    check("a row that is no text is an error", lambda: refused(
        Exception, lambda: invoke(pandas.DataFrame({"text": [1]})), "row 0 is not a text"))


LIBRARIES = {
    "tritonclient-http": ("tritonclient", tritonclient_http),
    "tritonclient-grpc": ("tritonclient", tritonclient_grpc),
    "kserve": ("kserve", kserve),
    "openai": ("openai", openai),
    "huggingface_hub": ("huggingface_hub", huggingface_hub),
    "cohere": ("cohere", cohere),
    "mlflow": ("mlflow-skinny", mlflow),
}


def main():
    library, url, model = sys.argv[1:4]
    agent = Agent(url, model, sys.stdin.read().strip())
    package, run = LIBRARIES[library]
    version = importlib.metadata.version(package)

    def check(name, work):
        try:
            ok, detail = True, str(work())
        except Exception as error:  # noqa: BLE001 - whatever a client raises is a finding
            ok, detail = False, f"{type(error).__name__}: {error}"
        print(json.dumps({"client": library, "version": version, "check": name, "ok": ok,
                          "detail": detail[:300]}), flush=True)

    run(agent, check)


main()
