"""The model: a GPPI module that is imported once, and whose errors can't end the process."""

from __future__ import annotations

import importlib
import os
import site
import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import outputs, process, schema
from .inputs import Batch, InputError

if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple, TypeVar

    _Made = TypeVar("_Made")

_FUNCTIONS = {"matrix": "predict_on_matrix", "objects": "predict_on_objects"}
_LONGEST = 2000  # characters of a model's own message in a response
_FLOAT_BYTES = 8  # of a Python float; numpy has longer ones
_HERE = os.path.dirname(os.path.abspath(__file__))


class ModelError(Exception):
    """The model failed.

    Attributes:
        details: The model's traceback from its own first line on, or the message without a traceback.
    """

    def __init__(self, message: str, cause: Optional[BaseException] = None) -> None:
        """Add type and text of the model's own exception to the message."""
        if cause is not None:
            try:
                text = "".join(traceback.format_exception_only(type(cause), cause)).strip()
            except Exception:  # noqa: BLE001  (of the model's own exception)
                text = type(cause).__name__
            message = f"{message}: {text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}"
        super().__init__(message)
        self.details = message if cause is None else _traceback(cause)

    @classmethod
    def of(cls, message: str, error: ModelError) -> ModelError:
        """Return the same error with another message."""
        made = cls(message)
        made.details = error.details
        return made


class Model:
    """A loaded model.

    Attributes:
        mode: The return value of its `init()`: `matrix` or `objects`.
    """

    def __init__(self, module: ModuleType) -> None:
        """Call the module's `init()`.

        Raises:
            ModelError: It failed, or its return value is not supported.
        """
        self._module = module
        with _guarded("init() of the model failed"):
            self.mode = self._function("init")()
            encoder = self._call("get_output_json_serializer")
            self._default = (encoder() if isinstance(encoder, type) else encoder).default if encoder else None
        if not isinstance(self.mode, str) or self.mode not in _FUNCTIONS:
            raise ModelError(f'init() of the model returned {self.mode!r}; supported are "matrix" and "objects"')
        self._predict = self._function(_FUNCTIONS[self.mode])
        if self.mode == "objects":
            self._check_object_type()

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Model:
        """Import and initialize the model that `MODEL_LOCATION` and `MODEL_ENTRYPOINT` name.

        Raises:
            ModelError: It can't be imported or initialized.
        """
        for name in ("MODEL_LOCATION", "MODEL_ENTRYPOINT"):
            if not environ.get(name):
                raise ModelError(f"The environment variable {name} is not set: it says where the model is")
        location = os.path.abspath(environ["MODEL_LOCATION"])
        if not os.path.isdir(location):
            raise ModelError(f"There is no folder {location}, where MODEL_LOCATION says that the model is")
        if environ.get("ODAHU_PACKAGES"):
            _add_packages(os.path.abspath(environ["ODAHU_PACKAGES"]))
        sys.path.insert(0, location)
        importlib.invalidate_caches()
        with _guarded(f"The model's module {environ['MODEL_ENTRYPOINT']!r} can't be imported"):
            module = importlib.import_module(environ["MODEL_ENTRYPOINT"])
        return cls(module)

    def predict(self, batch: Batch, indent: Optional[int] = None) -> str:
        """Predict; return the JSON text of `{"prediction": [[...]], "columns": [...]}`.

        Raises:
            InputError: This kind of model can't predict on the batch.
            ModelError: The model failed, or its result can't be represented in JSON.
        """
        given = self._given(batch)
        with _guarded("Exception during prediction"):
            prediction, columns = self._answer(given, batch.columns)
            return outputs.dumps({"prediction": prediction, "columns": columns}, indent, self._default)

    def predict_raw(self, batch: Batch) -> Tuple[Any, List[Any]]:
        """Predict; return the model's result, and the names of its columns.

        Raises:
            InputError: This kind of model can't predict on the batch.
            ModelError: The model failed.
        """
        return _carefully(self._answer, self._given(batch), batch.columns)

    def text(self, prediction: Any, columns: List[Any]) -> bytes:
        """Write a prediction as `predict` does, in UTF-8.

        Raises:
            ModelError: It can't be represented in JSON.
        """
        return _carefully(self._written, prediction, columns)

    def _written(self, prediction: Any, columns: List[Any]) -> bytes:
        return outputs.encoded({"prediction": self._simple(prediction), "columns": columns}, self._default)

    def values(self, prediction: Any, columns: List[Any]) -> Tuple[Any, List[Any]]:
        """Convert a prediction to JSON values.

        Raises:
            ModelError: It can't be represented in JSON.
        """
        with _guarded("Exception during prediction"):
            return outputs.plain(self._simple(prediction), self._default), outputs.plain(columns, self._default)

    def _simple(self, prediction: Any) -> Any:
        """Convert a numpy array of numbers to Python numbers, as `outputs` would; return other values unchanged."""
        if self._default is not None or type(prediction).__name__ != "ndarray":
            return prediction
        dtype = prediction.dtype
        plain = dtype.kind in "iub" or (dtype.kind == "f" and dtype.itemsize <= _FLOAT_BYTES)
        return prediction.tolist() if plain else prediction

    def columns(self) -> Tuple[List[schema.Column], List[schema.Column]]:
        """Return the columns of input and output that `info()` describes; without `info()` there are no columns.

        Raises:
            ModelError: `info()` failed, or did not return two lists of columns.
        """
        with _guarded("info() of the model failed"):
            given, returned = self._call("info") or ((), ())
            return schema.columns(given), schema.columns(returned)

    def examples(self) -> Tuple[List[Any], List[Any], List[str]]:
        """Return the input example of `info()`: the model's names, the values, and the columns without an example.

        Columns that are neither required nor have an example are left out.

        Raises:
            ModelError: `info()` failed, or did not return two lists of columns.
        """
        with _guarded("info() of the model failed"):
            given, _ = self._call("info") or ((), ())
            described = schema.described_columns(given)
            asked = [column for column in described if "example" in column or column.get("required", True)]
            _, values = schema.names_and_examples(asked)
            names = [column.name for column in schema.columns(asked)]
            missing = [str(column["name"]) for column in asked if "example" not in column]
            return names, outputs.plain(values, self._default), missing

    def _given(self, batch: Batch) -> List[Any]:
        return _as_objects(batch) if self.mode == "objects" else _as_matrix(batch)

    def _answer(self, given: List[Any], names: Optional[List[Any]]) -> Tuple[Any, List[Any]]:
        if self.mode == "objects":
            return _as_table(outputs.plain(self._predict(given), self._default))
        prediction, columns = _pair(self._predict(given, provided_columns_names=names))
        return prediction, [] if columns is None else [columns] if isinstance(columns, str) else list(columns)

    def schemas(self) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        """Return the properties of input and output; without `info()` they have no columns.

        Raises:
            ModelError: `info()` failed, or did not return two lists of columns.
        """
        with _guarded("info() of the model failed"):
            inputs, results = self._call("info") or ((), ())
            return (
                outputs.plain(schema.input_properties(inputs), self._default),
                outputs.plain(schema.output_properties(results), self._default),
            )

    def _function(self, name: str) -> Any:
        function = getattr(self._module, name, None)
        if not callable(function):
            place = getattr(self._module, "__file__", None) or "built in"
            raise ModelError(f"The model's module {self._module.__name__!r} ({place}) has no function {name}()")
        return function

    def _call(self, name: str) -> Any:
        function = getattr(self._module, name, None)
        return function() if function is not None else None

    def _check_object_type(self) -> None:
        with _guarded("get_object_input_type() of the model failed"):
            wanted = self._call("get_object_input_type")
        if wanted not in (None, list, dict) and getattr(wanted, "__origin__", None) not in (list, dict):
            raise ModelError(f"The model wants objects of type {wanted!r}; supported are lists of dicts")


