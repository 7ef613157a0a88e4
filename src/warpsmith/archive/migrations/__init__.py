"""Alembic migrations of the archive's tables."""
