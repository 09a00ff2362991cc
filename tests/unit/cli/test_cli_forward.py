"""`forward add|list|delete`: what they print, ask for, and end with."""

import json

import pytest


def test_forwards_are_added_listed_and_deleted(cli, api):
    result = cli("forward", "add", "30000", "netns1:10.0.0.22:8000")
    assert (result.status, result.out) == (0, "tcp port 30000 leads to netns1:10.0.0.22:8000\n")
    assert cli("forward", "add", "[::0]:53", "netns1:[fd00:0::2]:53", "--udp").status == 0
    assert [line.split() for line in cli("forward", "list").out.splitlines()] == [
        ["LOCAL", "PROTOCOL", "NETNS", "REMOTE"],
        ["30000", "tcp", "netns1", "10.0.0.22:8000"],
        ["[::]:53", "udp", "netns1", "[fd00::2]:53"],
    ]
    result = cli("forward", "delete", "30000")
    assert (result.status, result.out, result.err) == (0, "", "")
    assert cli("forward", "delete", "[0::]:53", "--udp").status == 0
    assert [(method, path) for method, path, _ in api.requests if method == "DELETE"] == [
        ("DELETE", "/v1/forwards/tcp-30000"),
        ("DELETE", "/v1/forwards/udp-%5B%3A%3A%5D%3A53"),
    ]
    assert api.forwards == {}


def test_json_has_both_names_of_the_namespace_and_is_a_list_when_empty(cli, api):
    assert cli("forward", "list", "--json").out == "[]\n"
    cli("forward", "add", "192.0.2.1:30000", "netns1:web:80")
    assert json.loads(cli("forward", "list", "--json").out) == [
        {
            "protocol": "tcp",
            "local_address": "192.0.2.1",
            "local_port": 30000,
            "netns": "netns1",
            "pod": "netns1",
            "remote_host": "web",
            "remote_port": 80,
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("add", "http", "n:h:80"), "http: expected PORT or ADDRESS:PORT"),
        (("add", "1.2.3:80", "n:h:80"), "1.2.3"),
        (("add", "70000", "n:h:80"), "70000: a port is 1 to 65535"),
        (("add", "80", "h:80"), "h:80: expected NETNS:HOST:PORT"),
        (("add", "80", "n:fd00::2:80"), "in brackets"),
        (("delete", "eighty"), "eighty: expected PORT or ADDRESS:PORT"),
    ],
)
def test_wrong_ends_are_refused_before_anything_is_asked(cli, api, arguments, expected):
    result = cli("forward", *arguments)
    assert result.status == 2
    assert result.err.startswith("error: ") and expected in result.err
    assert api.requests == []


@pytest.mark.parametrize(("status", "exit_status"), [(404, 4), (409, 1), (500, 1)])
def test_an_error_of_the_service_is_text_and_an_exit_status(cli, api, status, exit_status):
    api.fail("/v1/forwards", status, "tcp port 80 is forwarded to n:h:1 already")
    api.fail("/v1/forwards/tcp-80", status, "no forward of tcp port 80")
    for arguments, text in ((("add", "80", "n:h:80"), "already"), (("delete", "80"), "no forward")):
        result = cli("forward", *arguments)
        assert result.status == exit_status
        assert text in result.err


def test_help_tells_how_ends_are_written(cli, places):
    text = " ".join(cli("forward", "add", "--help").out.replace("│", " ").split())
    assert "NETNS:HOST:PORT" in text
    assert "0.0.0.0:8080" in text
    assert "--udp" in text
