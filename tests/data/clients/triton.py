"""tritonclient as its users have it, against a server at sys.argv[1]; prints what it saw as JSON."""

import json
import sys

import numpy as np
from tritonclient import http

url, model = sys.argv[1:]
client = http.InferenceServerClient(url)
seen = {
    "live": client.is_server_live(),
    "ready": client.is_server_ready(),
    "model ready": client.is_model_ready(model) and client.is_model_ready(model, "1.0"),
    "server": client.get_server_metadata(),
    "model": client.get_model_metadata(model),
}


def infer(inputs, *, binary, compression=None, **more):
    tensors = []
    for name, values, kind in inputs:
        tensor = http.InferInput(name, list(values.shape), kind)
        tensor.set_data_from_numpy(values, binary_data=binary)
        tensors.append(tensor)
    result = client.infer(model, tensors, request_compression_algorithm=compression, request_id="r1", **more)
    output = result.get_response()["outputs"][0]
    return [result.get_response()["id"], output["name"], result.as_numpy(output["name"]).tolist()]


rows = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=np.float32)
words = np.array([["ab", "ü"], ["", "x" * 300]], dtype=object)
for binary in (False, True):
    seen[f"matrix, binary={binary}"] = infer([("matrix", rows, "FP32")], binary=binary)
    seen[f"text, binary={binary}"] = infer([("matrix", words, "BYTES")], binary=binary)
    columns = [("a", np.array([[1], [2]], dtype=np.int64), "INT64"), ("b", np.array([True, False]), "BOOL")]
    seen[f"columns, binary={binary}"] = infer(columns, binary=binary)
seen["gzip"] = infer([("matrix", rows, "FP32")], binary=True, compression="gzip")
seen["gzip both ways"] = infer(
    [("matrix", np.tile(rows, (500, 1)), "FP32")],
    binary=True,
    compression="gzip",
    response_compression_algorithm="gzip",
)[2][-2:]
seen["wanted"] = infer(
    [("matrix", rows, "FP32")], binary=True, outputs=[http.InferRequestedOutput("prediction", binary_data=True)]
)
for name, values in (("wrong model", "nobody"), ("wrong rows", model)):
    tensor = http.InferInput("matrix", [0, 3], "FP32")
    tensor.set_data_from_numpy(np.zeros((0, 3), dtype=np.float32))
    try:
        client.infer(values, [tensor])
    except http.InferenceServerException as error:
        seen[name] = [error.status(), error.message()]
json.dump(seen, sys.stdout)
