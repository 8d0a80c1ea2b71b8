"""`/slicecast/sessions`: what an annotator says, kept; the mask that follows from it, streamed."""
