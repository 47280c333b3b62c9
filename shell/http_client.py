"""httpx, without the command of its own that its package loads with it where click is installed."""

from shell import light_imports

with light_imports.without("click"):
    import httpx

__all__ = ["httpx"]
