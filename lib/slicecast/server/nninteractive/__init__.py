"""`/nninteractive`: the protocol of nnInteractive's clients (3D Slicer, napari), carried out by our own sessions.

Written from the facts of the protocol, which `docs/clients/nninteractive.md` lists; no code of that project is here.
"""
