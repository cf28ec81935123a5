#!/usr/bin/env python3
"""Regenerates the worked examples of docs/format.md from their `input` lines, in place.

With --check nothing is written, and the exit code is 1 where a block would change.
"""

import hashlib
import pathlib
import re
import sys

from envelock_reference import (
    FOR_RECORDS, Floe, Passphrase, Planted, Raw, byte_string, encode_context, encrypt, expand, kms_context,
    local_wrap, make_record_set, to_text, u16, u64, xaes_key,
)

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "format.md"
BLOCK = re.compile(r"^```elk-example name=(\S+) shows=(\S+)\n(.*?)^```$", re.M | re.S)
INPUT = re.compile(r"^input (\S+) =([ 0-9a-f]*)(#.*)?$")


class Example:
    """The inputs of a block, and the lines made from them."""

    def __init__(self, text):
        self.lines = [line for line in text.splitlines() if line.startswith("input ")]
        matches = [INPUT.match(line) for line in self.lines]
        self.inputs = {m[1]: bytes.fromhex(m[2]) for m in matches}
        assert len(self.inputs) == len(self.lines), "an input is given twice"
        self.used, self.offset = set(), 0

    def take(self, name, length=None):
        self.used.add(name)
        value = self.inputs[name]
        assert length in (None, len(value)), f"{name} has {len(value)} bytes"
        return value

    def number(self, name):
        return int.from_bytes(self.take(name), "big")

    def count(self, pattern):
        found = 0
        while pattern.format(found) in self.inputs:
            found += 1
        return found

    def entries(self, kind):
        count = self.count(kind + "-{}-key")
        return {self.take(f"{kind}-{i}-key").decode(): self.take(f"{kind}-{i}-value").decode()
                for i in range(count)}

    def value(self, name, data):
        self.lines.append(f"value {name} = {data.hex()}")

    def bytes(self, data, comment):
        """At most 32 bytes a line, the comment on the first."""
        for i in range(0, len(data), 32):
            text = f"bytes {self.offset:04x} = {data[i : i + 32].hex()}"
            self.lines.append(text + (f"  # {comment}" if i == 0 else ""))
            self.offset += len(data[i : i + 32])

    def text(self):
        unused = set(self.inputs) - self.used
        assert not unused, f"inputs without use: {unused}"
        return "\n".join(self.lines) + "\n"


def encoded(entries):
    return {k.encode(): v.encode() for k, v in entries.items()}


def provider(e, i, context):
    """The provider of slot i; its derivations become `value` lines."""
    name, key_id = e.take(f"slot-{i}-provider"), e.take(f"slot-{i}-key-id")
    if f"slot-{i}-secret" not in e.inputs:
        return Planted(name, key_id, b"")
    secret, salt = e.take(f"slot-{i}-secret"), e.take(f"slot-{i}-salt")
    if name == b"raw":
        info = b"envelock/v1 raw\x00\x01" + salt
        e.value(f"slot-{i}-info", info)
        e.value(f"slot-{i}-wrap-key", expand(secret, info, 32))
        e.value(f"slot-{i}-aad", b"\x01" + salt + byte_string(key_id) + context)
        return Raw(key_id.decode(), secret)
    assert (name, key_id) == (b"passphrase", b"")
    made = Passphrase(secret, tuple(e.number(f"slot-{i}-{x}") for x in ("memory", "passes", "lanes")))
    head = (b"\x01" + e.take(f"slot-{i}-memory", 4) + e.take(f"slot-{i}-passes", 4)
            + e.take(f"slot-{i}-lanes", 1) + salt)
    e.value(f"slot-{i}-argon2id", made.stretch(head))
    e.value(f"slot-{i}-info", b"envelock/v1 passphrase\x00" + head + hashlib.sha384(context).digest())
    key, commitment = made.keys(head, context)
    e.value(f"slot-{i}-wrap-key", key)
    e.value(f"slot-{i}-commitment", commitment)
    return made


def message(e):
    stored, unstored = e.entries("stored"), e.entries("unstored")
    context = kms_context(encoded(stored), encoded(unstored))
    e.value("kms-context", context)
    count = e.count("slot-{}-provider")
    providers = [provider(e, i, context) for i in range(count)]
    slot = iter([i for i in range(count) if f"slot-{i}-salt" in e.inputs])

    def random(label, length):
        if label.endswith("-salt"):
            random.slot = next(slot)
            return e.take(f"slot-{random.slot}-salt", length)
        if label == "raw-iv":
            return e.take(f"slot-{random.slot}-iv", length)
        return e.take(label, length)

    aead = {0x00: "aes256gcm", 0xF1: "chacha20poly1305"}[e.number("aead")]
    slots_length = e.number("slots-length") if "slots-length" in e.inputs else None
    made = encrypt(e.take("plaintext"), providers, stored, unstored, e.number("segment-length"),
                   aead, slots_length, random)
    body_values(e, made, encode_context(encoded(unstored)) if unstored else b"")
    annotate(e, made)


def body_values(e, made, unstored):
    core = 7 + int.from_bytes(made[5:7], "big")
    floe = core + 2 + int.from_bytes(made[core : core + 2], "big")
    parameters, iv, aad = made[floe : floe + 10], made[floe + 10 : floe + 42], made[:core] + unstored
    keys = Floe(e.take("data-key", 32), parameters, iv, aad)
    e.value("aad", aad)
    e.value("header-tag-info", keys.info(b"HEADER_TAG:"))
    e.value("header-tag", keys.header_tag)
    e.value("message-key-info", keys.info(b"MESSAGE_KEY:"))
    e.value("message-key", keys.message_key)
    segments = e.count("segment-iv-{}")
    for i in range(segments):
        e.value(f"segment-key-{i}-info", keys.info(keys.segment_purpose(i)))
        e.value(f"segment-key-{i}", keys.segment_key(i))
        e.value(f"segment-aad-{i}", u64(i) + bytes([i == segments - 1]))


