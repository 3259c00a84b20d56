"""The binary message read by nothing but the tables of docs/live.md."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

_PAGE = (Path(__file__).parents[3] / "docs" / "live.md").read_text()
_KINDS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "f32": "f"}


def _table(heading: str) -> list[tuple[int, str, int, str]]:
    """Offset, kind, count and name of each field of the table with this heading."""
    rows = _PAGE.split(heading)[1].split("\n\n")[0]
    found = re.findall(r"^\| (\d+) \| (?:(\d+) )?(\w+) \| ([\w ,]+)", rows, re.M)
    return [(int(at), _KINDS[kind], int(count or 1), name.strip()) for at, count, kind, name in found]


HEADER = _table("| offset | type | field |")
BOX = _table("| offset in a box | type | field |")


def _fields(data: bytes, start: int, end: int, table: list[tuple[int, str, int, str]]) -> dict[str, Any]:
    """What stands between `start` and `end`."""
    read = {}
    for at, kind, count, name in table:
        if start + at + struct.calcsize(kind) * count <= end:
            values = struct.unpack_from(f"<{count}{kind}", data, start + at)
            read[name.split(" of ")[0]] = values[0] if count == 1 else values
    return read


def read_message(data: bytes) -> dict[str, Any]:
    """Header fields by their names in the page, "rows" and "jpeg"."""
    header_bytes = int.from_bytes(data[2:4], "little")
    message = _fields(data, 0, header_bytes, HEADER)
    size, at = message["bytes a box"], header_bytes
    message["rows"] = [_fields(data, at + i * size, at + (i + 1) * size, BOX) for i in range(message["boxes"])]
    at += message["boxes"] * size
    message["jpeg"] = data[at : at + message["bytes"]]
    assert len(data) == at + message["bytes"]
    return message
