"""What the user declares: nodes, mapspecs, and the graph that names make of them.

Pure values; knows nothing of storage, plans or execution.
"""
