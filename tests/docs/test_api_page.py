"""The API page and the package list the same public names."""

import re
from pathlib import Path

import gristmill
from gristmill import errors

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_every_public_name_is_on_the_api_page_once() -> None:
    listed = re.findall(r"auto(?:class|function):: gristmill\.(\w+)$", PAGE.read_text(), re.MULTILINE)
    # The errors' section takes its module whole.
    raised = [name for name, value in vars(errors).items() if isinstance(value, type)]
    assert sorted([*listed, *raised]) == sorted(gristmill.__all__)
