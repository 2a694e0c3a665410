"""Asks an agent and Triton the same things, good and bad, and says what each answered.

    differences.py < JSON of {"model", "socle": {"rest", "grpc", "version", "token"}, "triton": {"rest", "grpc", "version"}}

Prints one JSON object a line: {"case", "socle", "triton", "said"}. An answer is put into few words: HTTP's status or
gRPC's code, and what a client reads of it. The words of errors are each server's own: `said` holds them, and nobody
compares them.
"""

import gzip
import http.client
import json
import struct
import sys
import time

import grpc
import numpy
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as services

TEXTS = ["How do I reset my password?", "Where is the printer?"]
WAIT = 60
CLOSE = 0.999
NO_ANSWER = "the connection is closed"


def packed(*texts):
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


BYTES = [text.encode() for text in TEXTS]
BINARY = packed(BYTES[0])


class Answer:
    """What came back, whatever carried it."""

    def __init__(self, status, body=b"", headers=None, message=None):
        self.status, self.body, self.headers, self.message = status, body, headers or {}, message

    @property
    def json(self):
        length = self.headers.get("inference-header-content-length")
        return json.loads(self.body[: int(length)] if length else self.body)


class Server:
    def __init__(self, at, model):
        self.rest_at, self.token = at["rest"], at.get("token")
        self.model, self.version = model, at["version"]
        self.channel = grpc.insecure_channel(at["grpc"])
        self.stub = services.GRPCInferenceServiceStub(self.channel)

    def fill(self, text):
        return text.replace("{m}", self.model).replace("{v}", self.version)

    def rest(self, method, path, body=None, headers=None, token=True):
        connection = http.client.HTTPConnection(self.rest_at, timeout=WAIT)
        headers = dict(headers or {})
        if token and self.token:
            headers["authorization"] = f"Bearer {self.token}"
        try:
            connection.request(method, self.fill(path), body, headers)
            answer = connection.getresponse()
            body = answer.read()
            return Answer(str(answer.status), body, {name.lower(): value for name, value in answer.getheaders()})
        except (OSError, http.client.HTTPException) as error:
            return Answer(NO_ANSWER, str(error).encode())
        finally:
            connection.close()

    @property
    def metadata(self):
        return [("authorization", f"Bearer {self.token}")] if self.token else []

    def grpc(self, method, message, **more):
        return self.grpc_by(getattr(self.stub, method), message, **more)

    def grpc_by(self, call, message, **more):
        try:
            return Answer("OK", message=call(message, timeout=WAIT, metadata=self.metadata, **more))
        except grpc.RpcError as error:
            return Answer(error.code().name, error.details().encode())


# What a client reads of an answer.


def plain(answer):
    """Status, and the shape of the body."""
    if answer.message is not None or answer.status.isupper() or answer.status == NO_ANSWER:
        return answer.status
    if not answer.body:
        return f"{answer.status}, no body"
    try:
        body = answer.json
    except ValueError:
        return f"{answer.status}, not JSON"
    if isinstance(body, dict) and isinstance(body.get("error"), str):
        return f"{answer.status}, `error`"
    if isinstance(body, dict):
        return f"{answer.status}, " + ", ".join(f"`{key}`" for key in sorted(body))
    return f"{answer.status}, a list of {len(body)}"


def field(*path):
    """One member of the JSON."""

    def look(answer):
        if answer.status != "200":
            return plain(answer)
        found = answer.json
        for step in path:
            found = found[step] if isinstance(step, int) or step in found else None
        return json.dumps(found)

    return look


def keys(*path):
    def look(answer):
        if answer.status != "200":
            return plain(answer)
        found = answer.json
        for step in path:
            found = found[step]
        return ", ".join(sorted(found))

    return look


def extensions(answer):
    return ", ".join(sorted(answer.json["extensions"] if answer.message is None else answer.message.extensions))


