"""`quarantine.txt` of runs and of shards."""

import os

from res2net.files.quarantine import write_quarantine


def test_a_line_a_file_sorted(tmp_path):
    odd = os.fsdecode(b"a/caf\xe9.jpg")
    write_quarantine(tmp_path / "q.txt", {"b/1.jpg": "is empty", odd: "cannot be decoded"})
    assert (tmp_path / "q.txt").read_bytes() == (
        b"a/caf\xe9.jpg\tcannot be decoded\nb/1.jpg\tis empty\n"
    )


def test_a_name_cannot_break_its_line(tmp_path):
    write_quarantine(
        tmp_path / "q.txt", {"a\n\tb\x1b\x9b\u2028.jpg": "is empty", "日本.jpg": "too"}
    )
    assert (tmp_path / "q.txt").read_text("utf-8") == (
        "a\\n\\tb\\x1b\\x9b\\u2028.jpg\tis empty\n日本.jpg\ttoo\n"
    )
