"""What the safetensors codec refuses, to read and to write: tables of hostile files, none of which costs memory."""

import json
import os

import numpy as np
import pytest
from layout import entry, plain, traced

from tinynet.errors import CheckpointError
from tinynet.train import safetensors as files

HUGE = 2**62
DEEP = 200_000
ONE = json.dumps(entry()).encode()
HOSTILE = {  # what is wrong: the header, the data
    "an empty header": (b"", b""), "not JSON": (b"{nonsense", b""), "not an object": (b"[]", b""),
    "space before the object": (b" {}", b""), "two objects": (b"{}{}", b""),
    "bytes that are no UTF-8": (b'{"\xff":{}}', b""), "UTF-16": ('{"a":1}'.encode("utf-16"), b""),
    "deep lists": (b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}", b""),
    "deep objects": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, b""),
    "a number of many digits": (b'{"a":' + b"9" * 10_000 + b"}", b""),
    "not a number": (b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,0]}}', b""),
    "a name twice": (b'{"a":%b,"a":%b}' % (ONE, ONE), bytes(8)),
    "a name twice, once escaped": (b'{"a":%b,"\\u0061":%b}' % (ONE, ONE), bytes(8)),
    "a key of an entry twice": (b'{"a":{"dtype":"F32",%b}' % ONE[1:], bytes(8)),
    "the metadata twice": (b'{"__metadata__":{},"__metadata__":{}}', b""),
    "metadata that is a list": ({"__metadata__": []}, b""), "metadata that is null": ({"__metadata__": None}, b""),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b""),
    "metadata in metadata": ({"__metadata__": {"a": {"b": "c"}}}, b""),
    "metadata that UTF-8 cannot hold": (b'{"__metadata__":{"a":"\\ud800"}}', b""),
    "offsets out of the file": ({"a": entry((HUGE,), (0, 4 * HUGE))}, bytes(8)),
    "an offset one byte out of the file": ({"a": entry((3,), (0, 3), "U8")}, bytes(2)),
    "the same bytes twice": ({"a": entry(), "b": entry()}, bytes(8)),
    "overlapping bytes": ({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
    "a hole at the start": ({"a": entry(offsets=(4, 12))}, bytes(12)),
    "a hole in between": ({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)),
    "a hole at the end": ({"a": entry()}, bytes(9)), "data of no tensor": ({}, bytes(8)),
    "nothing inside another's bytes": ({"a": entry(), "b": entry((0,), (4, 4))}, bytes(8)),
    "a boolean that is 2": ({"a": entry((2,), (0, 2), "BOOL")}, b"\x01\x02"),
}  # fmt: skip
ENTRIES = {  # of a tensor, over as much data as the offsets ask for, 8 bytes at most
    "null": None, "a list": ["F32", [2], [0, 8]], "no dtype": {"shape": [2], "data_offsets": [0, 8]},
    "a fourth key": {**entry(), "strides": [4]}, "an unknown dtype": entry(dtype="F33"),
    "a dtype NumPy lacks": entry((4,), dtype="BF16"), "a dtype in lower case": entry(dtype="f32"),
    "a dtype that is a list": entry(dtype=["F32"]), "a shape that is a number": {**entry(), "shape": 2},
    "a negative extent": entry((-2,)), "two negative extents": entry((-1, -2)), "a boolean extent": entry((True, 2)),
    "a fractional extent": entry((2.0,)), "an extent that is text": entry(("2",)),
    "an absurd shape": entry((HUGE, HUGE)), "a shape that wraps around to nothing": entry((HUGE, 4), (0, 0)),
    "a shape of nothing, but absurd": entry((0, HUGE, HUGE), (0, 0)), "an extent of 2**63": entry((0, 2**63), (0, 0)),
    "an extent of a thousand digits": entry((0, 10**1000), (0, 0)), "too many dimensions": entry((1,) * 65, (0, 4)),
    "a shape too large": entry((3,)), "a shape too small": entry((1,)), "one offset": entry(offsets=(0,)),
    "three offsets": entry(offsets=(0, 8, 8)), "boolean offsets": entry((1,), (False, True), "U8"),
    "fractional offsets": entry(offsets=(0, 8.0)), "negative offsets": entry(offsets=(-8, 0)),
    "offsets that go backwards": entry(offsets=(8, 0)),
}  # fmt: skip
HOSTILE |= {
    what: ({"a": value}, bytes(min(8, max(value["data_offsets"]))) if isinstance(value, dict) else b"")
    for what, value in ENTRIES.items()
}
NAMES = ["", "x" * 1001, "a\0b", "a\nb", "a\x1b[31mb", "a\x9bb", "a\u202eb", "a\u2028b", "\ud800", "..", "a..b",
         "/etc/passwd", "a/b", "a\\b"]  # fmt: skip
HOSTILE |= {f"the name {name[:20]!a}": ({name: entry()}, bytes(8)) for name in NAMES}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused(tmp_path, what):
    path = plain(tmp_path / "m", *HOSTILE[what])
    with pytest.raises(CheckpointError) as caught:
        files.read(path)
    error = caught.value
    assert error.where.startswith(str(path)) and error.expected and error.got and error.mend
    assert len(str(error)) < len(str(path)) + 800 and str(error).isprintable()


@pytest.mark.parametrize("length", [3, 100_000_001, 2**31, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file_or_the_formats_limit_is_refused_unread(tmp_path, length):
    with open(tmp_path / "m", "wb") as file:
        file.write(length.to_bytes(8, "little") + b"{}")
        file.truncate(100_000_009 if length == 100_000_001 else 10)
    with traced() as peak, pytest.raises(CheckpointError, match="header"):
        files.read(tmp_path / "m")
    assert peak() < 100_000


@pytest.mark.parametrize("what", ["an absurd shape", "offsets out of the file", "a shape of nothing, but absurd"])
def test_an_absurd_shape_allocates_nothing(tmp_path, what):
    path = plain(tmp_path / "m", *HOSTILE[what])
    with traced() as peak, pytest.raises(CheckpointError):
        files.read(path)
    assert peak() < 200_000


@pytest.mark.parametrize("digests", [None, "", "[]", "{}", '{"a":null}', '{"a":1}', '{"a":"00"}', '{"b":"00"}'])
def test_a_seal_put_on_a_wrong_list_of_checksums_helps_nobody(tmp_path, digests):
    head = {"tinynet.sha256": "0" * 64} | ({} if digests is None else {"tinynet.checksums": digests})
    text = json.dumps({"__metadata__": head, "a": entry()}, separators=(",", ":")).encode()
    head = len(text).to_bytes(8, "little") + text
    sealed = head.replace(b"0" * 64, files._seal(head), 1)
    (tmp_path / "m").write_bytes(sealed + bytes(8))
    with pytest.raises(CheckpointError, match="checksum"):
        files.read(tmp_path / "m", "require")


REFUSED = [({name: np.ones(2)}, {}, "name") for name in [*NAMES, "__metadata__", 3, None]]
REFUSED += [({"first": np.ones(2), "layer": value}, {}, "tensor 'layer'") for value in
            (np.ones(2, complex), np.array(["a"]), np.array([None]), np.zeros(2, "M8[s]"), np.zeros(2, [("a", "f4")]),
             [1.0], 1.0, np.float32(1), None)]  # fmt: skip
REFUSED += [
    ({}, metadata, "metadata")
    for metadata in (
        None,
        [],
        {"a": 1},
        {1: "a"},
        {"a": "\ud800"},
        {"tinynet.sha256": "x"},
        {"tinynet.checksums": "{}"},
    )
]
REFUSED += [({}, {"a": "x" * 10_000}, "header")]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_read_refuses_is_not_written(tmp_path, case, monkeypatch):
    monkeypatch.setattr(files, "_HEADER_LIMIT", 9999)  # a hundred megabytes take their time
    tensors, metadata, says = REFUSED[case]
    with pytest.raises(CheckpointError, match=says):
        files.write(tmp_path / "m", tensors, metadata)
    assert os.listdir(tmp_path) == []
