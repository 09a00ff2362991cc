"""Virtual media: where images come from, and what a client may read of it."""

import pytest

from placematd.bmc.machine import Media
from placematd.bmc.redfish.resources import media
from placematd.bmc.redfish.resources.media_source import Unfit, Wish, shown, source, user_name

URL = "http://172.16.0.1:8080/images/boot%20me.iso"


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish(image=URL), URL),
        (Wish(image=URL, protocol="HTTP"), URL),
        (Wish(image="https://[fd00::1]/a.iso", protocol="HTTPS"), "https://[fd00::1]/a.iso"),
        (Wish(image="/srv/images/a.iso"), "/srv/images/a.iso"),
        (Wish(image="file:///srv/images/a%20b.iso"), "/srv/images/a b.iso"),
        (Wish(image="https://h/a.iso", user_name="me"), "https://me@h/a.iso"),
        (Wish(image="https://h:1/a.iso", user_name="m@e", password="p:/@"), "https://m%40e:p%3A%2F%40@h:1/a.iso"),
        (Wish(image="https://old:one@h/a.iso", user_name="me", password="pw"), "https://me:pw@h/a.iso"),
    ],
)
def test_sources(wish, expected):
    assert source(wish) == expected


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        (Wish(image=""), "Image"),
        (Wish(image="a.iso"), "Image"),
        (Wish(image="ftp://h/a.iso"), "Image"),
        (Wish(image="http:///a.iso"), "Image"),
        (Wish(image="http://h:99999/a.iso"), "Image"),
        (Wish(image="http://h:0/a.iso"), "Image"),
        (Wish(image="http://[fd00::1/a.iso"), "Image"),
        (Wish(image="http://h/a b.iso"), "Image"),
        (Wish(image="http://h/a.iso\nHost: x"), "Image"),
        (Wish(image="//h/a.iso"), "Image"),
        (Wish(image="file://h/a.iso"), "Image"),
        (Wish(image="nfs://h/a.iso", protocol="NFS"), "Image"),
        (Wish(image=URL, protocol="HTTPS"), "TransferProtocolType"),
        (Wish(image="/a.iso", protocol="HTTP"), "TransferProtocolType"),
        (Wish(image="/a.iso", user_name="me"), "UserName"),
    ],
)
def test_what_is_no_source(wish, name):
    with pytest.raises(Unfit) as refused:
        source(wish)
    assert refused.value.name == name


def test_a_password_is_in_no_message_and_in_no_repr():
    wish = Wish(image="ftp://me:secret@h/a.iso", password="secret")
    with pytest.raises(Unfit) as refused:
        source(wish)
    assert "secret" not in str(refused.value)
    assert "secret" not in repr(Wish(image=URL, user_name="me", password="secret"))


@pytest.mark.parametrize(
    ("image", "readable", "name"),
    [
        (URL, URL, None),
        ("https://me:secret@h:1/a.iso", "https://h:1/a.iso", "me"),
        ("https://m%40e@h/a.iso", "https://h/a.iso", "m@e"),
        ("/srv/a@b.iso", "/srv/a@b.iso", None),
    ],
)
def test_what_may_be_read_of_a_source(image, readable, name):
    assert shown(image) == readable
    assert user_name(image) == name


def test_an_empty_slot():
    payload = media.slot(Media(slot="Cd"))
    assert payload["Id"] == "Cd" and payload["MediaTypes"] == ["CD", "DVD"]
    assert (payload["Image"], payload["ImageName"], payload["Inserted"]) == (None, None, False)
    assert (payload["ConnectedVia"], payload["TransferProtocolType"]) == ("NotConnected", None)


@pytest.mark.parametrize(
    ("image", "protocol"), [("http://h/a.iso", "HTTP"), ("https://u:p@h/a.iso", "HTTPS"), ("/srv/a.iso", None)]
)
def test_a_slot_with_an_image(image, protocol):
    payload = media.slot(Media(slot="Cd", image=image, inserted=True, write_protected=False))
    assert payload["ImageName"] == "a.iso" and payload["Inserted"] is True and payload["WriteProtected"] is False
    assert (payload["ConnectedVia"], payload["TransferProtocolType"]) == ("URI", protocol)
    assert payload["Password"] is None and "p@" not in payload["Image"]
