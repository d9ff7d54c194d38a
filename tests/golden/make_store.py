"""Writes `store-1`, the store that every later version has to read: `python -m tests.golden.make_store DIRECTORY`.

It is written once for each format, by the first version that has it, and never again: what is read from it must not
depend on who reads.
"""

import datetime as dt
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from gristmill import File, MapResult, Pipeline, Store, node

COUNT = 3
FILES = "golden-files"
"""Where the calls of `page` put their files, in the working directory."""

CALLED: list[str] = []
"""Which functions were called, in this process."""


def scalars(x: int) -> tuple[Any, ...]:
    CALLED.append("scalars")
    return x, 10**30 + x, x / 4, x == 1, x * 1j, None, f"größe {x}", bytes([x, 0])


def numpy_scalars(x: int) -> tuple[Any, ...]:
    CALLED.append("numpy_scalars")
    return (
        np.float32(x / 4),
        np.int8(x),
        np.datetime64("2020-01-01") + np.timedelta64(x, "D"),
        np.str_(f"n{x}\0"),
    )


def arrays(x: int) -> tuple[Any, ...]:
    CALLED.append("arrays")
    return (
        np.arange(6, dtype=">i4").reshape(2, 3) + x,
        np.array(x + 0.5),
        np.array([f"a{x}", "b"]),
        np.arange(x),
    )


def large(x: int) -> Any:
    CALLED.append("large")
    return np.full((70, 128), 0.5 + x // 3)  # one chunk for all, since the store has to be small


def compressed(x: int) -> Any:
    CALLED.append("compressed")
    return np.full((100, 128), x, dtype="f8")


def blosc(x: int) -> Any:
    CALLED.append("blosc")
    return np.full((100, 128), x, dtype="u8")


def containers(x: int) -> Any:
    CALLED.append("containers")
    return {"list": [x, str(x)], "tuple": (x, None), "set": {x}, "date": dt.date(2020, 1, 1 + x)}


def mixed(x: int) -> Any:
    CALLED.append("mixed")
    return [x, str(x), [x]][x % 3]


def text(x: int) -> str:
    CALLED.append("text")
    return f"{x}" * 66_000 if x == 1 else f"{x}"


def page(x: int) -> File:
    CALLED.append("page")
    path = Path(FILES) / f"page{x}"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"page {x}")
    return File(path)


def fails(x: int) -> int:
    CALLED.append("fails")
    if x == 1:
        raise ValueError("one of them fails")
    return x


def total(large: Any) -> float:
    CALLED.append("total")
    return float(large.sum())


SPREAD: dict[Any, tuple[str, ...]] = {
    scalars: ("an_int", "a_large_int", "a_float", "a_bool", "a_complex", "nothing", "a_text", "some_bytes"),
    numpy_scalars: ("a_float32", "an_int8", "a_day", "a_numpy_text"),
    arrays: ("big_endian", "zero_d", "words", "ragged"),
}
COMPRESSED = {compressed: "zstd", blosc: "lz4:5"}
"""Functions whose results are compressed, each in a run of its own."""

PLAIN = (large, containers, mixed, text, page, fails)


def nodes(functions: Any) -> list[Any]:
    """Nodes whose identity is a version, so that it is the same in every Python."""
    made = []
    for function in functions:
        outputs = SPREAD.get(function, (function.__name__,))
        mapspec = "x[i] -> " + ", ".join(f"{name}[i]" for name in outputs)
        made.append(
            node(
                function,
                output_name=outputs if len(outputs) > 1 else outputs[0],
                mapspec=mapspec,
                version="1",
            )
        )
    return made


def run(location: Path, functions: Any, compressor: str | None = None, **options: Any) -> MapResult:
    """Run some of the functions on a store."""
    with Store(location, compressor=compressor, **options) as store:
        pipeline = Pipeline(nodes(functions), store=store)
        wanted = pipeline.outputs
        result = pipeline.map(
            {"x": range(COUNT)}, output_name=wanted, map_executor="sequential", on_error="continue"
        )
        for name in wanted:
            result[name].tolist()
        return result


def main(directory: Path) -> None:
    """Write the store."""
    location = directory.absolute()
    shutil.rmtree(location, ignore_errors=True)
    os.chdir(directory.parent)
    shutil.rmtree(FILES, ignore_errors=True)
    run(location, (*SPREAD, *PLAIN))
    for function, compressor in COMPRESSED.items():
        run(location, (function,), compressor)
    with Store(location) as store:
        Pipeline([*nodes((large,)), node(total, version="1")], store=store).map({"x": range(COUNT)})
    shutil.rmtree(FILES)
    for name in ("arrays", "claims", "tmp", "quarantine"):  # what later versions make themselves
        shutil.rmtree(location / name, ignore_errors=True)
    with closing(sqlite3.connect(location / "ledger" / "cache.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for path in (location / "ledger").glob("cache.db-*"):
        path.unlink()


if __name__ == "__main__":
    from tests.golden import (
        make_store,
    )  # a function's module is a part of what it is, and here it is __main__

    make_store.main(Path(sys.argv[1]))
