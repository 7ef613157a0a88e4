"""Authors: whoever proposes programs."""

from warpsmith.author.protocol import REPAIR, Author, Context, Example, Proposal, Refusal

__all__ = ["REPAIR", "Author", "Context", "Example", "Proposal", "Refusal"]
