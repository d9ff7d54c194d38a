"""What the documentation shows of a measurement: a table in Markdown, and a picture.

`python -m benchmarks.documents FILE.json`, of what `python -m benchmarks --json FILE.json` has written.
"""

import json
from math import floor, log10
from pathlib import Path
from typing import Annotated, Any

import typer

COLOURS = {"ours": "#1f6f54", "peer": "#c98b4b", "raw": "#9aa4ad"}
COLUMNS = 3
ROW_INCHES = 0.24


def write_markdown(measured: dict[str, Any], path: Path) -> None:
    """Write one table of all cases: gristmill, its budget, the best peer, and the raw limit."""
    lines = [
        "| case | gristmill | budget | best peer | × | raw limit |",
        "|---|--:|--:|--:|--:|--:|",
        *map(_row, measured["cases"]),
    ]
    machine = [f"* {name}: {value}" for name, value in measured["machine"].items()]
    path.write_text("\n".join([*lines, "", "Measured on:", "", *machine, ""]))


def _row(case: dict[str, Any]) -> str:
    ours = _best(case, "ours")
    peer, raw = _best(case, "peer"), _best(case, "raw")
    ratio = f"{peer['median'] / ours['median']:.3g}" if ours and peer else "–"
    budget = (case["budget"] or "–").replace("the speed of ", "")
    title = f"**{case['name']}**: {case['title']}"
    return f"| {title} | {_figure(ours, case)} | {budget} | {_named(peer)} | {ratio} | {_named(raw)} |"


def _figure(runner: dict[str, Any] | None, case: dict[str, Any]) -> str:
    return f"{short(runner['median'])} {case['unit']}" if runner else "–"


def _named(runner: dict[str, Any] | None) -> str:
    return f"{short(runner['median'])} ({runner['system']})" if runner else "–"


def _best(case: dict[str, Any], kind: str) -> dict[str, Any] | None:
    found = [one for one in case["runners"] if one["kind"] == kind and one["median"] is not None]
    return min(found, key=lambda one: one["median"], default=None)


def short(figure: float) -> str:
    """A figure to three digits."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def draw(measured: dict[str, Any], path: Path) -> None:
    """Draw a panel of bars for each case, on a logarithmic scale."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    cases = [case for case in measured["cases"] if any(one["median"] for one in case["runners"])]
    rows = [cases[start : start + COLUMNS] for start in range(0, len(cases), COLUMNS)]
    heights = [1.1 + ROW_INCHES * max(len(_measured(case)) for case in row) for row in rows]
    figure, axes = plt.subplots(
        len(rows),
        COLUMNS,
        figsize=(15, sum(heights)),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    for row, places in zip(rows, axes, strict=True):
        for place in places[len(row) :]:
            place.set_axis_off()
        for case, place in zip(row, places, strict=False):
            _draw_case(place, case, most=max(len(_measured(case)) for case in row))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _measured(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in case["runners"] if one["median"] is not None]


def _draw_case(place: Any, case: dict[str, Any], *, most: int) -> None:
    from matplotlib.ticker import NullFormatter

    runners = _measured(case)
    figures = [one["median"] for one in runners]
    budget = (case["budget"] or "").removeprefix("≤ ")
    limits = [float(budget)] if (case["budget"] or "").startswith("≤") else []
    low = 10 ** (floor(log10(min(figures))) - 0.5)
    place.barh(
        [one["system"] for one in runners],
        [figure - low for figure in figures],
        left=low,
        color=[COLOURS[one["kind"]] for one in runners],
    )
    place.set_xscale("log")
    place.set_xlim(low, max(*figures, *limits, 30 * low) * 6)
    place.set_ylim(most - 0.4, -0.6)
    place.xaxis.set_minor_formatter(NullFormatter())
    for at, figure in enumerate(figures):
        place.text(figure * 1.1, at, short(figure), va="center", fontsize=8)
    for limit in limits:
        place.axvline(limit, color="#b03030", linestyle=":", linewidth=1.2)
    place.set_title(f"{case['name']}, {case['unit']}", fontsize=10, loc="left")
    place.tick_params(labelsize=8)
    for side in ("top", "right"):
        place.spines[side].set_visible(False)


def main(
    measured: Annotated[Path, typer.Argument(help="What --json has written.")],
    markdown: Annotated[Path, typer.Option(help="Where the table goes.")] = Path("docs/benchmarks.md"),
    picture: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("docs/benchmarks.png"),
) -> None:
    """Write the table and draw the picture."""
    found = json.loads(measured.read_text())
    write_markdown(found, markdown)
    draw(found, picture)


if __name__ == "__main__":
    typer.run(main)
