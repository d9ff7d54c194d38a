"""Some calls fail: the others finish, the failed ones are listed, and one of them is made again here.

A failed call is not remembered. So the second map, with the inputs mended, computes only what failed.
"""

from gristmill import Pipeline

METRES = {"m": 1.0, "km": 1000.0, "ft": 0.3048}


def length(text: str) -> float:
    """Read a length such as "12 km"."""
    number, unit = text.split()
    return float(number) * METRES[unit]


def total(length: list[float]) -> float:
    """Add up all lengths; skipped while one of them is missing."""
    return sum(length)


if __name__ == "__main__":
    pipeline = Pipeline([(length, "text[i] -> length[i]"), total])
    texts = ["3 m", "12 km", "n/a", "40 ft", "7 leagues"]

    result = pipeline.map({"text": texts}, output_name=["length", "total"], on_error="continue")
    print(f"{result.stats.failed} failed, {result.stats.skipped} skipped: {result['length'].tolist()}")
    for error in result.errors:
        print(f"  {error} for {dict(error.inputs)}")
    try:
        result.errors[1].reproduce()
    except KeyError as error:
        print(f"made again, it fails again: KeyError {error}")

    texts[2], texts[4] = "0 m", "33.8 km"
    result = pipeline.map({"text": texts}, output_name=["length", "total"])
    print(f"mended: {result['total']:.1f} m; {result.stats.cached} calls were found in the store")
