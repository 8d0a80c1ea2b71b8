"""Images and labels: the studies as files, DICOM series or on a PACS, and what clients upload."""
