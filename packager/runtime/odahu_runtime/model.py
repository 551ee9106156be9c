"""The model: a GPPI module, imported once, called with care."""

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
_LONGEST = 2000  # characters of a model's own message that we show to a client
_FLOAT_BYTES = 8  # of a number of Python's; numpy has longer ones
_HERE = os.path.dirname(os.path.abspath(__file__))


class ModelError(Exception):
    """The model failed.

    Attributes:
        details: The model's traceback from its own first line on, or the message where there is none.
    """

    def __init__(self, message: str, cause: Optional[BaseException] = None) -> None:
        """Say what failed and, of the model's own exception, its type and text."""
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
        """The same error with another message."""
        made = cls(message)
        made.details = error.details
        return made


class Model:
    """A loaded model.

    Attributes:
        mode: What its `init()` answered: `matrix` or `objects`.
    """

    def __init__(self, module: ModuleType) -> None:
        """Call the module's `init()`.

        Raises:
            ModelError: It failed, or what it answered can't be served.
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
        """Import and start the model that `MODEL_LOCATION` and `MODEL_ENTRYPOINT` name.

        Raises:
            ModelError: It can't be imported or started.
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
        """Predict; the answer is the JSON text of `{"prediction": [[...]], "columns": [...]}`.

        Raises:
            InputError: The batch does not suit this kind of model.
            ModelError: The model failed, or its answer has no form in JSON.
        """
        given = self._given(batch)
        with _guarded("Exception during prediction"):
            prediction, columns = self._answer(given, batch.columns)
            return outputs.dumps({"prediction": prediction, "columns": columns}, indent, self._default)

    def predict_raw(self, batch: Batch) -> Tuple[Any, List[Any]]:
        """Predict; the answer is what the model gave, and the names of its columns.

        Raises:
            InputError: The batch does not suit this kind of model.
            ModelError: The model failed.
        """
        return _carefully(self._answer, self._given(batch), batch.columns)

    def text(self, prediction: Any, columns: List[Any]) -> bytes:
        """A prediction as `predict` writes it, in UTF-8.

        Raises:
            ModelError: It has no form in JSON.
        """
        return _carefully(self._written, prediction, columns)

    def _written(self, prediction: Any, columns: List[Any]) -> bytes:
        return outputs.encoded({"prediction": self._simple(prediction), "columns": columns}, self._default)

    def values(self, prediction: Any, columns: List[Any]) -> Tuple[Any, List[Any]]:
        """A prediction as JSON's own values.

        Raises:
            ModelError: It has no form in JSON.
        """
        with _guarded("Exception during prediction"):
            return outputs.plain(self._simple(prediction), self._default), outputs.plain(columns, self._default)

    def _simple(self, prediction: Any) -> Any:
        """An array of numpy's numbers as Python's own, as `outputs` would make it; any other value as it is."""
        if self._default is not None or type(prediction).__name__ != "ndarray":
            return prediction
        dtype = prediction.dtype
        plain = dtype.kind in "iub" or (dtype.kind == "f" and dtype.itemsize <= _FLOAT_BYTES)
        return prediction.tolist() if plain else prediction

    def columns(self) -> Tuple[List[schema.Column], List[schema.Column]]:
        """The columns of input and output as `info()` describes them, none for a model that has no `info()`.

        Raises:
            ModelError: `info()` failed, or did not return two lists of columns.
        """
        with _guarded("info() of the model failed"):
            given, returned = self._call("info") or ((), ())
            return schema.columns(given), schema.columns(returned)

    def examples(self) -> Tuple[List[Any], List[Any], List[str]]:
        """The example of the input that `info()` gives: the model's names, values, and the columns that have none.

        Columns that aren't required and have no example are left out.

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
        """The properties of input and output, empty of columns for a model that has no `info()`.

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
    """Whatever the model raises, also SystemExit and KeyboardInterrupt, is a ModelError and ends no process.

    A process that the model forked and let come back here ends: it has no answer to give.
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
    """What a call of the model's gives: as `_guarded` has it, without what a context manager takes."""
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
        traceback.clear_frames(error.__traceback__)  # what fills the memory is let go of before the answer is made
    return ModelError(what, error)


def _add_packages(folder: str) -> None:
    """Put a folder of packages first, as `site` does: the folders that its .pth files name come right after it."""
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
    """Objects as rows, in the order in which their keys appear first; anything else as it is."""
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        return results, []
    columns = list(dict.fromkeys(key for result in results for key in result))
    return [[result.get(column) for column in columns] for result in results], columns


def _pair(result: Any) -> Tuple[Any, Any]:
    if isinstance(result, (tuple, list)) and len(result) == 2:  # noqa: PLR2004  (a pair)
        return result[0], result[1]
    raise TypeError(f"predict_on_matrix() returned {type(result).__name__}, not a pair (matrix, column names)")


def _traceback(error: BaseException) -> str:
    """The traceback without the frames of the runtime and the import system that come before the model's."""
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
