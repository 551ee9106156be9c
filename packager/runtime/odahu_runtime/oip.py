"""The messages of the Open Inference Protocol: tensors in, tensors out.

The format: github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, and for binary
data github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import json
import struct
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from .inputs import Batch, InputError

if TYPE_CHECKING:
    from typing import Any, Container, Dict, Iterator, List, Optional, Sequence, Set, Tuple

    from .schema import Column

_FORMATS = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
_WHOLE: Set[type] = {int}
_REAL: Set[type] = {int, float, type(None)}
_VALUES: Dict[str, Set[type]] = {"BYTES": {str}, "BOOL": {bool}, "FP16": _REAL, "FP32": _REAL, "FP64": _REAL}
_RANGES: Dict[str, Tuple[int, int]] = {
    kind: (-(1 << bits - 1), (1 << bits - 1) - 1) if kind[0] == "I" else (0, (1 << bits) - 1)
    for kind, bits in ((kind, 8 * struct.calcsize(form)) for kind, form in _FORMATS.items() if "INT" in kind)
}
_TYPES = {"integer": "INT64", "number": "FP64", "boolean": "BOOL", "string": "BYTES"}


class _Tensor(NamedTuple):
    name: str
    shape: List[int]
    data: List[Any]


def metadata(name: str, version: str, given: Sequence[Column], returned: Sequence[Column]) -> Dict[str, Any]:
    """Describe the model's input and output: each column is a tensor of one column."""
    return {
        "name": name,
        "versions": [version],
        "platform": "odahu-gppi",
        "inputs": [_described(column) for column in given],
        "outputs": [_described(column) for column in returned],
    }


def read(document: Any, binary: bytes, known: Container[str]) -> Batch:
    """Turn the inputs of a request into rows.

    Several tensors are named columns of shape [n] or [n, 1]. A single tensor is the matrix, whatever its name, unless
    it is one column whose name the model knows (`known`). `binary` is the data after the JSON.

    Raises:
        InputError: A tensor is missing, or its values don't match its shape or its type.
    """
    if not isinstance(document, dict):
        raise InputError('Expected an object with the list "inputs"')
    listed = document.get("inputs")
    if not isinstance(listed, list) or not listed or not all(isinstance(item, dict) for item in listed):
        raise InputError('"inputs" must be a list of tensors, with at least one')
    tensors = list(_tensors(listed, binary))
    rows = tensors[0].shape[0]
    if rows < 1 or not tensors[0].data:
        raise InputError('"inputs"[0] has no rows')
    if len(tensors) == 1 and not (tensors[0].name in known and _is_column(tensors[0])):
        return Batch(_nested(tensors[0].data, tensors[0].shape[1:] or [1]))
    for number, tensor in enumerate(tensors):
        if not _is_column(tensor) or tensor.shape[0] != rows:
            raise InputError(
                f'"inputs"[{number}] ({tensor.name}) has the shape {tensor.shape}: several tensors are columns, '
                f"each of the shape [{rows}] or [{rows}, 1]"
            )
    data = [list(row) for row in zip(*(tensor.data for tensor in tensors))]  # noqa: B905  (checked)
    return Batch(data, [tensor.name for tensor in tensors])


def wanted_outputs(document: Dict[str, Any]) -> Optional[List[str]]:
    """Return the names of the tensors that a request asks for; None means all.

    Raises:
        InputError: Its "outputs" is not a list of named tensors.
    """
    listed = document.get("outputs")
    if not listed and (listed is None or isinstance(listed, list)):
        return None
    if not isinstance(listed, list) or not all(
        isinstance(item, dict) and isinstance(item.get("name"), str) for item in listed
    ):
        raise InputError('"outputs" must be a list of objects, each with a "name"')
    return [item["name"] for item in listed]


def chosen(tensors: List[Dict[str, Any]], names: Optional[List[str]]) -> List[Dict[str, Any]]:
    """Return the tensors with these names, in this order.

    Raises:
        InputError: A name is unknown.
    """
    if names is None:
        return tensors
    by_name = {tensor["name"]: tensor for tensor in tensors}
    for name in names:
        if name not in by_name:
            raise InputError(f'"outputs" asks for {name!r}; available: {", ".join(by_name)}')
    return [by_name[name] for name in names]


def write(prediction: Any, columns: List[Any]) -> List[Dict[str, Any]]:
    """Turn rows into tensors: one per named column, else one for all."""
    rows = prediction if isinstance(prediction, list) else [prediction]
    table = set(map(type, rows)) <= {list} and set(map(len, rows)) <= {len(columns)}
    if columns and table and len(set(map(str, columns))) == len(columns):
        values = list(zip(*rows)) if rows else [()] * len(columns)  # noqa: B905  (checked)
        return [_tensor(str(name), [len(rows), 1], list(column)) for name, column in zip(columns, values)]  # noqa: B905
    shape, flat = _flattened(rows)
    return [_tensor("prediction", shape, flat)]


