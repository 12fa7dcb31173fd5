"""`dlkit data list` lists every dataset of the table."""

import json

from dlkit import data


def test_every_dataset_is_listed(dlkit):
    result = dlkit("data", "list")
    assert (result.code, result.err) == (0, "")
    header, *lines = result.out.splitlines()
    assert header.split() == ["dataset", "about"]
    assert [line.split()[0] for line in lines] == data.names()


def test_as_json_with_what_each_is(dlkit):
    listed = json.loads(dlkit("data", "list", "--json").out)
    assert [entry["name"] for entry in listed] == data.names()
    assert all(entry["about"] for entry in listed)
