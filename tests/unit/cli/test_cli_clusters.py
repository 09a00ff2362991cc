"""Which cluster a command is about."""

from pathlib import Path

import pytest
from placemat_cli import environment_file
from placemat_cli.clusters import Places, default_name, find_running, find_target
from placemat_cli.errors import BadUsage, Unreachable


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """Places below an empty current directory."""
    monkeypatch.chdir(tmp_path)
    return Places(config=tmp_path / "etc", run=tmp_path / "run")


def touch(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["/srv/lab.yml"], "lab"),
        (["/srv/quickstart/cluster.yml"], "quickstart"),
        (["/srv/quickstart/cluster.example.yml"], "quickstart"),
        (["/srv/two racks/cluster.yml"], "two-racks"),
        (["/srv/rack/net.yml", "/srv/rack/nodes.yml"], "rack"),
        (["/cluster.yml"], "cluster"),
        (["/srv/.../cluster.yml"], "cluster"),
        (["/srv/-x-.yaml"], "x"),
    ],
)
def test_a_cluster_given_as_files_is_called_as_the_file_or_its_directory(files, name):
    assert default_name([Path(file) for file in files]) == name


def test_files_are_absolute_and_keep_their_order(here):
    target = find_target(["b.yml", "sub/../a.yml"], "", here)
    assert target.files == (Path.cwd() / "b.yml", Path.cwd() / "a.yml")
    assert target.name == Path.cwd().name


def test_a_directory_means_its_yml_files(here):
    touch(Path("racks/2.yml")), touch(Path("racks/1.yml")), touch(Path("racks/notes.txt"))
    target = find_target(["./racks"], "", here)
    assert (target.name, [file.name for file in target.files]) == ("racks", ["1.yml", "2.yml"])


def test_a_directory_without_yml_files_is_an_error(here):
    Path("racks").mkdir()
    with pytest.raises(BadUsage, match=r"no \*\.yml in this directory"):
        find_target(["racks/"], "", here)


def test_a_word_is_a_name_even_if_there_is_a_file_of_that_name(here):
    file = touch(here.config / "lab.yml")
    Path("lab").mkdir()
    assert find_target(["lab"], "", here).files == (file,)


def test_a_name_may_mean_a_directory_of_files(here):
    files = (touch(here.config / "lab" / "a.yml"), touch(here.config / "lab" / "b.yml"))
    assert find_target(["lab"], "", here).files == files


def test_settings_of_a_named_cluster_come_from_its_conf(here):
    touch(here.config / "lab.conf", 'PLACEMAT_FILES="/srv/a b.yml:/srv/c.yml"\nPLACEMAT_ACCELERATOR=tcg\n')
    target = find_target(["lab"], "", here)
    assert target.files == (Path("/srv/a b.yml"), Path("/srv/c.yml"))
    assert target.settings.accelerator == "tcg"


def test_a_bad_setting_is_named(here):
    touch(here.config / "lab.conf", "PLACEMAT_FILES=/srv/a.yml\nPLACEMAT_ACCELERATOR=fast\n")
    with pytest.raises(BadUsage, match="PLACEMAT_ACCELERATOR=fast: expected auto, kvm or tcg"):
        find_target(["lab"], "", here)


@pytest.mark.parametrize("seconds", ["", "0", "-1", "1.5", "soon", "99999999"])
def test_the_idle_time_of_bmcs_is_a_number_of_seconds(here, seconds):
    touch(here.config / "lab.conf", f"PLACEMAT_FILES=/srv/a.yml\nPLACEMAT_BMC_IDLE_SECONDS={seconds}\n")
    with pytest.raises(BadUsage, match=f"PLACEMAT_BMC_IDLE_SECONDS={seconds}: expected whole seconds, 1 to"):
        find_target(["lab"], "", here)
    touch(here.config / "lab.conf", "PLACEMAT_FILES=/srv/a.yml\nPLACEMAT_BMC_IDLE_SECONDS=20\n")
    assert find_target(["lab"], "", here).settings.bmc_idle_seconds == 20


def test_a_running_cluster_is_what_up_was_told_and_a_stopped_one_what_is_configured(here):
    touch(here.run / "lab.conf", 'PLACEMAT_FILES="/srv/this-run.yml"\n')
    touch(here.config / "lab.yml")
    assert find_target(["lab"], "", here).files == (here.config / "lab.yml",)
    touch(here.run / "lab" / "api.sock")
    assert find_target(["lab"], "", here).files == (Path("/srv/this-run.yml"),)


def test_no_argument_means_the_only_configured_cluster(here):
    touch(here.config / "lab.yml"), touch(here.config / "lab.conf")
    assert find_target([], "", here).name == "lab"
    touch(here.config / "other" / "a.yml")
    with pytest.raises(BadUsage, match=r"which cluster.* has lab, other"):
        find_target([], "", here)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lab"], "no cluster lab: .*configured: none"),
        (["lab", "a.yml"], "expected files or one name"),
        (["la b"], '"la b" cannot be the name of a cluster'),
        ([], "Name its files"),
    ],
)
def test_what_is_no_cluster(here, arguments, message):
    with pytest.raises(BadUsage, match=message):
        find_target(arguments, "", here)


def test_environment_settings_hold_for_files_only(here):
    touch(here.config / "lab.yml")
    places = Places.from_environment(
        {"PLACEMAT_CONFIG_DIR": str(here.config), "PLACEMAT_RUN_DIR": str(here.run), "PLACEMAT_DATA_DIR": "/data"}
    )
    assert find_target(["x.yml"], "", places).settings.data_dir == Path("/data")
    assert find_target(["lab"], "", places).settings.data_dir == Path("/var/lib/placemat")


def test_the_socket_is_where_the_settings_put_it(here):
    assert here.socket("lab") == here.run / "lab" / "api.sock"
    touch(here.config / "lab.conf", "PLACEMAT_RUN_DIR=/run/other\n")
    assert here.socket("lab") == Path("/run/other/lab/api.sock")


def test_a_cluster_that_did_not_come_up_from_its_files_is_still_meant(here):
    touch(here.run / "lab.conf")
    assert find_running("", here) == "lab"


def test_commands_on_what_runs(here):
    with pytest.raises(Unreachable, match="no cluster is running"):
        find_running("", here)
    touch(here.config / "one.yml"), touch(here.config / "two.yml")
    with pytest.raises(BadUsage, match=r"known: one, two .*--cluster"):
        find_running("", here)
    touch(here.run / "two" / "api.sock")
    assert find_running("", here) == "two"
    touch(here.run / "three" / "api.sock")
    with pytest.raises(BadUsage, match="running: three, two"):
        find_running("", here)
    assert find_running("one", here) == "one"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("  A=b c  ", "b c"),
        ('A="b c"', "b c"),
        (r'A="say \"hi\" \\ \$x"', r'say "hi" \ $x'),
        ("A='b \"c\"'", 'b "c"'),
        (r"A=b\ c", "b c"),
        ("A=", ""),
    ],
)
def test_settings_files_have_systemds_quotes(line, value):
    assert environment_file.parse(f"# comment\n; A=no\nnonsense\n{line}\n") == {"A": value}


@pytest.mark.parametrize("value", ["plain", "two words", 'q"uote', "back\\slash", "$HOME `x`", ""])
def test_settings_files_are_read_as_they_were_written(value):
    assert environment_file.parse(environment_file.render({"A": value})) == {"A": value}


def test_a_line_break_is_refused():
    with pytest.raises(BadUsage):
        environment_file.render({"A": "x\ny"})