def _described(column: Column) -> Dict[str, Any]:
    return {
        "name": column.text,
        "datatype": _TYPES.get(column.kind, "BYTES" if column.stated else "FP64"),
        "shape": [-1, 1],
    }


def _tensors(listed: List[Dict[str, Any]], binary: bytes) -> Iterator[_Tensor]:
    for number, item in enumerate(listed):
        place = f'"inputs"[{number}]'
        name, kind, shape = item.get("name"), item.get("datatype"), item.get("shape")
        if not isinstance(name, str):
            raise InputError(f'{place} has no "name"')
        if not isinstance(kind, str) or (kind not in _FORMATS and kind != "BYTES"):
            raise InputError(f'{place} ({name}) has the "datatype" {kind!r}; known are {", ".join(_FORMATS)}, BYTES')
        if not isinstance(shape, list) or not _are_sizes(shape):
            raise InputError(f'{place} ({name}) needs a "shape", a list of sizes')
        parameters = item.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        count = 1
        for length in shape:
            count *= length
        if size is None:
            data = _flat(item.get("data"), place, kind)
        else:
            if not isinstance(size, int) or not 0 <= size <= len(binary):
                raise InputError(
                    f"{place} ({name}): {size!r} bytes of binary data are announced, {len(binary)} are left"
                )
            data = _unpack(binary[:size], kind, f"{place} ({name})")
            binary = binary[size:]
        if len(data) != count:
            raise InputError(f"{place} ({name}) has {len(data)} values, and its shape {shape} is for {count}", 422)
        yield _Tensor(name, shape, data)


def _are_sizes(shape: List[Any]) -> bool:
    return bool(shape) and all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape)


def _is_column(tensor: _Tensor) -> bool:
    return tensor.shape[1:] in ([], [1])


def _flat(data: Any, place: str, kind: str) -> List[Any]:
    """Return the values in row-major order, from flat or nested lists; each has the tensor's type."""
    if not isinstance(data, list):
        raise InputError(f'{place} has no "data", a list')
    # The types of all values at once: an interpreter step per value would take longer than the model.
    flat: List[Any] = data
    types = set(map(type, flat))
    while list in types:
        if len(types) == 1:
            flat = list(chain.from_iterable(flat))
        else:
            flat = [value for item in flat for value in (item if isinstance(item, list) else [item])]
        types = set(map(type, flat))
    wanted = _VALUES.get(kind, _WHOLE)
    if not types <= wanted:
        number, value = next((number, value) for number, value in enumerate(flat) if type(value) not in wanted)
        raise InputError(f"{place}: the value {number} is {json.dumps(value)[:100]}, which is not of type {kind}", 422)
    if wanted is _WHOLE and flat:
        least, most = _RANGES[kind]
        if min(flat) < least or max(flat) > most:
            number, value = next((number, value) for number, value in enumerate(flat) if not least <= value <= most)
            text = f"the value {number} is {str(value)[:100]}, which is beyond {kind}: {least} to {most}"
            raise InputError(f"{place}: {text}", 422)
    if wanted is _REAL and int in types:
        return [value if value is None else float(value) for value in flat]
    return flat


def _unpack(data: bytes, kind: str, place: str) -> List[Any]:
    try:
        if kind != "BYTES":
            form = _FORMATS[kind]
            return list(struct.unpack(f"<{len(data) // struct.calcsize(form)}{form}", data))
        texts, start = [], 0
        while start < len(data):
            (length,) = struct.unpack_from("<I", data, start)
            start += 4 + length
            if start > len(data):
                raise InputError(f"{place}: the binary data ends within a text", 422)
            texts.append(data[start - length : start].decode())
    except (struct.error, UnicodeDecodeError) as error:
        raise InputError(f"{place}: the binary data is not of type {kind}: {error}", 422) from error
    return texts


def _nested(data: List[Any], shape: List[int]) -> List[Any]:
    """Return rows of a shape, from values in row-major order."""
    for size in reversed(shape):
        data = [data[start : start + size] for start in range(0, len(data), size)] if size else []
    return data


def _flattened(rows: Any) -> Tuple[List[int], List[Any]]:
    """Return the shape of nested lists and their values; lists of different lengths are not flattened."""
    shape, flat = [len(rows)], list(rows)
    while set(map(type, flat)) == {list} and len(set(map(len, flat))) == 1:
        shape.append(len(flat[0]))
        flat = list(chain.from_iterable(flat))
    return shape, flat


def _tensor(name: str, shape: List[int], data: List[Any]) -> Dict[str, Any]:
    types = set(map(type, data))
    kinds = (("BOOL", {bool}), ("INT64", _WHOLE), ("FP64", _REAL))
    kind = next((kind for kind, known in kinds if types <= known), "BYTES")
    if kind == "BYTES" and types != {str}:
        data = [value if isinstance(value, str) else json.dumps(value) for value in data]
    return {"name": name, "shape": shape, "datatype": kind, "data": data}
