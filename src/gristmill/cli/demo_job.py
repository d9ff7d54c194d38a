"""The demo's job: plain functions that examine Python modules, and the pipeline that they make.

Each file is summarised (a value that is an object) and turned into a matrix of byte pairs (a value that is an
array); reductions then look at all summaries, and at all matrices. Nothing here knows of terminals.
"""

import ast
import io
import keyword
import tokenize
import warnings
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gristmill.engine.engine import Engine
from gristmill.identity.files import File
from gristmill.pipeline import Pipeline
from gristmill.store import Store

Matrix = NDArray[np.uint32]

_ROWS = 16
"""First bytes whose pairs are compared at once, over all modules: 12 MB of float32 for 700 of them."""


@dataclass(frozen=True)
class Summary:
    """What one source file says."""

    lines: int = 0
    definitions: int = 0
    """Functions and classes, at any depth."""
    tokens: dict[str, int] = field(default_factory=dict)
    """How often each kind of token occurs."""
    identifiers: dict[str, int] = field(default_factory=dict)
    """How often each name that is no keyword occurs."""
    problem: str | None = None
    """Why the file could not be parsed; the counts are empty then."""


def summary(source: File) -> Summary:
    """Parse one file; one that is no valid Python gives a summary that says so."""
    raw = source.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in somebody's string is not our business
            tree = ast.parse(raw)
        return _summarised(raw, tree)
    except (SyntaxError, ValueError, RecursionError, tokenize.TokenError) as error:
        return Summary(problem=f"{type(error).__name__}: {error}")


def _summarised(raw: bytes, tree: ast.Module) -> Summary:
    tokens: Counter[str] = Counter()
    identifiers: Counter[str] = Counter()
    for one in tokenize.tokenize(io.BytesIO(raw).readline):
        tokens[tokenize.tok_name[one.exact_type]] += 1
        if one.type == tokenize.NAME and not keyword.iskeyword(one.string):
            identifiers[one.string] += 1
    defining = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    definitions = sum(isinstance(found, defining) for found in ast.walk(tree))
    return Summary(raw.count(b"\n"), definitions, dict(tokens), dict(identifiers))


def bigrams(source: File) -> Matrix:
    """Count the pairs of neighbouring bytes: a 256 × 256 matrix, first byte by second byte."""
    raw = np.frombuffer(source.read_bytes(), dtype=np.uint8).astype(np.uint16)
    counts = np.bincount(raw[:-1] * np.uint16(256) + raw[1:], minlength=256 * 256)
    return counts.astype(np.uint32).reshape(256, 256)


def problems(summary: list[Summary], module: list[str]) -> dict[str, str]:
    """Return why modules could not be parsed, by module name."""
    pairs = zip(module, summary, strict=True)
    return {name: found.problem for name, found in pairs if found.problem is not None}


def lines(summary: list[Summary]) -> int:
    """Count the lines of all modules together."""
    return sum(found.lines for found in summary)


def identifiers(summary: list[Summary], top_names: int = 20) -> list[tuple[str, int]]:
    """Return the most frequent identifiers, each with its count; alphabetically where counts are equal."""
    counts: Counter[str] = Counter()
    for found in summary:
        counts.update(found.identifiers)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top_names]


def total_bigrams(bigrams: list[Matrix]) -> NDArray[np.uint64]:
    """Add up the matrices of all modules."""
    total = np.zeros((256, 256), dtype=np.uint64)
    for matrix in bigrams:
        total += matrix
    return total


def similar(
    bigrams: list[Matrix], module: list[str], top_pairs: int = 10, at_least: int = 1000
) -> list[tuple[float, str, str]]:
    """Return the most similar pairs of modules from different packages, each with its similarity.

    That is the cosine between the square roots of their bigram counts (the Bhattacharyya coefficient of the
    two distributions), so that indentation does not decide alone. Modules of fewer than `at_least` bigrams
    are left out.
    """
    large = [k for k, matrix in enumerate(bigrams) if matrix.sum() >= at_least]
    products = _products([bigrams[k] for k in large])
    lengths = np.sqrt(np.diag(products))
    cosines = products / np.outer(lengths, lengths)
    packages = np.array([_package(module[k]) for k in large])
    cosines[packages[:, None] == packages] = -1.0
    first, second = np.triu_indices(len(large), 1)
    found = cosines[first, second]
    best = [k for k in np.argsort(-found, kind="stable")[:top_pairs].tolist() if found[k] >= 0]
    return [(float(found[k]), module[large[first[k]]], module[large[second[k]]]) for k in best]


def _products(matrices: list[Matrix]) -> NDArray[np.float64]:
    """Scalar products of the square roots of all pairs of matrices; some rows at a time, to save memory."""
    products = np.zeros((len(matrices), len(matrices)))
    for row in range(0, 256 if matrices else 0, _ROWS):
        block = np.stack([matrix[row : row + _ROWS].reshape(-1) for matrix in matrices]).astype(np.float32)
        np.sqrt(block, out=block)
        products += block @ block.T
    return products


def _package(module: str) -> str:
    """The package of a module; a module at the top is its own."""
    return module.rpartition(".")[0] or module


def demo_pipeline(store: Store, workers: int | None = None) -> Pipeline:
    """Return the job as a pipeline that maps over `source` in parallel."""
    return Pipeline(
        [
            (summary, "source[i] -> summary[i]"),
            (bigrams, "source[i] -> bigrams[i]"),
            *(problems, lines, identifiers, total_bigrams, similar),
        ],
        name="demo",
        engine=Engine(map_executor="parallel", max_workers=workers),
        store=store,
    )
