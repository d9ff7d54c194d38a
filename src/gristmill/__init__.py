"""Disk-cached, storage-backed map-reduce for plain Python functions."""
