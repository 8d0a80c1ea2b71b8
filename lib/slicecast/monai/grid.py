"""The stored grid of an image, from its header where that is enough: clicks are checked before voxels are read."""

from pathlib import Path

import SimpleITK as sitk

from slicecast.volume import Geometry, read_volume
from slicecast.volume.itk import quiet_itk


def stored_geometry(image: Path) -> Geometry:
    """Read the grid of a file or DICOM folder.

    Raises:
        VolumeError: it holds no single 3D scan.
    """
    if image.is_file():
        quiet_itk()
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(image))
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            pass  # read_volume says in words what is wrong with the file
        else:
            if reader.GetDimension() == 3:
                return Geometry.from_image(reader)  # type: ignore[arg-type]
    return read_volume(image).geometry
