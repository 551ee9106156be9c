"""The model client of the ODAHU SDK against a server at sys.argv[1]; prints what it saw as JSON."""

import json
import sys

from odahuflow.sdk.clients.model import ModelClient

# The address is made of these two; without the second it would ask a platform for it.
host, _, port = sys.argv[1].rpartition(":")
client = ModelClient(host, url_prefix=f":{port}", timeout=30)
post = client.info()["paths"]["/api/model/invoke"]["post"]
example = {name: described["example"] for name, described in post["parameters"][0]["schema"]["properties"].items()}
seen = {
    "example": example,
    "answers to it": list(post["responses"]["200"]["schema"]["properties"]),
    "invoke": client.invoke(columns=["features"] * 3, data=[[1, 2, 3], [4, 5, 6]]),
    "without names": client.invoke(data=[[1, 2, 3]]),
    "the example": client.invoke(**example),
}
try:
    client.invoke(data=[])
except Exception as error:
    seen["no rows"] = str(error)
json.dump(seen, sys.stdout)
