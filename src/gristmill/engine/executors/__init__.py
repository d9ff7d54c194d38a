"""Executors, one small file each."""
