"""Where judging happens: worker processes on this machine."""

from warpsmith.cluster.local import LocalExecutor

__all__ = ["LocalExecutor"]
