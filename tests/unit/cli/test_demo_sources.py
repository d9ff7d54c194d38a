"""The demo reads the standard library, without its tests and without what was installed."""

from pathlib import Path

from gristmill.cli.demo_sources import module_name, python_files, standard_library


def test_standard_library_has_no_tests_and_no_installed_packages() -> None:
    root = standard_library()
    files = python_files(root)
    modules = {module_name(path, root) for path in files}
    assert {"json", "json.decoder", "ast"} <= modules
    assert len(modules) == len(files)
    parts = {part for path in files for part in path.relative_to(root).parts[:-1]}
    assert not parts & {"test", "tests", "idle_test", "site-packages", "__pycache__"}


def test_files_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    (tmp_path / "there.py").touch()
    assert python_files(tmp_path) == [tmp_path / "there.py"]
