"""The command line. Each file here is one command; :mod:`slicecast.cli.main` finds and mounts them."""
