"""The memory map: valid SVG with a block for each tensor, names escaped and shown where they fit."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET

import pytest

from tinynet.errors import PlanError
from tinynet.memory import Lifetime, memory_map, plan_offsets

from .families import FAMILIES

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("n", [0, 1, 20, 500])
def test_there_is_a_block_for_each_tensor(n):
    lifetimes = FAMILIES["graph"](random.Random(1), n)
    picture = ET.fromstring(memory_map(lifetimes, plan_offsets(lifetimes).offsets))
    blocks = [each for each in picture.iter(f"{SVG}rect") if "block" in each.get("class").split()]
    assert len(blocks) == n
    for block in blocks:
        assert float(block.get("x")) >= 0 and float(block.get("x")) + float(block.get("width")) <= 1000
        assert float(block.get("y")) >= 0 and float(block.get("y")) + float(block.get("height")) <= 560


def test_names_are_escaped_and_shown_where_they_fit():
    lifetimes = [Lifetime(0, 9, 4096, "<w & b>", "weight"), Lifetime(3, 3, 64, "too long for its block", "activation")]
    text = memory_map(lifetimes, plan_offsets(lifetimes).offsets, title="a < b")
    picture = ET.fromstring(text)
    names = [each.text for each in picture.iter(f"{SVG}text") if each.get("class") == "name"]
    assert names == ["<w & b>"] and "<script" not in text
    tips = [each.text for each in picture.iter(f"{SVG}title")]
    assert any("too long for its block (activation): 64 bytes" in tip for tip in tips)
    assert {"weight", "activation"} <= {each.text for each in picture.iter(f"{SVG}text")}


def test_any_name_makes_valid_xml_and_missing_offsets_are_refused():
    ET.fromstring(memory_map([Lifetime(0, 1, 64, 'a\x00\x1b<&">', "]]>")], [0]))
    with pytest.raises(PlanError, match="1 offsets"):
        memory_map([(0, 1, 64)], [])


def test_more_tags_than_colours_say_so():
    lifetimes = [Lifetime(i, i, 64, tag=f"tag {i}") for i in range(12)]
    assert ">4 others<" in memory_map(lifetimes, [0] * 12)
