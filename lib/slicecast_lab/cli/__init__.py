"""Commands of the laboratory: `slicecast lab`."""
