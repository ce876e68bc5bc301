"""The version of Regraft, for everything that records which one wrote a file."""

__version__ = "0.1.0"
