"""The Python in the README and in the documentation runs, and prints what it says it prints."""

import gc
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")  # what a document makes ends with it
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_in_document_is_true(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    python = PythonCodeBlockParser(doctest_optionflags=ELLIPSIS | NORMALIZE_WHITESPACE)
    parsed = Sybil(parsers=[python, SkipParser()]).parse(document)
    # As in a script or a notebook: functions of __main__ travel to workers by value.
    parsed.namespace["__name__"] = "__main__"
    for example in parsed.examples():
        example.evaluate()
    parsed.namespace.clear()
    del parsed, python
    gc.collect()
