"""What tasks are alike: the operators of each, and how large it is. Tasks that are there already are looked through."""

import json
import math
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, fill it from the graphs of all tasks, and forbid changes to it."""
    op.create_table(
        "kin",
        sa.Column("task_key", sa.String(16), sa.ForeignKey("tasks.key"), primary_key=True),
        sa.Column("operator", sa.Text, primary_key=True),
        sa.Column("operators", sa.Integer, nullable=False),
        sa.Column("elements", sa.Float(53), nullable=False),
    )
    op.create_index("kin_by_operator", "kin", ["operator"])
    connection = op.get_bind()
    tasks = sa.table("tasks", sa.column("key", sa.String), sa.column("graph", sa.Text))
    kin = sa.table("kin", *(sa.column(name) for name in ("task_key", "operator", "operators", "elements")))
    for key in connection.execute(sa.select(tasks.c.key)).scalars().all():
        graph = json.loads(connection.execute(sa.select(tasks.c.graph).where(tasks.c.key == key)).scalar_one())
        if rows := _rows(key, graph):
            connection.execute(sa.insert(kin), rows)
    _forbid_changes()


def _rows(key: str, graph: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each operator of a task. A copy of what the archive does today: this must never change."""
    operators = sorted({node["op"] for node in graph["nodes"]})
    arguments = [spec for kind in ("inputs", "parameters", "buffers", "constants") for spec in graph[kind]]
    specs = arguments + [spec for spec, _ in graph["outputs"]]
    elements = float(max(1, sum(math.prod(spec["shape"]) for spec in specs)))
    return [
        {"task_key": key, "operator": operator, "operators": len(operators), "elements": elements}
        for operator in operators
    ]


def _forbid_changes() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER kin_no_{action.lower()} BEFORE {action} ON kin "
                "BEGIN SELECT RAISE(ABORT, 'the archive is append-only'); END"
            )
        return
    op.execute(
        "CREATE TRIGGER kin_append_only BEFORE UPDATE OR DELETE ON kin "
        "FOR EACH ROW EXECUTE FUNCTION warpsmith_append_only()"
    )
    op.execute(
        "CREATE TRIGGER kin_no_truncate BEFORE TRUNCATE ON kin "
        "FOR EACH STATEMENT EXECUTE FUNCTION warpsmith_append_only()"
    )
