"""Reads a GGUF file: metadata and memory-mapped tensors. Every length is checked against the file before it is used.

The reader of the `gguf` package is not used: it is 30 times slower, and it does not check lengths (ADR 3).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from skyshore.catalogue.errors import CorruptFile, UnsupportedGraph

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_MAX_NAME_BYTES: Final = 1 << 24
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One weight. `raw` is [rows, bytes per row] of the file itself; `shape` is row-major, as numpy has it."""

    name: str
    shape: tuple[int, ...]
    quantisation: str
    """Name of the storage type, for example `Q4_1` or `F32`."""
    raw: NDArray[np.uint8]

    def dense(self) -> NDArray[np.float32]:
        """The weight in float32, shaped `shape`.

        Raises:
            UnsupportedGraph: the reader of the `gguf` package has no decoder for this storage type.
        """
        try:
            values = dequantize(self.raw, GGMLQuantizationType[self.quantisation])
        except NotImplementedError as error:
            raise UnsupportedGraph(
                f"tensor {self.name} is stored as {self.quantisation}, which cannot be decoded here; "
                "convert the model to Q4_1, Q8_0 or F16 first"
            ) from error
        return np.ascontiguousarray(values, dtype=np.float32).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class GgufFile:
    """What a GGUF file says: `metadata` by key, `tensors` by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]

    @classmethod
    def open(cls, path: Path) -> GgufFile:
        """Map `path` and read its header; tensor data is paged in when touched.

        Raises:
            CorruptFile: not a GGUF, or cut off, or lengths that cannot be.
            UnsupportedGraph: a version or storage type this reader does not know.
        """
        if not path.is_file() or path.stat().st_size < len(_MAGIC):
            raise CorruptFile(f"{path} is missing or empty; fetch the model again")
        data: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
        cursor = _Cursor(path, data)
        metadata, layout = _read_header(cursor)
        alignment = int(metadata.get("general.alignment", 32))
        if alignment <= 0 or alignment & (alignment - 1):
            raise CorruptFile(f"{path} claims an alignment of {alignment} bytes, which is no power of two")
        start = -(-cursor.position // alignment) * alignment
        tensors = {each.name: _map_tensor(path, data, start, each) for each in layout}
        return cls(path, metadata, tensors)

    def value(self, key: str, kind: type[Any], default: Any = None) -> Any:
        """Metadata `key` as `kind`, or `default`.

        Raises:
            CorruptFile: the key is needed and missing, or is of another kind.
        """
        found = self.metadata.get(key, default)
        if found is None:
            raise CorruptFile(f"{self.path} has no metadata {key!r}; it was not converted to the end")
        if kind is float and isinstance(found, int) and not isinstance(found, bool):
            return float(found)
        if not isinstance(found, kind):
            raise CorruptFile(f"{self.path}: metadata {key!r} is a {type(found).__name__}, expected {kind.__name__}")
        return found


class _Cursor:
    """Reads the header and refuses to read past the end of the file."""

    def __init__(self, path: Path, data: NDArray[np.uint8]) -> None:
        self.path = path
        self._view = data.data
        self.position = 0

    def take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self._view):
            raise CorruptFile(f"{self.path} ends inside its header, at byte {len(self._view)}; fetch the model again")
        piece = self._view[self.position : end]
        self.position = end
        return piece

    def scalar(self, kind: int) -> Any:
        form = _SCALARS.get(kind)
        if form is None:
            raise CorruptFile(f"{self.path} has metadata of unknown type {kind} at byte {self.position}")
        return form.unpack(self.take(form.size))[0]

    def text(self) -> str:
        length = self.scalar(10)
        if length > _MAX_NAME_BYTES:
            raise CorruptFile(f"{self.path} has a string of {length} bytes at {self.position}; the file is damaged")
        return bytes(self.take(length)).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.scalar(kind)
        item, count = self.scalar(4), self.scalar(10)
        if item == _STRING:
            return [self.text() for _ in range(count)]
        form = _SCALARS.get(item)
        if form is None:
            raise CorruptFile(f"{self.path} has an array of unknown type {item} at byte {self.position}")
        return [value for (value,) in form.iter_unpack(self.take(count * form.size))]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of the tensor table; `offset` counts bytes from the start of the data."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def _read_header(cursor: _Cursor) -> tuple[dict[str, Any], list[_Entry]]:
    path = cursor.path
    if bytes(cursor.take(4)) != _MAGIC:
        raise CorruptFile(f"{path} is not a GGUF file")
    version = cursor.scalar(4)
    if version not in _VERSIONS:
        raise UnsupportedGraph(f"{path} is GGUF version {version}; versions {_VERSIONS} are read here")
    tensor_count, pair_count = cursor.scalar(10), cursor.scalar(10)
    metadata: dict[str, Any] = {}
    for _ in range(pair_count):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.scalar(4))
    layout: list[_Entry] = []
    for _ in range(tensor_count):
        name = cursor.text()
        rank = cursor.scalar(4)
        if not 1 <= rank <= 4:
            raise CorruptFile(f"{path}: tensor {name!r} claims {rank} dimensions")
        shape = tuple(cursor.scalar(10) for _ in range(rank))[::-1]
        layout.append(_Entry(name, shape, cursor.scalar(4), cursor.scalar(10)))
    return metadata, layout


def _map_tensor(path: Path, data: NDArray[np.uint8], start: int, entry: _Entry) -> GgufTensor:
    name, shape = entry.name, entry.shape
    try:
        quantisation = GGMLQuantizationType(entry.kind)
    except ValueError as error:
        raise UnsupportedGraph(f"{path}: tensor {name} has the unknown storage type {entry.kind}") from error
    block, block_bytes = GGML_QUANT_SIZES[quantisation]
    if shape[-1] % block:
        raise CorruptFile(
            f"{path}: a row of {name} has {shape[-1]} values, no multiple of {quantisation.name}'s {block}"
        )
    rows = int(np.prod(shape[:-1], dtype=object))
    row_bytes = shape[-1] // block * block_bytes
    first = start + entry.offset
    end = first + rows * row_bytes
    if end > data.size:
        raise CorruptFile(f"{path} is cut off: {name} ends at byte {end} of {data.size}; fetch the model again")
    return GgufTensor(name, shape, quantisation.name, data[first:end].reshape(rows, row_bytes))
