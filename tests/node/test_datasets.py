"""Loading an owner's data: what fits, what is refused, and what is told of it."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from python_node.datasets import ColumnGroup, Dataset, load_dataset, load_datasets_file
from python_node.datasets.dataset import split
from python_node.errors import DatasetError, OwnerFileError

VECTORS = Path(__file__).parents[2] / "spec" / "vectors"
HOLD_OUTS = json.loads((VECTORS / "hold-out.json").read_text())["cases"]


def save_npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    image = np.arange(40, dtype=np.float32).reshape(10, 4)
    return save_npz(tmp_path / "digits.npz", image=image, label=np.arange(10))


def test_npz_gives_fields_and_a_schema_without_values_or_counts(digits: Path) -> None:
    dataset = load_dataset("digits", digits)
    schema = dataset.schema()
    assert [(f.name, f.dtype, f.shape) for f in schema.fields] == [("image", "float32", (4,)), ("label", "int64", ())]
    assert schema.examples is None
    assert dataset.schema(reveal_examples=True).examples == dataset.examples == 10
    assert dataset.holdout is None
    assert dataset.holdout_examples == 0


def test_repr_shows_neither_values_nor_counts(tmp_path: Path) -> None:
    dataset = load_dataset("d", save_npz(tmp_path / "d.npz", x=np.full((777, 2), 123456.0)))
    assert repr(dataset) == "Dataset(d: x float64[2])"


def test_arrays_cannot_be_written_by_what_reads_them(digits: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        load_dataset("digits", digits).arrays["image"][0, 0] = 1


def test_big_endian_and_fortran_arrays_become_native_and_contiguous(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(3, 2)
    path = save_npz(tmp_path / "d.npz", x=np.asfortranarray(values).astype(">f4", order="F"))
    x = load_dataset("d", path).arrays["x"]
    assert x.dtype == np.float32
    assert x.dtype.isnative
    assert x.flags.c_contiguous
    np.testing.assert_array_equal(x, values)


@given(count=st.integers(2, 300), fraction=st.floats(0.001, 0.6))
def test_hold_out_parts_every_example_once_and_alike_every_time(count: int, fraction: float) -> None:
    arrays = {"x": np.arange(count)}
    if round(count * fraction) >= count:
        return
    training, holdout = split(arrays, fraction, where="d")
    assert holdout is not None
    assert len(training["x"]) > 0
    assert len(holdout["x"]) > 0
    assert sorted([*training["x"], *holdout["x"]]) == list(range(count))
    again = split({"x": np.arange(count)}, fraction, where="d")[1]
    assert again is not None
    np.testing.assert_array_equal(again["x"], holdout["x"])


@pytest.mark.parametrize("case", HOLD_OUTS, ids=lambda case: case["id"])
def test_hold_out_takes_the_examples_of_the_specification(case: dict[str, Any]) -> None:
    examples, fraction = case["input"]["examples"], case["input"]["fraction"]
    arrays = {"x": np.arange(examples)}
    if case["result"] == "invalid":
        with pytest.raises(DatasetError):
            split(arrays, fraction, where="d")
        return
    _, holdout = split(arrays, fraction, where="d")
    assert ([] if holdout is None else holdout["x"].tolist()) == case["output"]["held"]


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_hold_out_out_of_range_is_refused(digits: Path, fraction: float) -> None:
    with pytest.raises(DatasetError, match="at least 0 and less than 1"):
        load_dataset("d", digits, holdout_fraction=fraction)


def test_hold_out_that_leaves_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="leaves none"):
        load_dataset("d", save_npz(tmp_path / "d.npz", x=np.ones(1)), holdout_fraction=0.5)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([{}], dtype=object), "'x' is object, expected one of float32"),
        (np.ones(3, dtype=np.float16), "'x' is float16"),
        (np.array(["a"]), "'x' is str32"),
        (np.float32(1.0), "0 axes"),
        (np.ones((0, 4)), "no examples"),
        (np.ones((1,) * 10), "10 axes"),
    ],
)
def test_npz_arrays_that_are_no_field_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset("d", save_npz(tmp_path / "d.npz", x=array))


def test_fields_of_unequal_length_are_refused_with_both_lengths(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="x has 3, y has 2"):
        load_dataset("d", save_npz(tmp_path / "d.npz", x=np.ones(3), y=np.ones(2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_file_field_and_first_index(tmp_path: Path, bad: float) -> None:
    x = np.zeros((700, 2000), dtype=np.float32)  # more than one tile of the scan
    x[650, 3] = x[699, 1] = bad
    with pytest.raises(DatasetError, match=r"d\.npz: field 'x' is NaN or infinite at \[650, 3\]"):
        load_dataset("d", save_npz(tmp_path / "d.npz", x=x))


def npy_with_header(shape: str, payload: bytes = b"") -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + payload


def save_members(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_header_that_promises_more_than_its_entry_holds_is_refused_before_allocating(tmp_path: Path) -> None:
    path = save_members(tmp_path / "d.npz", {"x.npy": npy_with_header("(268435456, 1000)", b"1234")})
    with pytest.raises(DatasetError, match="needs 1073741824000 bytes"):
        load_dataset("d", path)


def test_header_with_a_negative_axis_is_refused(tmp_path: Path) -> None:
    path = save_members(tmp_path / "d.npz", {"x.npy": npy_with_header("(-1, 4)")})
    with pytest.raises(DatasetError):
        load_dataset("d", path)


def test_zip_bomb_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    path = save_members(tmp_path / "d.npz", {"x.npy": npy_with_header("(2000000,)", bytes(8_000_000))})
    assert path.stat().st_size < 20_000
    with pytest.raises(DatasetError, match="when unpacked, at most 1000000"):
        load_dataset("d", path, max_bytes=1_000_000)


def test_arrays_above_the_limit_are_refused(digits: Path) -> None:
    with pytest.raises(DatasetError, match="its arrays take 240 bytes, at most 239"):
        load_dataset("d", digits, max_bytes=239)
    assert load_dataset("d", digits, max_bytes=240).examples == 10


def test_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds 'readme\.txt'"):
        load_dataset("d", save_members(tmp_path / "d.npz", {"readme.txt": b"hello"}))


@given(data=st.binary(max_size=300))
def test_broken_npz_gives_a_dataset_error_alone(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "d.npz"
    path.write_bytes(data)
    with pytest.raises(DatasetError):
        load_dataset("d", path)


@given(at=st.integers(0, 100_000), value=st.integers(0, 255), write=st.sampled_from([np.savez, np.savez_compressed]))
def test_npz_with_one_byte_changed_loads_or_gives_a_dataset_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int, write: Callable[..., None]
) -> None:
    buffer = io.BytesIO()
    write(buffer, x=np.ones((3, 2), dtype=np.float32))
    data = bytearray(buffer.getvalue())
    data[at % len(data)] = value
    path = tmp_path_factory.mktemp("fuzz") / "d.npz"
    path.write_bytes(data)
    with contextlib.suppress(DatasetError):
        load_dataset("d", path)


def write_csv(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "d.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_columns_are_scalars_integers_where_all_cells_are(tmp_path: Path) -> None:
    arrays = load_dataset("d", write_csv(tmp_path, "age,weight,label\n1,2,0\n3,4.5,1\n\n")).arrays
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "age": "int64",
        "weight": "float32",
        "label": "int64",
    }
    assert arrays["weight"].tolist() == [2.0, 4.5]


def test_csv_columns_group_into_one_field_in_header_order(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "id,p_0,p_1,p_2,p_3,y\nanna,1,2,3,4,0\nbert,5,6,7,8,1\n")
    groups = {"image": ColumnGroup(columns=["p_*"], dtype="float32", shape=[2, 2])}
    arrays = load_dataset("d", path, columns=groups, ignore=["id"]).arrays
    assert set(arrays) == {"image", "y"}
    assert arrays["image"].tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert arrays["image"].dtype == np.float32


def test_csv_bool_and_small_integers(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "a,b\ntrue,255\n0,0\n")
    groups = {
        "a1": ColumnGroup(columns=["a"], dtype="bool", shape=[]),
        "b1": ColumnGroup(columns=["b"], dtype="uint8"),
    }
    arrays = load_dataset("d", path, columns=groups).arrays
    assert arrays["a1"].tolist() == [True, False]
    assert arrays["a1"].dtype == np.bool_
    assert arrays["b1"].tolist() == [[255], [0]]
    assert arrays["b1"].dtype == np.uint8


@pytest.mark.parametrize("cell", ["", "x", "nan", "inf", "1_0", "\u0661", "1e400", "3.5e38"])
def test_csv_cell_that_is_no_number_is_refused_with_row_and_column(tmp_path: Path, cell: str) -> None:
    path = write_csv(tmp_path, f"a,b\n1,2\n3,{cell}\n")
    with pytest.raises(DatasetError, match=r"d\.csv: row 3, column 'b': expected a finite number, got"):
        load_dataset("d", path)
    with pytest.raises(DatasetError, match="row 3, column 'b': expected float32"):
        load_dataset("d", path, columns={"v": ColumnGroup(columns=["*"])})


@pytest.mark.parametrize(
    ("dtype", "cell"), [("uint8", "256"), ("int32", "2147483648"), ("int64", "1.5"), ("bool", "2")]
)
def test_csv_cell_outside_its_dtype_is_refused(tmp_path: Path, dtype: str, cell: str) -> None:
    path = write_csv(tmp_path, f"a\n1\n{cell}\n")
    with pytest.raises(DatasetError, match=f"row 3, column 'a': expected {dtype}, got '{cell}'"):
        load_dataset("d", path, columns={"v": ColumnGroup(columns=["a"], dtype=dtype)})


def test_csv_integers_keep_every_digit(tmp_path: Path) -> None:
    assert load_dataset("d", write_csv(tmp_path, f"a\n{2**63 - 1}\n")).arrays["a"].tolist() == [2**63 - 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header"),
        ("a,a\n1,2\n", "'a' stands twice"),
        ("a,b\n1\n", "row 2 has 1 columns, expected 2"),
        ("a\n", "no examples"),
        ('a\n"1\n', "no UTF-8 .csv file"),
        ("a b\n1\n", "field name 'a b'"),
    ],
)
def test_csv_that_is_no_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset("d", write_csv(tmp_path, text))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"v": ColumnGroup(columns=["q*"])}, "no column matches 'q\\*'; the file has a, b"),
        ({"v": ColumnGroup(columns=["*"]), "w": ColumnGroup(columns=["a"])}, "already taken by 'v'"),
        ({"v": ColumnGroup(columns=["a"], dtype="float16")}, "expected one of float32"),
        ({"v": ColumnGroup(columns=["*"], shape=[3])}, r"shape \[3\] does not hold its 2 columns"),
        ({"a": ColumnGroup(columns=["b"])}, "is a group and also a column"),
        ({"v": ColumnGroup(columns=[])}, "lists no columns"),
    ],
)
def test_csv_groups_that_do_not_fit_the_header_are_refused(
    tmp_path: Path, groups: dict[str, ColumnGroup], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset("d", write_csv(tmp_path, "a,b\n1,2\n"), columns=groups)


def test_csv_whose_values_take_more_than_the_limit_is_refused_while_reading(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "a\n" + "1\n" * 1000)
    with pytest.raises(DatasetError, match="more than 4000 bytes"):
        load_dataset("d", path, max_bytes=4000)


def make_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> str:
    name = f"owner_data_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"import numpy as np\n{body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_entry_point_is_called_and_its_arrays_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_module(tmp_path, monkeypatch, "kept = {'x': np.ones((3, 2))}\ndef data(): return kept")
    dataset = load_dataset("d", f"{module}:data")
    __import__(module).kept["x"][:] = 5
    assert dataset.arrays["x"].tolist() == [[1, 1]] * 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "has no data"),
        ("def data(): raise RuntimeError('secret row')", "raised RuntimeError"),
        ("def data(): return [1]", "returned list, expected a dict"),
        ("def data(): return {'x': [1]}", "'x' is list, expected a numpy array"),
        ("def data(): return {'x': np.array([None])}", "'x' is object"),
        ("def data(): return {}", "0 fields"),
    ],
)
def test_entry_point_that_gives_no_dataset_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        load_dataset("d", make_module(tmp_path, monkeypatch, body) + ":data")
    assert "secret row" not in str(caught.value)


def test_missing_module_and_missing_file_and_unknown_source_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="on PYTHONPATH"):
        load_dataset("d", "no_such_module_here:data")
    with pytest.raises(DatasetError, match="No such file"):
        load_dataset("d", tmp_path / "none.npz")
    with pytest.raises(DatasetError, match=r"expected a \.npz file"):
        load_dataset("d", "data.parquet")


def test_dataset_with_a_hold_out_of_other_fields_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"x float32\[\], the hold-out has x float64\[\]"):
        Dataset("d", {"x": np.ones(2, np.float32)}, {"x": np.ones(2, np.float64)})


def test_datasets_file_loads_each_table_relative_to_itself(tmp_path: Path, digits: Path) -> None:
    (tmp_path / "t.csv").write_text("p1,p2,y\n1,2,0\n3,4,1\n")
    path = tmp_path / "datasets.toml"
    path.write_text(
        '[datasets.digits]\nsource = "digits.npz"\nholdout = 0.2\n'
        '[datasets.table]\nsource = "t.csv"\n'
        '[datasets.table.fields.image]\ncolumns = ["p*"]\ndtype = "float32"\n'
    )
    digits_set, table = load_datasets_file(path)
    assert (digits_set.name, digits_set.examples, digits_set.holdout_examples) == ("digits", 8, 2)
    assert table.arrays["image"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected tables named \[datasets.NAME\]"),
        ("[datasets.a]\nsource='a.npz'\nhold_out=0.1\n", "unknown key hold_out; known keys are fields, holdout"),
        (
            "[datasets.a.fields.x]\ncolumns=['a']\ntype='f'\n",
            "unknown key type; known keys are columns, dtype, shape",
        ),
        ("[datasets.a]\nholdout=0.1\n", "missing required field `source`"),
        ("[other]\n", "unknown key other; known keys are datasets"),
        ("[datasets\n", "is no TOML"),
        ("datasets = 3\n", "expected tables named"),
        ("[datasets]\na = 3\n", "Expected `object`"),
    ],
)
def test_datasets_file_that_means_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "datasets.toml"
    path.write_text(text)
    with pytest.raises(OwnerFileError, match=message):
        load_datasets_file(path)


def test_datasets_file_that_anybody_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "datasets.toml"
    path.write_text("")
    path.chmod(0o666)
    with pytest.raises(OwnerFileError, match="chmod o-w"):
        load_datasets_file(path)