def start(e, made, last_of_core=None):
    """The `bytes` lines of core and slots; the function that makes the next ones."""
    position = 0

    def field(length, comment):
        nonlocal position
        data = made[position : position + length]
        assert len(data) == length
        e.bytes(data, comment)
        position += length
        return int.from_bytes(data, "big")

    field.left = lambda: len(made) - position
    field(3, "magic")
    field(1, "version")
    field(1, "flags")
    n = field(2, "context length")
    if n:
        for _ in range(field(2, "context: count")):
            field(field(2, "key length"), "key")
            field(field(2, "value length"), "value")
    if last_of_core:
        field(16, last_of_core)
    end = field(2, "slots length")
    end += position
    for i in range(field(1, "slot count")):
        field(field(1, f"slot {i}: name length"), "provider name")
        field(field(2, "key id length"), "key id")
        field(field(2, "wrapped data key length"), "wrapped data key")
    field(end - position, "padding")
    return field


def annotate(e, made):
    """The `bytes` lines of a whole message, field by field."""
    field = start(e, made)
    field(1, "aead id")
    field(1, "kdf id")
    length = field(4, "segment length")
    field(4, "IV length")
    field(32, "FLOE IV")
    field(32, "FLOE header tag")
    prefix, index = 0xFFFFFFFF, 0
    while prefix == 0xFFFFFFFF:
        prefix = field(4, f"segment {index}: prefix")
        rest = (length if prefix == 0xFFFFFFFF else prefix) - 32
        field(12, "IV")
        field(rest, "ciphertext")
        field(16, "tag")
        index += 1
    assert field.left() == 0


def record_set(e):
    stored, unstored = e.entries("stored"), e.entries("unstored")
    context = kms_context(encoded(stored), encoded(unstored), FOR_RECORDS)
    e.value("kms-context", context)
    providers = [provider(e, i, context) for i in range(e.count("slot-{}-provider"))]
    slot = iter([i for i in range(len(providers)) if f"slot-{i}-salt" in e.inputs])

    def random(label, length):
        if label.endswith("-salt"):
            random.slot = next(slot)
            return e.take(f"slot-{random.slot}-salt", length)
        return e.take(f"slot-{random.slot}-iv" if label == "raw-iv" else label, length)

    header, keys = make_record_set(providers, stored, unstored, random)
    e.value("record-set-tag-info", keys.tag_info)
    e.value("record-set-tag", keys.header_tag)
    e.value("record-key-info", keys.key_info)
    e.value("record-key", keys.record_key)
    nonce = e.take("nonce", 24)
    e.value("derived-key", xaes_key(keys.record_key, nonce))
    made = header + keys.seal(e.take("value"), e.take("associated-data"), nonce)
    e.value("text-form", to_text(made).encode())

    field = start(e, made, "record-set id")
    field(32, "record-set tag")
    field(1, "record: version")
    field(16, "fingerprint")
    field(24, "nonce")
    field(field.left() - 16, "ciphertext")
    field(16, "tag")
    assert field.left() == 0


def segment_keys(e):
    parameters, iv, aad = e.take("parameters", 10), e.take("floe-iv", 32), e.take("aad")
    keys = Floe(bytes(32), parameters, iv, aad)
    keys.message_key = e.take("message-key", 48)
    for i in range(e.count("index-{}")):
        index = e.number(f"index-{i}")
        e.value(f"purpose-{i}", keys.segment_purpose(index))
        e.value(f"segment-key-{i}", keys.segment_key(index))


def local_blob(e):
    context = kms_context(encoded(e.entries("stored")), encoded(e.entries("unstored")))
    e.value("kms-context", context)
    e.bytes(local_wrap(e.take("material", 32), e.take("key-id"), e.number("key-version"),
                       e.take("data-key", 32), context, e.take("salt", 32), e.take("iv", 12)), "blob")


def journal(e):
    old, new = e.take("old"), e.take("new")
    assert len(old) == len(new)
    data = b"\x01" + u16(len(old)) + old + new
    e.bytes(data[:1], "version")
    e.bytes(data[1:3], "m")
    e.bytes(old, "old")
    e.bytes(new, "new")
    e.bytes(hashlib.sha256(data + e.take("core") + e.take("floe-header", 74)).digest(), "SHA-256")


SHOWS = {"message": message, "segment-keys": segment_keys, "local-blob": local_blob, "journal": journal, "record-set": record_set}


def regenerate(match):
    name, shows, text = match.groups()
    example = Example(text)
    SHOWS[shows](example)
    return f"```elk-example name={name} shows={shows}\n{example.text()}```"


def main():
    page = PAGE.read_text(encoding="utf-8")
    count = len(BLOCK.findall(page))
    assert count == page.count("```elk-example"), "a block does not parse"
    assert count > 0, "no example found"
    made = BLOCK.sub(regenerate, page)
    if "--check" in sys.argv[1:]:
        same = made == page
        print(f"{count} worked examples: {'as written' if same else 'DIFFERENT'}")
        return 0 if same else 1
    PAGE.write_text(made, encoding="utf-8")
    print(f"{count} worked examples written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
