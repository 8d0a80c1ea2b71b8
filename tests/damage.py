"""Small files of every format, and ways to damage their headers."""

import gzip
import io
import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
from builders import phantom
from hypothesis import strategies as st
from labelserver import ROOT

from slicecast.volume import write_volume

SERIES = sorted((ROOT / "sample-data" / "dicom" / "ct_abdomen_dicom").glob("*.dcm"))

ODD_WORDS = (b"", b"0", b"-1", b"1", b"nan", b"inf", b"1e308", b"-1e-320", b"99999999999999999999", b"\x00",
             b"\xff\xfe", b"0x10", b"1,5", b"4294967296", b"2147483647", b"%n%s", b"..", b" ", b"1 1")  # fmt: skip
"""In place of a number in a header of text."""
ODD_FLOATS = (0.0, -1.0, float("nan"), float("inf"), 1e38, 1e-38, -1e38, 0.5, 352.5)
ODD_INTEGERS = (0, -1, 1, 2, 7, 8, 100, 32767, -32768, 4096)

NIFTI_FIELDS = (
    *((40 + 2 * n, "<h") for n in range(8)),  # dim
    *((68 + 2 * n, "<h") for n in range(3)),  # intent_code, datatype, bitpix
    *((76 + 4 * n, "<f") for n in range(8)),  # pixdim
    *((place, "<f") for place in (108, 112, 116)),  # vox_offset, scl_slope, scl_inter
    *((place, "<h") for place in (252, 254)),  # qform_code, sform_code
    *((256 + 4 * n, "<f") for n in range(18)),  # quaternion, offset, matrix
    (0, "<i"),
)
"""Where the numbers of a NIfTI header lie, and their type."""

DICOM_WORDS = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
               "NumberOfFrames", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness",
               "RescaleSlope", "RescaleIntercept", "PhotometricInterpretation", "Modality", "SeriesInstanceUID",
               "SOPInstanceUID", "StudyInstanceUID", "InstanceNumber", "WindowCenter", "WindowWidth",
               "SpecificCharacterSet", "PatientName", "PlanarConfiguration", "SOPClassUID")  # fmt: skip
DICOM_VALUES = ("", "0", "-1", "nan", "1e400", "9" * 30, "0\\0", "0\\0\\0", "1\\2\\3\\4\\5\\6\\7", "..", "1.2.3",
                "\u202e", "ISO 2022 IR 999", "RGB", "YBR_FULL", "x" * 300)  # fmt: skip
DICOM_NUMBERS = (0, 1, 3, 7, 12, 17, 64, 4096, 65535)
SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.50",
            "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5", "1.2.3")  # fmt: skip
"""What the file is not: its pixels are not compressed."""


def small_files(folder: Path) -> dict[str, bytes]:
    """One small file of every format."""
    small, files = phantom().volume, {}
    for ending in (".nii", ".nrrd", ".mha"):
        files[ending] = write_volume(folder / f"small{ending}", small, compress=False).read_bytes()
    files[".nii.gz"] = gzip.compress(files[".nii"], mtime=0)
    files[".dcm"] = SERIES[0].read_bytes()
    return files


def damaged(files: dict[str, bytes]) -> st.SearchStrategy[tuple[str, bytes]]:
    """Ending and content of a damaged file."""
    return st.sampled_from(sorted(files)).flatmap(lambda ending: st.tuples(st.just(ending), _of(ending, files[ending])))


def _of(ending: str, content: bytes) -> st.SearchStrategy[bytes]:
    if ending == ".nii.gz":
        inside = _of(".nii", gzip.decompress(content)).map(lambda changed: gzip.compress(changed, mtime=0))
        return st.one_of(inside, inside, _bytes_changed(content, 40))
    end = _header_end(ending, content)
    ways = {".nii": _fields, ".nrrd": _words, ".mha": _words, ".dcm": _attributes}
    return st.one_of(_bytes_changed(content, end), ways[ending](content, end), _moved(content, end))


def _header_end(ending: str, content: bytes) -> int:
    marks = {".nrrd": b"\n\n", ".mha": b"LOCAL\n", ".dcm": b"\xe0\x7f\x10\x00"}
    return 352 if ending == ".nii" else content.index(marks[ending]) + 8


