"""Use cases shared by the command line, the MONAI Label app and the server."""
