"""Whether a file that ITK wrote holds all voxels: on a full disk it leaves some out and says nothing."""

import re
from pathlib import Path

_NIFTI_HEADER = 352  # Bytes, with those that tell of extensions
_GZIP_COUNT = 4  # Bytes at the end of a gzip stream, the length of what was packed modulo 2**32 (RFC 1952, 2.3.1)


def is_whole(file: Path, ending: str, voxel_bytes: int) -> bool:
    """Tell whether a NIfTI, NRRD or MetaImage file as ITK writes it, of so many bytes of voxels, goes to its end."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(1 << 16)
        stream.seek(max(0, size - _GZIP_COUNT))
        packed = int.from_bytes(stream.read(), "little")
    if ending == ".nii.gz":
        return packed == (_NIFTI_HEADER + voxel_bytes) % 2**32
    start = {".nii": _NIFTI_HEADER, ".nrrd": head.find(b"\n\n") + 2, ".mha": head.find(b"LOCAL\n") + 6}[ending]
    if b"encoding: gzip" in head[:start]:
        return packed == voxel_bytes % 2**32
    said = re.search(rb"CompressedDataSize = (\d+)", head[:start])
    return size == start + (int(said[1]) if said else voxel_bytes)