@contextmanager
def _guarded(what: str) -> Iterator[None]:
    """Turn all that the model raises, also SystemExit and KeyboardInterrupt, into a ModelError.

    A process that the model has forked, and that returns here, exits.
    """
    pid = os.getpid()
    try:
        yield
    except ModelError:
        raise
    except BaseException as error:
        raise _failed(error, what) from error
    finally:
        if os.getpid() != pid:
            process.exit_now(0)


def _carefully(call: Callable[[Any, Any], _Made], first: Any, second: Any) -> _Made:
    """Call the model like `_guarded`, without the time that a context manager takes."""
    pid = os.getpid()
    try:
        return call(first, second)
    except ModelError:
        raise
    except BaseException as error:
        raise _failed(error) from error
    finally:
        if os.getpid() != pid:
            process.exit_now(0)


def _failed(error: BaseException, what: str = "Exception during prediction") -> ModelError:
    if isinstance(error, MemoryError):
        traceback.clear_frames(error.__traceback__)  # frees the memory before the response is made
    return ModelError(what, error)


def _add_packages(folder: str) -> None:
    """Put a folder of packages first on the path, and right after it the folders in its .pth files, as `site` does."""
    before = list(sys.path)
    sys.path.insert(0, folder)
    site.addsitedir(folder, {folder})
    added = [entry for entry in sys.path if entry not in before]
    sys.path[:] = added + before


def _as_matrix(batch: Batch) -> List[Any]:
    if isinstance(batch.data[0], dict):
        raise InputError('"data"[0] must be a list of values: this model predicts on a matrix')
    return batch.data


def _as_objects(batch: Batch) -> List[Any]:
    if isinstance(batch.data[0], dict):
        return batch.data
    if batch.columns is None:
        raise InputError('This model predicts on objects: give "columns", or objects as the rows of "data"')
    if len(set(batch.columns)) < len(batch.columns):
        raise InputError('This model predicts on objects: the names in "columns" must differ')
    return [dict(zip(batch.columns, row)) for row in batch.data]  # noqa: B905  (checked; `strict` is newer than 3.8)


def _as_table(results: Any) -> Tuple[Any, List[str]]:
    """Turn objects into rows, ordered by the first appearance of their keys; return other values unchanged."""
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        return results, []
    columns = list(dict.fromkeys(key for result in results for key in result))
    return [[result.get(column) for column in columns] for result in results], columns


def _pair(result: Any) -> Tuple[Any, Any]:
    if isinstance(result, (tuple, list)) and len(result) == 2:  # noqa: PLR2004  (a pair)
        return result[0], result[1]
    raise TypeError(f"predict_on_matrix() returned {type(result).__name__}, not a pair (matrix, column names)")


def _traceback(error: BaseException) -> str:
    """Format the traceback without the leading frames of the runtime and the import system."""
    frame = error.__traceback__
    first = frame
    while frame is not None and _is_ours(frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, frame or first)).rstrip()
    except Exception:  # noqa: BLE001  (of the model's own exception)
        return "".join([*traceback.format_tb(frame or first), type(error).__name__])


def _is_ours(filename: str) -> bool:
    return filename.startswith((_HERE, "<frozen importlib")) or filename == importlib.__file__
