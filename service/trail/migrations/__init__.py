"""Alembic migrations of the trail."""
