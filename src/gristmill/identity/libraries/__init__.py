"""Encodings of other libraries' values, a module per library.

Each has a function ``writers()`` from exact types to writers. It runs once a value of the library shows up,
so that nothing here imports a library which its user has not imported.
"""
