"""Warpsmith for coding agents: an MCP server over the public functions, and a desk that judges for one agent.

What speaks MCP is loaded when there is something to serve.
"""

from warpsmith.server.serve import HTTP, STDIO, Transport, headless_agent, serve, skill

__all__ = ["HTTP", "STDIO", "Transport", "headless_agent", "serve", "skill"]
