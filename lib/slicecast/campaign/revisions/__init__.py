"""The Alembic revisions of a campaign's tables, from those of Slicecast 0.1.0 on."""