def _bytes_changed(content: bytes, end: int) -> st.SearchStrategy[bytes]:
    """Some bytes of the header are others, and the end may be cut off."""

    def change(changes: list[tuple[int, int]], keep: float) -> bytes:
        changed = bytearray(content)
        for place, value in changes:
            changed[place] = value
        return bytes(changed[: max(int(len(changed) * keep), 1)])

    changes = st.lists(st.tuples(st.integers(0, end - 1), st.integers(0, 255)), min_size=1, max_size=5)
    return st.builds(change, changes, st.sampled_from([1.0, 1.0, 1.0, 0.5, 0.01]))


def _moved(content: bytes, end: int) -> st.SearchStrategy[bytes]:
    """A piece of the header is there twice, or missing."""

    def move(start: int, length: int, twice: bool) -> bytes:
        piece = content[start : start + length]
        return content[:start] + (piece * 2 if twice else b"") + content[start + length :]

    return st.builds(move, st.integers(0, end - 1), st.integers(1, 60), st.booleans())


def _fields(content: bytes, end: int) -> st.SearchStrategy[bytes]:
    def change(changes: list[tuple[tuple[int, str], int]]) -> bytes:
        changed = bytearray(content)
        for (place, kind), number in changes:
            odd = ODD_FLOATS if kind == "<f" else ODD_INTEGERS
            struct.pack_into(kind, changed, place, odd[number % len(odd)])
        return bytes(changed)

    one = st.tuples(st.sampled_from(NIFTI_FIELDS), st.integers(0, 89))
    return st.lists(one, min_size=1, max_size=4).map(change)


def _words(content: bytes, end: int) -> st.SearchStrategy[bytes]:
    places = [match.span() for match in re.finditer(rb"[-+.\w]+", content[:end])]

    def change(changes: list[tuple[tuple[int, int], bytes]]) -> bytes:
        changed = content
        for (start, stop), word in sorted(changes, reverse=True):
            changed = changed[:start] + word + changed[stop:]
        return changed

    one = st.tuples(st.sampled_from(places), st.sampled_from(ODD_WORDS))
    return st.lists(one, min_size=1, max_size=3, unique_by=lambda change: change[0]).map(change)


def _attributes(content: bytes, end: int) -> st.SearchStrategy[bytes]:
    odd: st.SearchStrategy[Any] = st.sampled_from(DICOM_VALUES) | st.sampled_from(DICOM_NUMBERS) | st.none()
    changes = st.dictionaries(st.sampled_from(DICOM_WORDS), odd, min_size=1, max_size=3)
    syntax = st.none() | st.sampled_from(SYNTAXES)
    return st.builds(lambda change, other: _quietly(_with_attributes)(content, change, other), changes, syntax)


def _with_attributes(content: bytes, changes: dict[str, Any], syntax: str | None) -> bytes:
    """Replace or remove attributes; values that do not fit are written as text."""
    data, stream = pydicom.dcmread(io.BytesIO(content)), io.BytesIO()
    for word, value in changes.items():
        if value is None:
            if word in data:
                delattr(data, word)
        elif isinstance(value, int) and word != "SpecificCharacterSet":
            data.add_new(word, "US", value)
        else:
            data.add_new(word, "UT", str(value))
    data.save_as(stream, write_like_original=True)
    written = stream.getvalue()
    return written if syntax is None else _with_syntax(written, str(data.file_meta.TransferSyntaxUID), syntax)


def _with_syntax(content: bytes, old: str, new: str) -> bytes:
    """Call the pixels something that they are not."""
    tag = b"\x02\x00\x10\x00UI"
    place = content.index(tag) + len(tag)
    length = struct.unpack_from("<H", content, place)[0]
    text = new.encode() + b"\0" * (len(new) % 2)
    return content[:place] + struct.pack("<H", len(text)) + text + content[place + 2 + length :]


def _quietly(make: Callable[..., bytes]) -> Callable[..., bytes]:
    """Pydicom warns of values that do not fit, which is the point here."""

    def quiet(*arguments: Any) -> bytes:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            return make(*arguments)

    return quiet
