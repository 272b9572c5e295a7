"""Files are whole or not there."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from simprompt.utils.files.atomic import replacing, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "sub" / "table.csv"
    write_text(target, "old")

    def stopped_half_way():
        with replacing(target) as partial:
            partial.write_text("half of the n", encoding="utf-8")
            assert target.read_text(encoding="utf-8") == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped_half_way()
    assert target.read_text(encoding="utf-8") == "old"
    assert [path.name for path in target.parent.iterdir()] == ["table.csv"]


def test_a_half_written_file_is_found_by_no_search_for_its_kind(tmp_path):
    with replacing(tmp_path / "shard.safetensors") as partial:
        partial.write_bytes(b"half")
        assert not list(tmp_path.glob("*.safetensors"))
    assert list(tmp_path.glob("*.safetensors"))


def test_threads_that_write_the_same_file_do_not_mix(tmp_path):
    target = tmp_path / "record.json"
    values = [{"writer": i, "text": str(i) * 20_000} for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda value: write_json(target, value), values))
    assert json.loads(target.read_text(encoding="utf-8")) in values
    assert len(list(tmp_path.iterdir())) == 1


def test_text_is_utf8_and_as_readable_as_its_folder_says(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("x", encoding="utf-8")
    write_json(tmp_path / "names.json", ["Tüte", "栗"])
    assert "Tüte" in (tmp_path / "names.json").read_bytes().decode("utf-8")
    assert (tmp_path / "names.json").stat().st_mode == plain.stat().st_mode
