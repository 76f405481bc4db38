import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Storage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skyshore.catalogue.errors import CorruptFile, UnsupportedGraph
from skyshore.catalogue.gguf_file import GgufFile
from tests.data.llm_tiny_gguf import TinyLlama, vocabulary, weights, write_tiny_gguf


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_metadata_and_tensors_are_what_the_reference_writer_wrote(tiny: Path) -> None:
    file = GgufFile.open(tiny)
    tokens, types, merges = vocabulary()
    assert file.metadata["general.architecture"] == "llama"
    assert file.metadata["llama.rope.freq_base"] == 10000.0
    assert file.metadata["tokenizer.ggml.add_bos_token"] is False
    assert file.metadata["tokenizer.ggml.tokens"] == tokens
    assert file.metadata["tokenizer.ggml.token_type"] == types
    assert file.metadata["tokenizer.ggml.merges"] == merges
    written = weights(TinyLlama())
    assert file.tensors.keys() == written.keys()
    for name, values in written.items():
        stored = Storage[file.tensors[name].quantisation]
        assert file.tensors[name].shape == values.shape
        expected = gguf.quants.dequantize(gguf.quants.quantize(values, stored), stored)
        np.testing.assert_array_equal(file.tensors[name].dense(), expected.reshape(values.shape))


def test_agrees_with_the_reference_reader(tiny: Path) -> None:
    ours = GgufFile.open(tiny)
    theirs = gguf.GGUFReader(tiny)
    assert [tensor.name for tensor in theirs.tensors] == list(ours.tensors)
    for tensor in theirs.tensors:
        np.testing.assert_array_equal(ours.tensors[tensor.name].raw.reshape(-1), tensor.data.view(np.uint8).reshape(-1))


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_off_anywhere_is_refused(tiny: Path, tmp_path: Path, share: float) -> None:
    whole = tiny.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CorruptFile):
        GgufFile.open(cut)


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(position=st.integers(0, 8000), value=st.integers(0, 255))
def test_a_damaged_header_gives_a_clear_error_or_reads_well(
    tiny: Path, tmp_path: Path, position: int, value: int
) -> None:
    data = bytearray(tiny.read_bytes())
    data[position] = value
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(data)
    try:
        GgufFile.open(damaged)
    except (CorruptFile, UnsupportedGraph) as error:
        assert str(damaged) in str(error)


@pytest.mark.parametrize("item", [4, 8], ids=["numbers", "strings"])
def test_an_array_longer_than_the_file_is_refused(tmp_path: Path, item: int) -> None:
    path = tmp_path / "long.gguf"
    entry = struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, item, 2**40)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry + bytes(64))
    with pytest.raises(CorruptFile, match="ends inside its header"):
        GgufFile.open(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    with pytest.raises(CorruptFile, match="missing or empty"):
        GgufFile.open(path)
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(CorruptFile, match="not a GGUF"):
        GgufFile.open(path)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 1, 0, 0))
    with pytest.raises(UnsupportedGraph, match="version 1"):
        GgufFile.open(path)


def test_metadata_of_the_wrong_kind_is_named(tiny: Path) -> None:
    file = GgufFile.open(tiny)
    with pytest.raises(CorruptFile, match=r"no metadata 'llama\.nothing'"):
        file.value("llama.nothing", int)
    with pytest.raises(CorruptFile, match=r"'general\.architecture' is a str, expected int"):
        file.value("general.architecture", int)
