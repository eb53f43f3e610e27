"""The package's loaders read the files that the Python node reads, to the same bits, and refuse what it refuses."""

import json
import os
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

from python_node.datasets import ColumnGroup, load_dataset
from python_node.errors import DatasetError
from tests.js.process import SCRIPTS


@pytest.fixture
def loaded(package):
    """Loads files with the package: a list of (path, options) to what came of each."""

    def load(asked):
        lines = [json.dumps({"path": str(path), "options": {"name": "data"} | options}) for path, options in asked]
        done = subprocess.run(
            ["node", str(SCRIPTS / "datasets.mjs")],
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return load


def same(found, arrays):
    expected = {
        name: {"dtype": array.dtype.name, "shape": list(array.shape[1:]), "data": array.tobytes().hex()}
        for name, array in arrays.items()
    }
    return found["fields"] == expected


def test_npz_files_of_numpy_come_out_bit_by_bit(loaded, tmp_path):
    random = np.random.default_rng(5)
    image = random.normal(size=(7, 3, 2))
    arrays = {
        "f4": image.astype("<f4"),
        "f8": image,
        "i4": random.integers(-(2**31), 2**31, (7, 2), dtype="i4"),
        "i8": random.integers(-(2**63), 2**63 - 1, 7, dtype="i8"),
        "u1": random.integers(0, 256, (7, 4, 1), dtype="u1"),
        "b1": random.integers(0, 2, 7).astype(bool),
        "swapped": image.astype(">f4"),
        "columns": np.asfortranarray(image.astype("<f8")),
    }
    np.savez(tmp_path / "plain.npz", **arrays)
    np.savez_compressed(tmp_path / "packed.npz", **arrays)
    expected = load_dataset("data", tmp_path / "plain.npz").arrays
    for found in loaded([(tmp_path / name, {}) for name in ("plain.npz", "packed.npz")]):
        assert same(found, expected)


TABLES = {
    "plain": ("a,b\n1,2\n3,4\n", {}),
    "widens": ("a,b\n1,2\n3.5,-4e-3\n.5,+6.\n", {}),
    "large": ("a\n9007199254740993\n-9223372036854775808\n", {}),
    "quoted": ('"a","b"\r\n"1","2"\r\n\r\n 3 ,4\r\n', {}),
    "groups": ("p_1,p_0,p_2,label\n1,2,3,9\n4,5,6,8\n", {"image": {"columns": ["p_*"], "dtype": "float32"}}),
    "bytes": ("p_0,p_1,y\n0,255,true\n7,8,FALSE\n", {"y": {"columns": ["y"], "dtype": "bool", "shape": []}}),
    "rounding": ("a\n0.1\n16777217\n3.4028234e38\n1e-46\n", {}),
    "short row": ("a,b\n1\n", {}),
    "word": ("a\nmany\n", {}),
    "nan": ("a\nnan\n", {}),
    "infinite": ("a\ninf\n", {}),
    "too large": ("a\n1e39\n", {}),
    "beyond int64": ("a\n9223372036854775808\n0.5\n", {}),
    "underscore": ("a\n1_000\n", {}),
    "other digits": ("a\n\u0661\n", {}),
    "twice": ("a,a\n1,2\n", {}),
    "open quote": ('a\n"1\n', {}),
    "after quote": ('a\n"1"2\n', {}),
    "empty": ("", {}),
    "no rows": ("a\n", {}),
    "bad name": ("a b\n1\n", {}),
}


def test_csv_tables_come_out_as_in_the_python_node_or_are_refused_by_both(loaded, tmp_path):
    asked = []
    for number, (text, columns) in enumerate(TABLES.values()):
        path = tmp_path / f"{number}.csv"
        path.write_text(text, encoding="utf-8", newline="")
        asked.append((path, {"columns": columns}))
    refused = set()
    for name, (path, options), found in zip(TABLES, asked, loaded(asked), strict=True):
        groups = {field: ColumnGroup(**group) for field, group in options["columns"].items()}
        try:
            arrays = load_dataset("data", path, columns=groups).arrays
        except DatasetError:
            assert "refused" in found, name
            refused.add(name)
        else:
            assert same(found, arrays), (name, found)
    broken = list(TABLES)[list(TABLES).index("short row") :]
    assert refused == set(broken) - {"beyond int64"}  # one that widens to float32


CELLS = [
    *("0", "1", "-2", "+5", "255", "3.5", ".5", "6.", "-4e-3", "1E3", " 7", "8 ", "\t9", "9223372036854775807"),
    *(
        '"4"',
        '"1.5"',
        '"a,b"',
        '"a""b"',
        'a"b',
        '""',
        "",
        "x",
        "nan",
        "-inf",
        "1e39",
        "1e999",
        "1_0",
        "0x1",
        "\u0661",
        "1 2",
    ),
    *("true", "False", "--1", "1e", "1.2.3", "\u00a01", "\x0b1"),
]


def test_random_tables_come_out_alike_or_are_refused_by_both(loaded, tmp_path):
    random = np.random.default_rng(11)
    asked = []
    for number in range(400):
        width = int(random.integers(1, 4))
        plain = CELLS[: 14 if number % 2 else len(CELLS)]
        rows = [
            [plain[i] for i in random.integers(0, len(plain), width + (random.random() < 0.02))]
            for _ in range(random.integers(1, 5))
        ]
        end = ("\n", "\r\n", "\r")[number % 3]
        text = end.join([",".join(f"c{i}" for i in range(width)), *(",".join(row) for row in rows)])
        path = tmp_path / f"{number}.csv"
        path.write_text(text + end * int(random.integers(0, 3)), encoding="utf-8", newline="")
        dtype = ("float32", "float64", "int32", "uint8", "bool", None)[int(random.integers(0, 6))]
        columns = {} if dtype is None else {"all": {"columns": ["*"], "dtype": dtype}}
        asked.append((path, {"columns": columns}))
    taken = 0
    for (path, options), found in zip(asked, loaded(asked), strict=True):
        groups = {field: ColumnGroup(**group) for field, group in options["columns"].items()}
        try:
            arrays = load_dataset("data", path, columns=groups).arrays
        except DatasetError:
            arrays = None
        is_alike = "refused" in found if arrays is None else "fields" in found and same(found, arrays)
        assert is_alike, (path.read_bytes(), options, found, arrays)
        taken += arrays is not None
    assert 50 < taken < 350


def test_a_hold_out_has_the_examples_it_has_in_the_python_node(loaded, tmp_path):
    sizes = [(37, 0.2), (45, 0.5), (300, 0.31), (5000, 0.123)]
    for count, _ in sizes:
        rows = np.arange(3 * count, dtype="f4").reshape(count, 3)
        np.savez(tmp_path / f"{count}.npz", x=rows, label=np.arange(count))
    every = loaded([(tmp_path / f"{count}.npz", {"holdOut": fraction}) for count, fraction in sizes])
    for (count, fraction), found in zip(sizes, every, strict=True):
        dataset = load_dataset("data", tmp_path / f"{count}.npz", holdout_fraction=fraction)
        assert found["heldOut"] == dataset.holdout_examples
        assert dataset.holdout is not None
        arrays = {name: np.concatenate([dataset.arrays[name], dataset.holdout[name]]) for name in dataset.arrays}
        assert same(found, arrays)


def png(pixels):
    """A PNG file of bytes [height, width] or [height, width, 3]."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture
def pictured(package):
    """What a page's loader makes of picture files: (name, bytes) and options to fields."""
    if not Path("/usr/bin/chromium").exists() and not os.environ.get("CI"):
        pytest.skip("needs /usr/bin/chromium (as root, `make js` installs it)")

    def load(files, **options):
        given = {"files": [[name, data.hex()] for name, data in files], "options": {"name": "pictures"} | options}
        done = subprocess.run(
            ["node", str(SCRIPTS / "pictures-in-chromium.mjs")],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return load


def test_a_page_reads_pictures_of_the_right_size_to_the_bit_of_their_bytes(pictured):
    random = np.random.default_rng(8)
    grey = random.integers(0, 256, (2, 8, 8), dtype="u1")
    found = pictured([("3_a.png", png(grey[0])), ("7_b.png", png(grey[1]))], size=[8, 8], labels="prefix", scale=16)
    assert found["label"] == {"dtype": "int64", "shape": [], "data": [3, 7]}
    assert found["image"]["shape"] == [1, 8, 8]
    # brightness is a weighted sum of three equal bytes: equal but for rounding of binary32
    np.testing.assert_allclose(found["image"]["data"], grey.ravel() / 255 * 16, atol=2e-6 * 16)
    colour = random.integers(0, 256, (1, 6, 4, 3), dtype="u1")
    found = pictured([("x.png", png(colour[0]))], size=[4, 6], labels="none", channels=3)
    assert found["image"]["shape"] == [3, 6, 4]
    np.testing.assert_allclose(found["image"]["data"], colour.transpose(0, 3, 1, 2).ravel() / 255, atol=1e-6)


def test_a_page_scales_pictures_by_the_mean_of_their_pixels_and_refuses_what_is_none(pictured):
    blocks = np.kron(np.arange(16, dtype="u1").reshape(4, 4) * 17, np.ones((4, 4), dtype="u1"))
    found = pictured([("x.png", png(blocks))], size=[4, 4], labels="none", flat=True)
    assert found["image"]["shape"] == [16]
    # browsers smooth a little over the edges of blocks: within one fifteenth, the step between neighbours
    np.testing.assert_allclose(found["image"]["data"], np.arange(16) / 15, atol=1 / 15)
    refused = pictured([("x.png", b"no picture")], size=[4, 4], labels="none")["refused"]
    assert refused == "x.png: is no picture that this browser can decode"
