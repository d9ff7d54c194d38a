"""One of several processes on one map: `python -m benchmarks.sharer STORE ITEMS`.

Says that it is ready, waits for a line, maps, and prints how many calls it has made.
"""

import sys

from benchmarks import functions
from gristmill import Engine, Pipeline, Store, node


def main() -> None:
    """Run what the command line says."""
    place, items = sys.argv[1:]
    nodes = [node(functions.busy, output_name="y", mapspec="x[i] -> y[i]")]
    engine = Engine(map_executor="sequential")
    with Store.temporary() as elsewhere:  # what a first map imports is not what is measured
        Pipeline(nodes, store=elsewhere, engine=engine).map({"x": range(2)})
    with Store(place) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        print(Pipeline(nodes, store=store, engine=engine).map({"x": range(int(items))}).stats.computed)


if __name__ == "__main__":
    main()
