"""The version, where it can be read without the package's metadata."""

__version__ = "0.1.0"
