"""Alembic's entry: migrates over the connection, and inside the transaction, that `connection.py` hands it."""

from alembic import context

from warpsmith.archive.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # Alembic believes that SQLite cannot roll back CREATE TABLE. It can, so a killed migration leaves nothing behind.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
