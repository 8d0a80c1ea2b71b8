"""The Alembic revisions of the sessions' tables, from those of Slicecast 0.1.0 on."""
