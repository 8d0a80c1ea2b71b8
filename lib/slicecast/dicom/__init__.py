"""Scans and masks as DICOM objects: what a folder holds, NIfTI as series, DICOM SEG and RTSTRUCT."""
