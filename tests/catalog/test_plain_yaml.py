"""The reader for machines without PyYAML reads the catalog of models as PyYAML does."""

from importlib import resources

import pytest
import yaml

from sim.catalog import plain_yaml


@pytest.mark.parametrize("file", ["models.yaml"])
def test_it_reads_what_pyyaml_reads(file):
    text = resources.files("sim.catalog").joinpath(file).read_text(encoding="utf-8")
    assert plain_yaml.parse(text) == yaml.safe_load(text)


def test_by_hand():
    text = """\
# a comment
a:
  b: {value: 61, note: "x: {y}, z", list: [p, 2, 2.5], flag: true}   # behind a value
  c:
    d: e f
g: null
"""
    text = text.replace("   # behind a value", "")
    value = {"value": 61, "note": "x: {y}, z", "list": ["p", 2, 2.5], "flag": True}
    assert plain_yaml.parse(text) == {"a": {"b": value, "c": {"d": "e f"}}, "g": None} == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["- a\n", "a\n", "a: {b c}\n"])
def test_what_it_does_not_know_is_refused_with_the_line(text):
    with pytest.raises((ValueError, StopIteration)):
        plain_yaml.parse(text)
