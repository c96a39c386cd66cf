"""The tables of the trail."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables and their indexes."""
    op.create_table(
        "records",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("served", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.SmallInteger(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("gradient_norm", sa.Double(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("caller", sa.Text(), nullable=True),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("records_by_caller", "records", ["caller", "time"])
    op.create_index("records_by_level", "records", ["served", "level", "time"])
    op.create_index("records_by_outcome", "records", ["served", "outcome", "time"])
    op.create_index("records_by_request", "records", ["request_id", "time"])
    op.create_index("records_by_time", "records", ["time"])

    op.create_table(
        "served",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("model", "version", "digest"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "writers",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("process", sa.Integer(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("identity"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "checkpoints",
        sa.Column("writer", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["writer"],
            ["writers.number"],
        ),
        sa.PrimaryKeyConstraint("writer", "position"),
    )
    op.create_table(
        "segments",
        sa.Column("writer", sa.Integer(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("served", sa.Integer(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("from_time", sa.BigInteger(), nullable=False),
        sa.Column("to_time", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("judged", sa.Integer(), nullable=False),
        sa.Column("elevated", sa.Integer(), nullable=False),
        sa.Column("critical", sa.Integer(), nullable=False),
        sa.Column("out_of_range", sa.Integer(), nullable=False),
        sa.Column("withheld", sa.Integer(), nullable=False),
        sa.Column("norm_sum", sa.Double(), nullable=False),
        sa.Column("norm_maximum", sa.Double(), nullable=False),
        sa.Column("sketch", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["writer"],
            ["writers.number"],
        ),
        sa.PrimaryKeyConstraint("writer", "first", "served"),
    )
    op.create_index("segments_by_time", "segments", ["to_time"])

    op.create_table(
        "tombstones",
        sa.Column("writer", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["writer"],
            ["writers.number"],
        ),
        sa.PrimaryKeyConstraint("writer", "position"),
    )


def downgrade() -> None:
    """Drop them all."""
    op.drop_table("tombstones")
    op.drop_index("segments_by_time", table_name="segments")

    op.drop_table("segments")
    op.drop_table("checkpoints")
    op.drop_table("writers")
    op.drop_table("served")
    op.drop_index("records_by_time", table_name="records")
    op.drop_index("records_by_request", table_name="records")
    op.drop_index("records_by_outcome", table_name="records")
    op.drop_index("records_by_level", table_name="records")
    op.drop_index("records_by_caller", table_name="records")

    op.drop_table("records")
