"""The peer's side of `cargo xtask peer embeddings`: onnxruntime on the very same model file.

Reads one sentence a line, prints {"versions": {...}, "embeddings": [[...], ...]}.
Mean of the last hidden state over the attention mask, then length one: what sentence-transformers
does with this model. One sentence at a time, so that no padding enters.
"""

import json
import sys

import numpy
import onnxruntime
import tokenizers


def main() -> None:
    model, tokenizer_file, sentences = sys.argv[1:]
    tokenizer = tokenizers.Tokenizer.from_file(tokenizer_file)
    tokenizer.no_padding()
    # 256 tokens is what the model was trained for; its tokenizer.json would cut at 128.
    tokenizer.enable_truncation(256)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    inputs = {value.name for value in session.get_inputs()}
    with open(sentences, encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip()]
    embeddings = []
    for line in lines:
        encoding = tokenizer.encode(line)
        feed = {
            "input_ids": numpy.array([encoding.ids], dtype=numpy.int64),
            "attention_mask": numpy.array([encoding.attention_mask], dtype=numpy.int64),
            "token_type_ids": numpy.array([encoding.type_ids], dtype=numpy.int64),
        }
        hidden = session.run(None, {name: feed[name] for name in inputs})[0][0].astype(numpy.float64)
        mask = feed["attention_mask"][0][:, None]
        mean = (hidden * mask).sum(axis=0) / mask.sum()
        embeddings.append((mean / numpy.linalg.norm(mean)).tolist())
    versions = {
        "onnxruntime": onnxruntime.__version__,
        "tokenizers": tokenizers.__version__,
        "numpy": numpy.__version__,
    }
    json.dump({"versions": versions, "embeddings": embeddings}, sys.stdout)


main()