def tensors(answer):
    """Of an inference: who answers, and what each tensor is."""
    if answer.status != "200":
        return plain(answer)
    body, tail = answer.json, len(answer.body) - int(answer.headers.get("inference-header-content-length") or 0)
    said = [f"id {body['id']}"] if "id" in body else []
    for output in body["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        how = f"{size} bytes" if size else f"{len(numpy.ravel(output['data']))} numbers"
        said.append(f"{output['name']} {output['datatype']} {output['shape']} as {how}")
        if size and size != tail:
            said.append(f"{tail} bytes follow")
    return "200, " + ", ".join(said)


def grpc_tensors(answer):
    if answer.message is None:
        return plain(answer)
    message = answer.message
    said = [f"id {message.id}"] if message.id else []
    raw = list(message.raw_output_contents)
    for output in message.outputs:
        how = f"{len(raw.pop(0))} bytes" if raw else f"{len(output.contents.fp32_contents)} numbers"
        said.append(f"{output.name} {output.datatype} {list(output.shape)} as {how}")
    return "OK, " + ", ".join(said)


def coded(answer):
    return f"{answer.status}, encoding {answer.headers.get('content-encoding', 'none')}"


# What is asked.


def tensor(**changes):
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": TEXTS[:1], **changes}
    return {key: value for key, value in tensor.items() if value is not None}


def infer(*inputs, path="/v2/models/{m}/infer", headers=None, **more):
    body = {"inputs": list(inputs), **more}
    return lambda server: server.rest("POST", path, json.dumps(body), headers)


def binary(tail, size, data=None, length=None, header=True, **more):
    """A tensor as bytes behind the JSON."""
    parameters = {} if size is None else {"binary_data_size": size}
    body = json.dumps({"inputs": [tensor(data=data, parameters=parameters)], **more}).encode()
    headers = {"inference-header-content-length": str(len(body) if length is None else length)} if header else {}
    return lambda server: server.rest("POST", "/v2/models/{m}/infer", body + tail, headers)


def get(path, **more):
    return lambda server: server.rest("GET", path, **more)


def post(path, body="", **more):
    return lambda server: server.rest("POST", path, body, **more)


def chunked(server):
    body = json.dumps({"inputs": [tensor()]}).encode()
    return server.rest("POST", "/v2/models/{m}/infer", iter([body[:20], body[20:]]))


def counted(which):
    """By how much a counter grows when two texts are asked in one request."""

    def ask(server):
        path = "/v2/models/{m}/stats"
        count = lambda: server.rest("GET", path).json["model_stats"][0][which]
        before = count()
        infer(tensor(shape=[2], data=TEXTS))(server)
        # Triton counts a request some time after its answer.
        for _ in range(WAIT * 20):
            if count() > before:
                break
            time.sleep(0.05)
        return Answer("200", json.dumps(count() - before).encode())

    return ask


INFER = "/v2/models/{m}/infer"
OUT = {"name": "embedding"}
REST = [
    ("live", get("/v2/health/live"), plain),
    ("ready", get("/v2/health/ready"), plain),
    ("server: members", get("/v2"), plain),
    ("server: extensions", get("/v2"), extensions),
    ("metadata: members", get("/v2/models/{m}"), plain),
    ("metadata: platform", get("/v2/models/{m}"), field("platform")),
    ("metadata: versions", get("/v2/models/{m}"), field("versions")),
    ("metadata: inputs", get("/v2/models/{m}"), field("inputs")),
    ("metadata: outputs", get("/v2/models/{m}"), field("outputs")),
    ("metadata of this version", get("/v2/models/{m}/versions/{v}"), plain),
    ("metadata of an unknown version", get("/v2/models/{m}/versions/99"), plain),
    ("metadata of a version that is no number", get("/v2/models/{m}/versions/new"), plain),
    ("metadata of an unknown model", get("/v2/models/gpt"), plain),
    ("model ready", get("/v2/models/{m}/ready"), plain),
    ("this version ready", get("/v2/models/{m}/versions/{v}/ready"), plain),
    ("an unknown version ready", get("/v2/models/{m}/versions/99/ready"), plain),
    ("an unknown model ready", get("/v2/models/gpt/ready"), plain),
    ("config: members", get("/v2/models/{m}/config"), keys()),
    ("config: max_batch_size", get("/v2/models/{m}/config"), field("max_batch_size")),
    ("config: type of the input", get("/v2/models/{m}/config"), field("input", 0, "data_type")),
    ("config: size of the input", get("/v2/models/{m}/config"), field("input", 0, "dims")),
    ("config: type of the output", get("/v2/models/{m}/config"), field("output", 0, "data_type")),
    ("config: size of the output", get("/v2/models/{m}/config"), field("output", 0, "dims")),
    ("config: version policy", get("/v2/models/{m}/config"), field("version_policy")),
    ("config of an unknown model", get("/v2/models/gpt/config"), plain),
    ("statistics: members", get("/v2/models/{m}/stats"), keys("model_stats", 0)),
    ("statistics: times", get("/v2/models/{m}/stats"), keys("model_stats", 0, "inference_stats")),
    ("statistics of all models", get("/v2/models/stats"), plain),
    ("statistics of an unknown model", get("/v2/models/gpt/stats"), plain),
    ("statistics: inferences of a request of two texts", counted("inference_count"), lambda answer: answer.body.decode()),
    ("statistics: executions of it", counted("execution_count"), lambda answer: answer.body.decode()),
    ("index", post("/v2/repository/index", "{}"), keys(0)),
    ("index without a body", post("/v2/repository/index"), keys(0)),
    ("index of those that are ready", post("/v2/repository/index", '{"ready": true}'), field(0, "state")),
    ("index of what is no JSON", post("/v2/repository/index", "x"), plain),
    ("index by GET", get("/v2/repository/index"), plain),
    ("load", post("/v2/repository/models/{m}/load"), plain),
    ("unload", post("/v2/repository/models/{m}/unload"), plain),
    ("infer", infer(tensor()), tensors),
    ("infer, two texts", infer(tensor(shape=[2], data=TEXTS)), tensors),
    ("infer by version", infer(tensor(), path="/v2/models/{m}/versions/{v}/infer"), tensors),
    ("infer, data nested as rows", infer(tensor(shape=[2], data=[[TEXTS[0]], [TEXTS[1]]])), tensors),
    ("infer, shape [1, 1]", infer(tensor(shape=[1, 1])), tensors),
    ("infer with an id", infer(tensor(), id="a-7"), tensors),
    ("infer with an empty id", infer(tensor(), id=""), tensors),
    ("infer, outputs named", infer(tensor(), outputs=[OUT]), tensors),
    ("infer, no outputs in the list", infer(tensor(), outputs=[]), tensors),
    ("infer with a parameter nobody knows", infer(tensor(), parameters={"colour": "red"}), tensors),
    ("infer with a priority and a time limit", infer(tensor(), parameters={"priority": 1, "timeout": 9000000}), tensors),
    ("infer in pieces (chunked)", chunked, tensors),
    ("infer as text/plain", infer(tensor(), headers={"content-type": "text/plain"}), tensors),
    ("infer, body in gzip", lambda server: server.rest(
        "POST", INFER, gzip.compress(json.dumps({"inputs": [tensor()]}).encode()), {"content-encoding": "gzip"}), tensors),
    ("infer, answer wanted in gzip", infer(tensor(), headers={"accept-encoding": "gzip"}), coded),
    ("infer, tensor as bytes", binary(BINARY, len(BINARY)), tensors),
    ("infer, answer as bytes by parameter", infer(tensor(), parameters={"binary_data_output": True}), tensors),
    ("infer, answer as bytes by output", infer(tensor(), outputs=[{**OUT, "parameters": {"binary_data": True}}]), tensors),
    ("infer, bytes both ways", binary(BINARY, len(BINARY), parameters={"binary_data_output": True}), tensors),
    ("infer, one output as bytes and one parameter against it", infer(
        tensor(), parameters={"binary_data_output": True}, outputs=[{**OUT, "parameters": {"binary_data": False}}]), tensors),
    ("unknown model", infer(tensor(), path="/v2/models/gpt/infer"), tensors),
    ("unknown version", infer(tensor(), path="/v2/models/{m}/versions/99/infer"), tensors),
    ("another name for the input", infer(tensor(name="query")), tensors),
    ("an input too many", infer(tensor(), tensor(name="query")), tensors),
    ("the input twice", infer(tensor(), tensor()), tensors),
    ("no inputs in the list", infer(), tensors),
    ("no list of inputs", post(INFER, "{}"), tensors),
    ("no name", infer(tensor(name=None)), tensors),
    ("no datatype", infer(tensor(datatype=None)), tensors),
    ("no shape", infer(tensor(shape=None)), tensors),
    ("no data", infer(tensor(data=None)), tensors),
    ("datatype FP32", infer(tensor(datatype="FP32", data=[1.0])), tensors),
    ("datatype FP32 with texts", infer(tensor(datatype="FP32")), tensors),
    ("a datatype nobody knows", infer(tensor(datatype="TEXT")), tensors),
    ("datatype in small letters", infer(tensor(datatype="bytes")), tensors),
    ("a shape above the data", infer(tensor(shape=[2])), tensors),
    ("a shape below the data", infer(tensor(data=TEXTS)), tensors),
    ("a shape of no dimension", infer(tensor(shape=[])), tensors),
    ("a shape of no text", infer(tensor(shape=[0], data=[])), tensors),
    ("a shape of three dimensions", infer(tensor(shape=[1, 1, 1])), tensors),
    ("a negative shape", infer(tensor(shape=[-1])), tensors),
    ("a shape of text", infer(tensor(shape="[1]")), tensors),
    ("a shape that overflows", infer(tensor(shape=[4611686018427387904])), tensors),
    ("a number as data", infer(tensor(data=[7])), tensors),
    ("null as data", infer(tensor(data=[None])), tensors),
    ("an object as data", infer(tensor(data=[{"text": "a"}])), tensors),
    ("a string instead of a list", infer(tensor(data="a")), tensors),
    ("an unknown output", infer(tensor(), outputs=[{"name": "logits"}]), tensors),
    ("the output twice", infer(tensor(), outputs=[OUT, OUT]), tensors),
    ("an empty text", infer(tensor(data=[""])), tensors),
    ("a text of 2,000 words", infer(tensor(data=["word " * 2000])), tensors),
    ("1,000 texts", infer(tensor(shape=[1000], data=TEXTS[:1] * 1000)), tensors),
    ("a body of 3 MB", infer(tensor(data=["a" * 3_000_000])), tensors),
    ("no body", post(INFER), tensors),
    ("a body that is no JSON", post(INFER, "inputs"), tensors),
    ("a body that is a list", post(INFER, "[]"), tensors),
    ("a body that goes on after its JSON", post(INFER, json.dumps({"inputs": [tensor()]}) + "}"), tensors),
    ("infer by GET", get(INFER), tensors),
    ("infer by PUT", lambda server: server.rest("PUT", INFER, json.dumps({"inputs": [tensor()]})), tensors),
    ("binary size too large", binary(BINARY, len(BINARY) + 4), tensors),
    ("binary size too small", binary(BINARY, len(BINARY) - 4), tensors),
    ("binary size negative", binary(BINARY, -1), tensors),
    ("binary size a text", binary(BINARY, "31"), tensors),
    ("binary size and data", binary(BINARY, len(BINARY), data=TEXTS[:1]), tensors),
    ("bytes behind, no binary size", binary(BINARY, None, data=TEXTS[:1]), tensors),
    ("bytes behind, no length of the JSON", binary(BINARY, len(BINARY), header=False), tensors),
    ("length of the JSON above the body", binary(BINARY, len(BINARY), length=100000), tensors),
    ("length of the JSON too small", binary(BINARY, len(BINARY), length=10), tensors),
    ("length of the JSON no number", binary(BINARY, len(BINARY), length="many"), tensors),
    ("an element longer than the bytes", binary(struct.pack("<I", 400) + b"abc", 7), tensors),
    ("bytes that end within a length", binary(BINARY + b"\1", len(BINARY) + 1), tensors),
    ("two elements where the shape says one", binary(packed(*BYTES), len(packed(*BYTES))), tensors),
    ("bytes that are no UTF-8", binary(packed(b"\xff\xfe"), 6), tensors),
    ("shared memory", infer(tensor(data=None, parameters={
        "shared_memory_region": "r", "shared_memory_byte_size": 8})), tensors),
    ("classes of an output", infer(tensor(), outputs=[{**OUT, "parameters": {"classification": 2}}]), tensors),
    ("a sequence", infer(tensor(), parameters={"sequence_id": 1, "sequence_start": True}), tensors),
    ("shared memory regions", get("/v2/systemsharedmemory/status"), plain),
    ("trace settings", get("/v2/trace/setting"), plain),
    ("log settings", get("/v2/logging"), plain),
    ("a route that nobody has", get("/v2/nothing"), plain),
    ("a slash at the end", get("/v2/models/{m}/"), plain),
    ("no token", get("/v2/models/{m}", token=False), plain),
]


def call(method, /, **fields):
    return lambda server: server.grpc(method, getattr(messages, f"{method}Request")(**{
        key: server.fill(value) if isinstance(value, str) else value for key, value in fields.items()}))


def model_infer(*inputs, raw=(BINARY,), model="{m}", parameters=None, outputs=(), compression=None, **fields):
    def ask(server):
        request = messages.ModelInferRequest(model_name=server.fill(model), **fields)
        request.inputs.extend(inputs)
        request.raw_input_contents.extend(raw)
        request.outputs.extend(outputs)
        for key, value in (parameters or {}).items():
            request.parameters[key].CopyFrom(value)
        return server.grpc("ModelInfer", request, compression=compression)

    return ask


def given(name="text", datatype="BYTES", shape=(1,), typed=None, **parameters):
    tensor = messages.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if typed is not None:
        tensor.contents.CopyFrom(typed)
    for key, value in parameters.items():
        tensor.parameters[key].CopyFrom(value)
    return tensor


def wanted(name="embedding", **parameters):
    output = messages.ModelInferRequest.InferRequestedOutputTensor(name=name)
    for key, value in parameters.items():
        output.parameters[key].CopyFrom(value)
    return output


def number(value):
    return messages.InferParameter(int64_param=value)


def word(value):
    return messages.InferParameter(string_param=value)


def typed(*texts):
    return messages.InferTensorContents(bytes_contents=texts)


def floats(*numbers):
    return messages.InferTensorContents(fp32_contents=numbers)


def stream(server):
    def ask(message, **more):
        answers = list(server.stub.ModelStreamInfer(iter([message]), **more))
        if answers[0].error_message:
            raise AssertionError(answers[0].error_message)
        return answers[0].infer_response

    request = messages.ModelInferRequest(model_name=server.model)
    request.inputs.append(given())
    request.raw_input_contents.append(BINARY)
    return server.grpc_by(ask, request)


def bare(path):
    """A call of a service that has no stub here."""
    return lambda server: server.grpc_by(
        server.channel.unary_unary(path, lambda message: message, lambda message: message), b"")


def of(look):
    return lambda answer: look(answer.message) if answer.message is not None else plain(answer)


def ports(members):
    return of(lambda message: "; ".join(f"{one.name} {one.datatype} {list(one.shape)}" for one in members(message)))


GRPC = [
    ("live", call("ServerLive"), of(lambda message: str(message.live))),
    ("ready", call("ServerReady"), of(lambda message: str(message.ready))),
    ("server: extensions", call("ServerMetadata"), extensions),
    ("metadata: platform", call("ModelMetadata", name="{m}"), of(lambda message: message.platform)),
    ("metadata: versions", call("ModelMetadata", name="{m}"), of(lambda message: str(list(message.versions)))),
    ("metadata: inputs", call("ModelMetadata", name="{m}"), ports(lambda message: message.inputs)),
    ("metadata: outputs", call("ModelMetadata", name="{m}"), ports(lambda message: message.outputs)),
    ("metadata of an unknown version", call("ModelMetadata", name="{m}", version="99"), plain),
    ("metadata of an unknown model", call("ModelMetadata", name="gpt"), plain),
    ("metadata without a name", call("ModelMetadata"), plain),
    ("model ready", call("ModelReady", name="{m}"), of(lambda message: str(message.ready))),
    ("an unknown version ready", call("ModelReady", name="{m}", version="99"), of(lambda message: str(message.ready))),
    ("an unknown model ready", call("ModelReady", name="gpt"), of(lambda message: str(message.ready))),
    ("config: max_batch_size", call("ModelConfig", name="{m}"), of(lambda message: str(message.config.max_batch_size))),
    ("config: input", call("ModelConfig", name="{m}"), of(lambda message: str(
        [(one.name, one.data_type, list(one.dims)) for one in message.config.input]))),
    ("config: output", call("ModelConfig", name="{m}"), of(lambda message: str(
        [(one.name, one.data_type, list(one.dims)) for one in message.config.output]))),
    ("config of an unknown model", call("ModelConfig", name="gpt"), plain),
    ("statistics", call("ModelStatistics", name="{m}"), of(lambda message: f"{len(message.model_stats)} model")),
    ("statistics of an unknown model", call("ModelStatistics", name="gpt"), plain),
    ("index", call("RepositoryIndex"), of(lambda message: ", ".join(sorted({one.state for one in message.models})))),
    ("load", call("RepositoryModelLoad", model_name="{m}"), plain),
    ("unload", call("RepositoryModelUnload", model_name="{m}"), plain),
    ("infer, raw", model_infer(given()), grpc_tensors),
    ("infer, typed", model_infer(given(typed=typed(BYTES[0])), raw=()), grpc_tensors),
    ("infer, two texts", model_infer(given(shape=(2,)), raw=(packed(*BYTES),)), grpc_tensors),
    ("infer, shape [1, 1]", model_infer(given(shape=(1, 1))), grpc_tensors),
    ("infer with an id", model_infer(given(), id="a-7"), grpc_tensors),
    ("infer, output named", model_infer(given(), outputs=[wanted()]), grpc_tensors),
    ("infer with a parameter nobody knows", model_infer(given(), parameters={"colour": word("red")}), grpc_tensors),
    ("infer in gzip", model_infer(given(), compression=grpc.Compression.Gzip), grpc_tensors),
    ("infer in a stream", stream, grpc_tensors),
    ("unknown model", model_infer(given(), model="gpt"), grpc_tensors),
    ("unknown version", model_infer(given(), model_version="99"), grpc_tensors),
    ("no model", model_infer(given(), model=""), grpc_tensors),
    ("another name for the input", model_infer(given(name="query")), grpc_tensors),
    ("an input too many", model_infer(given(), given(name="query"), raw=(BINARY, BINARY)), grpc_tensors),
    ("the input twice", model_infer(given(), given(), raw=(BINARY, BINARY)), grpc_tensors),
    ("no input", model_infer(raw=()), grpc_tensors),
    ("datatype FP32", model_infer(given(datatype="FP32", typed=floats(1.0)), raw=()), grpc_tensors),
    ("a datatype nobody knows", model_infer(given(datatype="TEXT")), grpc_tensors),
    ("contents of another type", model_infer(given(typed=floats(1.0)), raw=()), grpc_tensors),
    ("a shape above the data", model_infer(given(shape=(2,))), grpc_tensors),
    ("a shape below the data", model_infer(given(), raw=(packed(*BYTES),)), grpc_tensors),
    ("a negative shape", model_infer(given(shape=(-1,))), grpc_tensors),
    ("no shape", model_infer(given(shape=())), grpc_tensors),
    ("no contents", model_infer(given(), raw=()), grpc_tensors),
    ("raw and typed contents", model_infer(given(typed=typed(BYTES[0]))), grpc_tensors),
    ("more raw contents than inputs", model_infer(given(), raw=(BINARY, BINARY)), grpc_tensors),
    ("an element longer than the bytes", model_infer(given(), raw=(struct.pack("<I", 400) + b"abc",)), grpc_tensors),
    ("bytes that are no UTF-8", model_infer(given(), raw=(packed(b"\xff\xfe"),)), grpc_tensors),
    ("an empty text", model_infer(given(), raw=(packed(b""),)), grpc_tensors),
    ("an unknown output", model_infer(given(), outputs=[wanted("logits")]), grpc_tensors),
    ("classes of an output", model_infer(given(), outputs=[wanted(classification=number(2))]), grpc_tensors),
    ("shared memory", model_infer(given(
        shared_memory_region=word("r"), shared_memory_byte_size=number(8)), raw=()), grpc_tensors),
    ("a sequence", model_infer(given(), parameters={"sequence_id": number(1)}), grpc_tensors),
    ("bytes that are no message", lambda server: server.grpc_by(server.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer", lambda message: message, lambda message: message), b"\xff"), plain),
    ("shared memory regions", call("SystemSharedMemoryStatus"), plain),
    ("trace settings", call("TraceSetting"), plain),
    ("log settings", call("LogSettings"), plain),
    ("a call that nobody has", bare("/inference.GRPCInferenceService/Nothing"), plain),
    ("gRPC's own health check", bare("/grpc.health.v1.Health/Check"), plain),
]


def vectors(server):
    answer = infer(tensor(shape=[2], data=TEXTS))(server)
    return numpy.array(answer.json["outputs"][0]["data"], dtype=numpy.float64).reshape(2, -1)


def said(answer):
    """A server's own words where it refuses."""
    if answer.message is not None or answer.status == "200":
        return ""
    return answer.body.decode(errors="replace")[:300]


def main():
    asked = json.load(sys.stdin)
    servers = [Server(asked[name], asked["model"]) for name in ("socle", "triton")]
    for protocol, cases in (("REST", REST), ("gRPC", GRPC)):
        for case, ask, look in cases:
            answers = [ask(server) for server in servers]
            row = {"case": f"{protocol}: {case}", "said": [said(answer) for answer in answers]}
            # Each has its own version of the model.
            row["socle"], row["triton"] = (
                look(answer).replace(f"'{server.version}'", "VERSION").replace(f'"{server.version}"', "VERSION")
                for server, answer in zip(servers, answers))
            print(json.dumps(row), flush=True)
    ours, theirs = (vectors(server) for server in servers)
    cosine = float(min((ours * theirs).sum(1) / numpy.linalg.norm(ours, axis=1) / numpy.linalg.norm(theirs, axis=1)))
    words = f"cosine of at least {CLOSE}" if cosine >= CLOSE else f"cosine of {cosine:.4f}"
    row = {"case": "both: the numbers", "socle": f"cosine of at least {CLOSE}", "triton": words, "said": ["", ""]}
    print(json.dumps(row), flush=True)


main()
