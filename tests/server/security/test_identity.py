import pytest
from fastapi import Request
from labelserver import monailabel_settings
from monailabel.endpoints.user.auth import User

from slicecast.server.security.identity import MAX_LENGTH, who

ANNA = User(username="anna")


def request(client=("10.0.0.7", 4711)):
    return Request({"type": "http", "headers": [], "client": client})


@pytest.mark.parametrize(("client_id", "name"), [("ben", "ben"), (" ben ", "ben"), ("", "10.0.0.7"), (None, "10.0.0.7"),
                                                 (7, "10.0.0.7"), (["ben"], "10.0.0.7")])  # fmt: skip
def test_without_logins_the_clients_word_counts(client_id, name):
    assert who(ANNA, request(), client_id=client_id) == name


def test_with_logins_it_does_not():
    with monailabel_settings(MONAI_LABEL_AUTH_ENABLE=True):
        assert who(ANNA, request(), client_id="ben") == "anna"


def test_names_have_a_length_and_clients_no_address():
    assert len(who(ANNA, request(), client_id="x" * 9999)) == MAX_LENGTH
    assert who(ANNA, request(client=None)) == ""
