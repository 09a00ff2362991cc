"""What placematd leaves in its run directory when it ends and what it made goes on."""

from pathlib import Path

from placematd.__main__ import clear


def test_only_what_is_empty_and_what_is_ours_goes(tmp_path: Path) -> None:
    directory = tmp_path / "c"
    for name in ("node/one", "log", "bmc/one/pub"):
        (directory / name).mkdir(parents=True)
    for name in ("api.sock", "lock", "node/one/qmp"):
        (directory / name).touch()
    clear(directory)
    left = {str(path.relative_to(directory)) for path in directory.rglob("*")}
    assert left == {"node", "node/one", "node/one/qmp", "bmc", "bmc/one", "bmc/one/pub"}


def test_a_directory_that_the_process_of_a_bmc_sees_stays_the_same_one(tmp_path: Path) -> None:
    """Its unit has bound it: in another one of that name the process would not see the next socket."""
    shared = tmp_path / "c/bmc/one/pub"
    shared.mkdir(parents=True)
    number = shared.stat().st_ino
    clear(tmp_path / "c")
    assert shared.stat().st_ino == number


def test_nothing_is_left_where_nothing_was(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c/lock").touch()
    clear(tmp_path / "c")
    assert list(tmp_path.iterdir()) == []
