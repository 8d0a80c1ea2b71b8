"""What OHIF needs: the viewer, the studies over DICOMweb, and a PACS behind this server."""
