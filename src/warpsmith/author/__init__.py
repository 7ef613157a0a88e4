"""Authors: whoever proposes programs."""

from warpsmith.author.protocol import Author, Context, Proposal

__all__ = ["Author", "Context", "Proposal"]
