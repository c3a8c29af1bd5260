"""Damage: to bytes, texts, JSON and ZIP archives. All of it drawn from a random generator."""

import copy
import io
import json
import zipfile
from typing import Any

import numpy as np

# Values where a number, a text or a list should be.
STRANGE_JSON: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2.5, -0.0, 1e308, 10**30, float("nan"), float("inf")),
    *("", "x", "nan", "1e999", "../../etc/passwd", "\0", "\ud800", "9" * 5000, "ä" * 300),
    *([], [[]], [None], [1, "a"], {}, {"": {}}, {"a": [1]}, [[[[[[[]]]]]]], -(2**63), 2**64),
)
STRANGE_TEXT = (
    *("", "\0", "\ufeff", "é", "\u2028", "1e999", "-inf", "nan", "1_0", "٣", "9" * 5000, "@", ":"),
    *("@data", "#", "?", ",", "\r", "true", "false", "[[network]]", "=", '"', "'", "{", "]", "\n"),
)

_EDITS = ("json",) * 6 + ("bytes", "remove", "rename", "add", "bomb", "twice", "nest", "lock")


def damaged_bytes(random: np.random.Generator, content: bytes) -> bytes:
    """Flips bits, or cuts, inserts, repeats, removes or blanks a part."""
    changed = bytearray(content or b"\0")
    size = len(changed)
    way = random.choice(("flip", "flip", "flip", "cut", "insert", "repeat", "remove", "blank"))
    if way == "flip":
        for _ in range(int(random.choice([1, 1, 1, 2, 8, 64]))):
            changed[random.integers(size)] ^= 1 << int(random.integers(8))
        return bytes(changed)
    start = int(random.integers(size))
    stop = start + int(random.choice([1, 2, 16, 256, size]))
    if way == "cut":
        return bytes(changed[:start])
    if way == "insert":
        return bytes(changed[:start]) + random.bytes(min(stop - start, 4096)) + changed[start:]
    if way == "repeat":
        return bytes(changed[:stop]) + changed[start:]
    if way == "remove":
        return bytes(changed[:start]) + changed[stop:]
    return bytes(changed[:start]) + bytes(len(changed[start:stop])) + changed[stop:]


def damaged_text(random: np.random.Generator, text: str) -> bytes:
    """Damages bytes, or replaces, moves or repeats words and lines; in UTF-8 or another coding."""
    if random.random() < 0.4:
        return damaged_bytes(random, text.encode())
    lines = text.split("\n")
    for _ in range(int(random.integers(1, 4))):
        row = int(random.integers(len(lines)))
        way = random.choice(("word", "word", "word", "swap", "repeat", "remove"))
        if way == "word":
            words = lines[row].split(" ")
            strange = STRANGE_TEXT[random.integers(len(STRANGE_TEXT))]
            words[random.integers(len(words))] = strange
            lines[row] = " ".join(words)
        elif way == "swap":
            other = int(random.integers(len(lines)))
            lines[row], lines[other] = lines[other], lines[row]
        elif way == "repeat":
            lines.insert(row, lines[row])
        elif len(lines) > 1:
            del lines[row]
    coding = str(random.choice(("utf-8", "utf-8", "utf-8", "utf-16", "latin-1")))
    return "\n".join(lines).encode(coding, "replace")


def damaged_json(random: np.random.Generator, content: Any, changes: int | None = None) -> Any:
    """Replaces, removes, renames or repeats parts of JSON types anywhere; returns a copy."""
    root = [copy.deepcopy(content)]
    for _ in range(changes or int(random.choice([1, 1, 1, 2, 4]))):
        holder, key = _place(random, root)
        way = random.choice(("replace", "replace", "replace", "remove", "rename", "repeat"))
        strange = copy.deepcopy(STRANGE_JSON[random.integers(len(STRANGE_JSON))])
        if way == "replace" or holder is root:
            holder[key] = strange
        elif way == "remove":
            del holder[key]
        elif way == "rename" and isinstance(holder, dict):
            holder[f"{key}_"] = holder.pop(key)
        elif way == "repeat" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
    return root[0]


def _place(random: np.random.Generator, root: list[Any]) -> tuple[Any, Any]:
    """A place somewhere in a tree: what holds it, and the key in that."""
    holder: Any = root
    key: Any = 0
    while True:
        inside = holder[key]
        if not isinstance(inside, dict | list) or not inside or random.random() < 0.15:
            return holder, key
        holder = inside
        keys = list(inside) if isinstance(inside, dict) else range(len(inside))
        key = keys[int(random.integers(len(keys)))]


def to_json(content: Any) -> bytes:
    """JSON of whatever `damaged_json` made, lone surrogates as escapes."""
    return json.dumps(content).encode()


def damaged_json_text(random: np.random.Generator, content: Any) -> bytes:
    """JSON damaged as a structure, as bytes, or nested beyond what a parser can follow."""
    way = random.random()
    if way < 0.65:
        return to_json(damaged_json(random, content))
    if way < 0.95:
        return damaged_bytes(random, to_json(content))
    depth = int(random.choice([500, 5_000, 100_000]))
    return b"[" * depth + b"]" * depth if random.random() < 0.5 else b'{"a":' * depth


def damaged_archive(random: np.random.Generator, content: bytes) -> bytes:
    """Edits the members of a ZIP archive: what a hand, or a hostile one, would do."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    name = names[int(random.integers(len(names)))]
    way = random.choice(
        (
            "json",
            "json",
            "json",
            "bytes",
            "remove",
            "rename",
            "add",
            "bomb",
            "twice",
            "nest",
            "lock",
        )
    )
    twice: list[tuple[str, bytes]] = []
    if way == "json":
        name = str(random.choice([name for name in names if name.endswith(".json")]))
        members[name] = damaged_json_text(random, json.loads(members[name]))
    elif way == "bytes":
        members[name] = damaged_bytes(random, members[name])
    elif way == "remove":
        del members[name]
    elif way == "rename":
        members[f"../{name}"] = members.pop(name)
    elif way == "add":
        members[str(random.choice(["assets/x", "/etc/x", "../x", "a.py", "é", ""]))] = b"x"
    elif way == "bomb":
        members[name] = bytes(int(random.choice([2**20, 2**28])))
    elif way == "twice":
        twice = [(name, random.bytes(16))]
    elif way == "nest":
        members["config.json"] = b'{"config":' * 5_000 + b"1" + b"}" * 5_000
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for member, inside in [*members.items(), *twice]:
            archive.writestr(zipfile.ZipInfo(member or "empty"), inside, zipfile.ZIP_DEFLATED)
    made = bytearray(written.getvalue())
    if way == "lock":
        # The first bit of the flags says that a member is encrypted, here and in the directory.
        made[6] |= 1
        made[made.rindex(b"PK\1\2") + 8] |= 1
    return bytes(made)
