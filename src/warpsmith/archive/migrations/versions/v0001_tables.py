"""The first tables, and triggers that refuse to change or delete a row of theirs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.String(16)
NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
MOMENT = sa.DateTime(timezone=True)
TABLES = ("tasks", "runs", "programs", "candidates", "proposals", "verdicts", "events")


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "tasks",
        sa.Column("key", KEY, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("functional_source", sa.Text, nullable=False),
        sa.Column("graph", sa.Text, nullable=False),
        sa.Column("tolerance", sa.Text, nullable=False),
        sa.Column("module_inputs", sa.Boolean, nullable=False),
        sa.Column("added_at", MOMENT, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("id", NUMBER, primary_key=True),
        sa.Column("task_key", KEY, sa.ForeignKey("tasks.key"), nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("warpsmith_version", sa.Text, nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
    )
    op.create_index("runs_by_task", "runs", ["task_key"])
    op.create_table(
        "programs",
        sa.Column("key", KEY, primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("added_at", MOMENT, nullable=False),
    )
    _create_candidates()
    _create_verdicts()
    op.create_table(
        "events",
        sa.Column("id", NUMBER, primary_key=True),
        sa.Column("run_id", NUMBER, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("added_at", MOMENT, nullable=False),
    )
    op.create_index("events_by_run", "events", ["run_id"])
    _forbid_changes()


def _create_candidates() -> None:
    op.create_table(
        "candidates",
        sa.Column("key", KEY, primary_key=True),
        sa.Column("task_key", KEY, sa.ForeignKey("tasks.key"), nullable=False),
        sa.Column("program_key", KEY, sa.ForeignKey("programs.key"), nullable=False),
        sa.Column("tunables", sa.Text, nullable=False),
        sa.Column("added_at", MOMENT, nullable=False),
    )
    op.create_index("candidates_by_task", "candidates", ["task_key"])
    op.create_index("candidates_by_program", "candidates", ["program_key"])
    op.create_table(
        "proposals",
        sa.Column("id", NUMBER, primary_key=True),
        sa.Column("run_id", NUMBER, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("candidate_key", KEY, sa.ForeignKey("candidates.key"), nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("cost_usd", sa.Float(53), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("added_at", MOMENT, nullable=False),
    )
    op.create_index("proposals_by_candidate", "proposals", ["candidate_key"])
    op.create_index("proposals_by_run", "proposals", ["run_id"])


def _create_verdicts() -> None:
    op.create_table(
        "verdicts",
        sa.Column("id", NUMBER, primary_key=True),
        sa.Column("run_id", NUMBER, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("candidate_key", KEY, sa.ForeignKey("candidates.key"), nullable=False),
        sa.Column("task_key", KEY, sa.ForeignKey("tasks.key"), nullable=False),
        sa.Column("judge_version", sa.Text, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("stage", sa.Integer, nullable=False),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("median_seconds", sa.Float(53)),
        sa.Column("timing_source", sa.Text),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("added_at", MOMENT, nullable=False),
    )
    op.create_index("verdicts_by_candidate", "verdicts", ["candidate_key", "judge_version", "device"])
    op.create_index("verdicts_by_task", "verdicts", ["task_key", "device", "passed", "median_seconds"])
    op.create_index("verdicts_by_run", "verdicts", ["run_id"])


def _forbid_changes() -> None:
    """Append-only is a promise of the database, not of the program that happens to write to it."""
    if op.get_bind().dialect.name == "sqlite":
        for table in TABLES:
            for action in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
                    "BEGIN SELECT RAISE(ABORT, 'the archive is append-only'); END"
                )
        return
    op.execute(
        "CREATE FUNCTION warpsmith_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the archive is append-only'; END $$"
    )
    for table in TABLES:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION warpsmith_append_only()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION warpsmith_append_only()"
        )
