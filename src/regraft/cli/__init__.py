"""The command line: arguments in, one library call, text out; heavy imports inside commands."""

from regraft.cli.app import main

__all__ = ["main"]
