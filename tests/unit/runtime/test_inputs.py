from __future__ import annotations

import json

import pytest

from packager.runtime.odahu_runtime.inputs import (
    Batch,
    InputError,
    are_numbers,
    parse_strict,
    parse_tolerant,
    read_batch,
)

pytestmark = pytest.mark.usefixtures("both_json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1 column 1"),
        ('{"a": 1,\n "b" 2}', "line 2 column 6"),
        ('{"data": ["NaN",\n  NaN]}', "NaN is not a JSON value: line 2 column 3 (char 19)"),
        ("[-Infinity]", "-Infinity is not a JSON value: line 1 column 2"),
        ("[1] 2", "Extra data: line 1 column 5"),
        ("[" * 100_000, "recursion"),
        ("[1,]", "line 1 column"),
    ],
)
def test_strict_parser_names_the_position(text: str, said: str) -> None:
    with pytest.raises(InputError, match="Invalid JSON") as error:
        parse_strict(text)
    assert said in str(error.value)
    assert error.value.status == 400


@pytest.mark.parametrize("number", [str(2**64), str(-(2**63) - 1), "1" + "0" * 400, "9" * 6000, "-" + "9" * 6000])
@pytest.mark.parametrize(
    "text",
    ['{"data": [[1.5, %s]]}', '[\n"1, %s", {"a": [%s, 1]}]', '{"data": [[-1e30, %s, "x", null, {"a": 1}]]}'],
)
def test_integers_beyond_64_bits_are_rejected_with_their_position(text: str, number: str) -> None:
    whole = text.replace("%s", number)
    for read in (lambda: parse_strict(whole), lambda: parse_tolerant(whole)):
        with pytest.raises(InputError, match="is beyond 64 bits") as error:
            read()
        assert error.value.status == 422
        place = whole.rindex(number)
        assert f"line {whole.count(chr(10), 0, place) + 1} column" in str(error.value)
        assert f"(char {place})" in str(error.value)
        assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "value",
    [
        2**64 - 1,
        2**63,
        -(2**63),
        1e20,
        -1e300,
        0.12345678901234567890123,
        str(2**64),
        f'"{2**64}": [1, {2**64}',
        {str(2**64): 0.00012345678901234567},
        1.5e-7,
    ],
)
def test_64_bit_integers_floats_and_digits_in_text_are_unchanged(value: object) -> None:
    for text in (json.dumps(value), json.dumps([value, value]), json.dumps({"a": value}, indent=1)):
        read = parse_strict(text)
        assert read == json.loads(text)
        assert type(read) is type(json.loads(text))
    assert parse_strict("[1.00000000000000000000, 1e00000000000000000001, 10000000000000000000000.0]") == [1, 10, 1e22]


@pytest.mark.parametrize(
    ("rows", "numbers"),
    [
        ([[1, 2.5], [True, -3]], True),
        ([[]], True),
        ([[1e20, -1e20]], False),
        ([[2**63, 0]], False),
        ([[1, None]], False),
        ([[1, "x"]], False),
        ([[1], [10**400]], False),
        ([{"a": 1}], False),
    ],
)
def test_only_rows_of_small_numbers_skip_the_check(rows: list[object], numbers: bool) -> None:
    assert are_numbers(rows) == numbers


@pytest.mark.parametrize(
    ("text", "value", "lines"),
    [
        ('{"a": [1, 2]}', {"a": [1, 2]}, []),
        ("[1,]", [1], [1]),
        ('{"a": [\n1,\n2,\n],\n"b": {"c": 1 ,\n\n} ,\n}', {"a": [1, 2], "b": {"c": 1}}, [3, 5, 7]),
        ('[",]", "\\",]", "\\\\",]', [",]", '",]', "\\"], [1]),
    ],
)
def test_tolerant_drops_trailing_commas(text: str, value: object, lines: list[int]) -> None:
    assert parse_tolerant(text) == (value, lines)


@pytest.mark.parametrize("text", ["[,]", "{,}", "[1,,]", "[1,,2]", '{"a":,}', '["a,]', "[1 2,]", "[1], ", ",]"])
def test_tolerant_parser_rejects_other_errors(text: str) -> None:
    with pytest.raises(InputError, match="line 1 column"):
        parse_tolerant(text)


def test_positions_of_other_errors_stay_correct() -> None:
    with pytest.raises(InputError, match="line 3 column 1"):
        parse_tolerant("[[1,],\n[2,],\n!]")


@pytest.mark.parametrize(
    ("document", "batch"),
    [
        ({"data": [[1, 2], [3, 4]]}, Batch([[1, 2], [3, 4]])),
        ({"columns": None, "data": [[]], "more": 1}, Batch([[]])),
        ({"columns": [], "data": [[1]]}, Batch([[1]])),
        ({"columns": ["a", 1], "data": [[1, None]]}, Batch([[1, None]], ["a", 1])),
        (
            {"columns": [True, None, ["a", 1]], "data": [[1, 2, 3]]},
            Batch([[1, 2, 3]], [True, None, ("a", 1)]),
        ),
        ({"columns": ["a"], "data": [{"a": 1}, {}]}, Batch([{"a": 1}, {}], ["a"])),
    ],
)
def test_batches(document: object, batch: Batch) -> None:
    assert read_batch(document) == batch


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([[1]], "Expected an object like"),
        (None, "got null"),
        ({}, 'No "data"'),
        ({"data": None}, '"data" must be a list of rows, got null'),
        ({"data": {"a": 1}}, "got an object"),
        ({"data": []}, "no rows"),
        ({"data": [1, 2]}, '"data"[0] must be a row, that is a list of values, got a number'),
        ({"data": [[1], "x"]}, '"data"[1] must be a row, that is a list of values, got a string'),
        ({"data": [[1], {"a": 1}]}, '"data"[1] is an object, unlike the first row'),
        ({"columns": ["a", "b"], "data": [[1, 2], [3]]}, '"data"[1] has 1 values, but there are 2 columns'),
        ({"data": [[1], [2, 3]]}, '"data"[1] has 2 values, but the first row has 1'),
        ({"columns": "ab", "data": [[1, 2]]}, '"columns" must be a list of names, got a string'),
        ({"columns": ["a", {}], "data": [[1, 2]]}, '"columns"[1] must be a name, got an object'),
        ({"columns": [[["a"]], 1], "data": [[1, 2]]}, '"columns"[0] must be a name, got a list'),
    ],
)
def test_wrong_shapes(document: object, said: str) -> None:
    with pytest.raises(InputError) as error:
        read_batch(json.loads(json.dumps(document)))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"data": [[1], [2, 3]]}, 422),
        ({"columns": ["a", "b"], "data": [[1, 2], [3]]}, 422),
        ({"data": [1]}, 400),
        ({"data": []}, 400),
    ],
)
def test_rows_of_different_lengths_are_a_422(document: object, status: int) -> None:
    with pytest.raises(InputError) as error:
        read_batch(document)
    assert error.value.status == status
