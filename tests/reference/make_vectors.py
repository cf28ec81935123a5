#!/usr/bin/env python3
"""Makes tests/vectors/*.json; with --check, compares them instead (exit code 1 where they differ).

Everything is derived from SEED, so the files come out the same each time. A faulty message is what a
writer with exactly that fault would make: all that depends on the faulty field is computed over it, so
that only the check which the vector is about can reject it. The expected kinds are written by hand
here, from docs/format.md; the reference reader must agree before a file is written.
"""

import hashlib
import json
import pathlib
import struct
import sys

from envelock_reference import (
    AEADS, FOR_RECORDS, NOT_FINAL, UNSTORED, WRITTEN_ARGON2, Fault, Floe, Passphrase, Planted, Raw, RecordSet,
    byte_string, encode_context, encode_entries, job, kms_context, make_core, make_slots, to_text, u16, u32,
)

SEED = b"envelock vectors 1"
FOLDER = pathlib.Path(__file__).resolve().parents[1] / "vectors"
AES, CHACHA = 0x00, 0xF1
SMALL_ARGON2 = (64, 1, 1)
PASSPHRASE = "correct horse battery staple"


def derive(*labels, length):
    """SHAKE-256 over the seed and the labels, each behind a zero byte."""
    return hashlib.shake_256(b"\0".join([SEED, *(x.encode() for x in labels)])).digest(length)


def plaintext(length):
    return bytes(i % 251 for i in range(length))


def key(name):
    return derive("wrapping key", name, length=32)


def raw(name="primary"):
    return {"kind": "raw", "name": name, "key": key(name).hex()}


def phrase(text=PASSPHRASE):
    return {"kind": "passphrase", "passphrase": text}


def foreign(i=0):
    return Planted(b"com.example.hsm", b"key %d" % i, derive(f"foreign {i}", length=24))


def missing(provider=b"com.example.hsm", key_id=b"absent"):
    return Planted(provider, key_id, b"")


class Message:
    """The parts of a message, each replaceable before those that depend on it are computed."""

    def __init__(self, name, length=70, wrappers=None, stored=None, unstored=None, aead=AES,
                 segment_length=64, core=None, slots=None, slots_length=None, parameters=None,
                 context=None, data_key=None, pieces=None, iv=None):
        drawn = {}

        def random(label, size):
            drawn[label] = drawn.get(label, -1) + 1
            return derive(name, label, str(drawn[label]), length=size)

        stored, unstored = ({k.encode(): v.encode() for k, v in (e or {}).items()} for e in (stored, unstored))
        context = kms_context(stored, unstored) if context is None else context
        self.data_key = data_key or random("data key", 32)
        self.core = make_core(stored, unstored) if core is None else core
        wrappers = [Raw("primary", key("primary"))] if wrappers is None else wrappers
        self.wrapped = [w.wrap(self.data_key, context, random) for w in wrappers]
        self.slots = make_slots(self.wrapped, slots_length) if slots is None else slots(self.wrapped)
        if parameters is None:
            parameters = bytes([aead, 0]) + u32(segment_length) + u32(32)
        iv = random("floe iv", struct.unpack(">I", parameters[6:])[0]) if iv is None else iv
        self.floe = Floe(self.data_key, parameters, iv,
                         self.core + (encode_context(unstored) if unstored else b""))
        # An unknown AEAD is AES here: such a message is rejected for its id alone.
        self.header = parameters + iv + self.floe.header_tag
        if parameters[0] not in AEADS:
            self.floe.aead = lambda index: AEADS[AES](self.floe.segment_key(index))
        if pieces is None:
            pieces = self.floe.cut(plaintext(length))
        self.segments = [self.floe.seal(i, final, data, random("segment iv", 12))
                         for i, final, data in pieces]

    def bytes(self):
        return self.core + self.slots + self.header + b"".join(self.segments)


class File:
    """The vectors of one file, in order."""

    def __init__(self, description):
        self.description, self.vectors = description, []

    def add(self, name, comment, message, expect, providers=None, context=None, unstored=None, match="exact"):
        vector = {
            "name": name, "comment": comment,
            "providers": [raw()] if providers is None else providers,
            "context": context or {}, "unstored": unstored or {}, "match": match,
            "message": (message if isinstance(message, bytes) else message.bytes()).hex(),
            "expect": expect,
        }
        assert name not in [v["name"] for v in self.vectors], name
        got = job({"op": "decrypt", **vector})
        if "kind" in expect:
            same = not got["ok"] and got["kind"] == expect["kind"] and got["released"] == expect["released"]
        else:
            same = got["ok"] and bytes.fromhex(got["plaintext"]) == plaintext(expect["plaintext_length"])
        assert same, f"{name}: expected {expect}, the reference reader says {got}"
        self.vectors.append(vector)

    def opens(self, name, comment, message, length, **reader):
        self.add(name, comment, message, {"plaintext_length": length}, **reader)

    def fails(self, name, comment, message, kind, released=0, **reader):
        self.add(name, comment, message, {"kind": kind, "released": released}, **reader)

    def text(self):
        head = {"description": self.description, "seed": SEED.decode(),
                "plaintext": "byte i of every plaintext is i mod 251"}
        lines = [json.dumps(v, ensure_ascii=True) for v in self.vectors]
        start = json.dumps(head)[:-1] + ', "vectors": [\n'
        return start + ",\n".join(lines) + "\n]}\n"


# --- valid messages -----------------------------------------------------------------------------


def valid(aead, name):
    out = File(f"messages that open, {name}")
    for length in (0, 1, 31, 32, 33, 63, 64, 65, 320, 1000):
        title = f"raw, segment length 64, {length} bytes"
        out.opens(title, f"{max(1, -(-length // 32))} segments of 32 bytes of plaintext",
                  Message(name + title, length, aead=aead), length)
    for length in (0, 4063, 4064, 4065, 9000) if aead == AES else (4065,):
        title = f"raw, segment length 4096, {length} bytes"
        out.opens(title, "segments of 4,064 bytes of plaintext",
                  Message(name + title, length, aead=aead, segment_length=4096), length)
    for length in (1, 5000):
        title = f"raw, segment length 16 MiB, {length} bytes"
        out.opens(title, "the largest segment length that is read by default",
                  Message(name + title, length, aead=aead, segment_length=16 << 20), length)
    for length in (0, 33):
        title = f"passphrase, small parameters, {length} bytes"
        out.opens(title, "Argon2id with 64 KiB, 1 pass, 1 lane",
                  Message(name + title, length, [Passphrase(PASSPHRASE.encode(), SMALL_ARGON2)], aead=aead),
                  length, providers=[phrase()])
    if aead == AES:
        more_valid(out)
    return out


def more_valid(out):
    title = "passphrase, written parameters"
    out.opens(title, "Argon2id with 64 MiB, 3 passes, 4 lanes",
              Message(title, 33, [Passphrase(PASSPHRASE.encode(), WRITTEN_ARGON2)]), 33, providers=[phrase()])
    title = "passphrase, smallest parameters for two lanes"
    out.opens(title, "16 KiB, 1 pass, 2 lanes; not ASCII, not normalised",
              Message(title, 33, [Passphrase("pa\u0301ss\U0001f511 ".encode(), (16, 1, 2))]), 33,
              providers=[phrase("pa\u0301ss\U0001f511 ")])
    nasty = {"\uff5e": "bytes sort before UTF-16", "\U0001f600": "astral", "a": "", "ab": "prefix", "e\u0301": "\u00e9"}
    title = "context, nasty Unicode"
    out.opens(title, "sorted by UTF-8 bytes, no normalisation, an empty value",
              Message(title, stored=nasty), 70, context=nasty)
    title = "context, as long as it may be"
    long = {"k": "v" * (8167 - 2 - 5)}
    out.opens(title, "n = 8,167", Message(title, 5, stored=long), 5, context=long)
    title = "unstored only"
    out.opens(title, "flag bit 0, n = 0", Message(title, unstored={"path": "/a"}), 70, unstored={"path": "/a"})
    stored, unstored = {"tenant": "acme"}, {"a": "1", "z": "2"}
    title = "stored and unstored"
    message = Message(title, stored=stored, unstored=unstored)
    out.opens(title, "unstored keys sort before and after the stored one", message, 70,
              context=stored, unstored=unstored)
    out.opens(title + ", given as one set", "which keys are unstored is the message's to say", message, 70,
              context={**stored, **unstored})
    title = "contains at least"
    two = Message(title, stored={"a": "1", "b": "2"})
    out.opens(title, "the message has one stored entry more", two, 70, context={"b": "2"}, match="at_least")
    out.opens(title + ", nothing given", "", two, 70, match="at_least")
    title = "contains at least, with unstored"
    out.opens(title, "the unstored entry is still needed",
              Message(title, stored={"a": "1", "b": "2"}, unstored={"c": "3"}), 70,
              context={"b": "2"}, unstored={"c": "3"}, match="at_least")
    primary, second = (Raw(n, key(n)) for n in ("primary", "second"))
    title = "two recipients"
    message = Message(title, wrappers=[primary, second])
    out.opens(title + ", the first", "", message, 70)
    out.opens(title + ", the second", "", message, 70, providers=[raw("second")])
    title = "raw and passphrase"
    message = Message(title, wrappers=[primary, Passphrase(PASSPHRASE.encode(), SMALL_ARGON2)])
    out.opens(title + ", by passphrase", "", message, 70, providers=[phrase()])
    out.opens(title + ", wrong passphrase but right key", "the slot that opens is enough", message, 70,
              providers=[phrase("wrong"), raw()])
    title = "a missing recipient first"
    out.opens(title, "an empty wrapped key is never tried", Message(title, wrappers=[missing(), primary]), 70)
    title = "our own slot empty, then filled"
    out.opens(title, "the empty slot of our key does not count as a try",
              Message(title, wrappers=[missing(b"raw", b"primary")] * 4 + [primary]), 70)
    title = "foreign slots first, 32 in all"
    out.opens(title, "the most slots that there may be",
              Message(title, wrappers=[foreign(i) for i in range(31)] + [primary]), 70)
    title = "fourth try opens"
    out.opens(title, "three slots of our key name hold something else",
              Message(title, wrappers=[Planted(b"raw", b"primary", b"x")] * 3 + [primary]), 70)
    title = "a swapped slot before the right one"
    other = Message(title + ", other")
    out.opens(title, "its key fails the header tag, the next slot opens",
              Message(title, wrappers=[Planted(*other.wrapped[0]), primary]), 70)
    title = "padded slots"
    out.opens(title, "m = 1,024, zeros after the slots", Message(title, slots_length="file"), 70)
    title = "provider name of 255 bytes, empty key id"
    out.opens(title, "", Message(title, wrappers=[Planted(b"n." + b"x" * 253, b"", b"y"), primary]), 70)
    title = "empty final segment after full ones"
    pieces = [(0, False, plaintext(32)), (1, True, b"")]
    out.opens(title, "writers do not make it, readers accept it", Message(title, pieces=pieces), 32)


# --- failures before a key ----------------------------------------------------------------------


def headers():
    out = File("messages that fail before a key is at hand, one fault each")
    base = Message("headers", stored={"tenant": "acme"})
    reader = {"context": {"tenant": "acme"}}
    whole = base.bytes()
    out.opens("base", "the message that faults are put into", whole, 70, **reader)
    magic(out, whole)
    truncations(out, base, reader)
    contexts(out)
    mismatches(out)
    slots(out)
    parameters(out)
    keys(out)
    return out


def magic(out, whole):
    for name, data in (("text form", b"elk1." + whole), ("AWS version 2", b"\x02" + whole[1:]),
                       ("compact record", b"\xe1" + whole[1:]), ("magic, third byte", b"ELk" + whole[3:]),
                       ("wrong magic, cut short", b"EX")):
        out.fails(name, "not the magic", data, "Malformed")
    for value in (0, 2, 255):
        core = b"ELK" + bytes([value]) + bytes(3)
        out.fails(f"version {value}", "", Message(f"version {value}", core=core), "Unsupported")
    for bit in range(2, 8):
        core = b"ELK\x01" + bytes([1 << bit]) + bytes(2)
        out.fails(f"flag bit {bit}", "unknown", Message(f"flag {bit}", core=core), "Unsupported")
    core = b"ELK\x01\x02" + bytes(2) + derive("record-set id", length=16)
    message = Message("record set", core=core)
    record_set = core + message.slots + derive("record-set tag", length=32)
    out.fails("record set", "flag bit 1 is reserved in this version", record_set, "Unsupported")


def truncations(out, base, reader):
    whole = base.bytes()
    body = len(base.core) + len(base.slots)
    cuts = {"nothing": 0, "inside magic": 2, "before version": 3, "before flags": 4, "inside context length": 6,
            "inside context": 12, "after core": len(base.core), "inside slots length": len(base.core) + 1,
            "before slot count": len(base.core) + 2, "inside slots": len(base.core) + 20, "before body": body,
            "before kdf id": body + 1, "inside segment length": body + 4, "inside IV length": body + 9,
            "inside FLOE IV": body + 20, "inside header tag": body + 60, "header tag less one byte": body + 73}
    for name, at in cuts.items():
        out.fails(f"cut: {name}", f"{at} bytes are left", whole[:at], "Truncated", **reader)
    out.fails("cut in the header tag, wrong context", "the whole FLOE header is parsed before the context is compared",
              whole[: body + 60], "Truncated", context={"tenant": "other"})
    out.fails("cut in the header tag, no key", "and before a provider is asked", whole[: body + 60], "Truncated",
              providers=[raw("second")], **reader)


def contexts(out):
    def pair(k, v=b"v"):
        return byte_string(k) + byte_string(v)

    def entry(name, comment, context, lenient, given, kind="Malformed"):
        """`lenient`: the entries that a reader without the check would see; `given`: the caller's.

        Where a caller cannot give them, it gives none and compares with "contains at least".
        """
        core = b"ELK\x01\x00" + byte_string(context)
        message = Message(name, core=core, context=encode_entries({**lenient, b"envelock-use": b"message/1"}))
        match = "exact" if given or not lenient else "at_least"
        out.fails(name, comment, message, kind, context=given, match=match)

    ab, given = {b"a": b"v", b"b": b"v"}, {"a": "v", "b": "v"}
    entry("context unsorted", "", u16(2) + pair(b"b") + pair(b"a"), ab, given)
    entry("context duplicate", "", u16(2) + pair(b"a") + pair(b"a"), {b"a": b"v"}, {"a": "v"})
    entry("context key empty", "", u16(2) + pair(b"") + pair(b"a"), {b"": b"v", b"a": b"v"}, {})
    entry("context count 0", "n = 2", u16(0), {}, {})
    entry("context of one byte", "n = 1", b"\0", {}, {})
    entry("context left over", "a byte after the last entry", u16(1) + pair(b"a") + b"\0", {b"a": b"v"}, {"a": "v"})
    entry("context runs short", "count 2, one entry", u16(2) + pair(b"a"), {b"a": b"v"}, {"a": "v"})
    entry("context value past n", "a value's length reaches past the context", u16(1) + byte_string(b"a") + u16(9) + b"v",
          {b"a": b"v"}, {"a": "v"})
    entry("context key not UTF-8", "", u16(1) + pair(b"\xff"), {b"\xff": b"v"}, {})
    entry("context value not UTF-8", "an encoded surrogate", u16(1) + pair(b"a", b"\xed\xa0\x80"), {b"a": b"\xed\xa0\x80"}, {})
    entry("context key reserved", "", u16(1) + pair(b"envelock-x"), {b"envelock-x": b"v"}, {})
    use = {b"envelock-use": b"message/1"}
    entry("context key is envelock-use", "", u16(1) + pair(b"envelock-use", b"message/1"), use, {})
    long = b"v" * (8168 - 2 - 5)
    entry("context length 8168", "one byte above the limit", u16(1) + pair(b"k", long), {b"k": long}, {}, "LimitExceeded")
    out.fails("context length 65535, then the end", "judged before anything is read", b"ELK\x01\x00\xff\xff", "LimitExceeded")
    out.fails("context length 8167, then the end", "within the limit", b"ELK\x01\x00" + u16(8167), "Truncated")


def mismatches(out):
    two = {"a": "1", "b": "2"}
    message = Message("mismatch", stored=two)
    kind = "ContextMismatch"
    for name, given in (("nothing given", {}), ("an entry less", {"a": "1"}), ("an entry more", {**two, "c": "3"}),
                        ("another value", {"a": "1", "b": "3"}), ("values swapped", {"a": "2", "b": "1"}),
                        ("another key", {"a": "1", "B": "2"})):
        out.fails(f"context: {name}", "", message, kind, context=given)
    out.fails("context: wrong, and no key", "compared before a provider is asked", message, kind,
              providers=[raw("second")], context={"a": "1"})
    out.fails("at least: another value", "", message, kind, context={"b": "3"}, match="at_least")
    out.fails("at least: unknown entry", "it would have to be unstored", message, kind, context={"c": "3"}, match="at_least")
    hidden = Message("mismatch unstored", stored=two, unstored={"c": "3"})
    out.fails("unstored: not given", "flag bit 0 is set", hidden, kind, context=two)
    out.fails("unstored: not given, at least", "", hidden, kind, context=two, match="at_least")
    failed = "AuthenticationFailed"
    out.fails("unstored: another value", "cannot be compared, so the key does not unwrap", hidden, failed,
              context=two, unstored={"c": "4"})
    out.fails("unstored: an entry more", "", hidden, failed, context=two, unstored={"c": "3", "d": "4"})
    name = "KMS context of 8199 bytes"
    long = Message(name, stored={"k": "v" * (8167 - 2 - 5)}, unstored={"c": "33"})
    out.fails(name, "within the core's limit; the unstored entry is too much", long, "LimitExceeded",
              unstored={"c": "33"}, match="at_least")
    flagged = Message("flag without entries", core=b"ELK\x01" + bytes([UNSTORED]) + u16(0))
    out.fails("flag bit 0 without entries", "a writer that sets it always", flagged, kind)


def slots(out):
    def parts(wrapped):
        return b"".join(bytes([len(n)]) + n + byte_string(i) + byte_string(w) for n, i, w in wrapped)

    def bad(name, comment, make, kind="Malformed"):
        out.fails(name, comment, Message(name, slots=make), kind)

    primary = Raw("primary", key("primary"))
    bad("slots length 0", "", lambda w: u16(0))
    bad("slot count 0", "", lambda w: byte_string(b"\0" + parts(w)))
    bad("slot count 0, nothing else", "", lambda w: byte_string(b"\0"))
    bad("slot count above the slots", "the second slot reads as padding, too short", lambda w: byte_string(b"\x02" + parts(w)))
    bad("slot count below the slots", "the second slot is no padding", lambda w: byte_string(b"\x01" + parts(w) + parts(w)))
    bad("padding not zero, last byte", "", lambda w: byte_string(b"\x01" + parts(w) + bytes(15) + b"\1"))
    bad("padding not zero, first byte", "", lambda w: byte_string(b"\x01" + parts(w) + b"\1" + bytes(15)))
    bad("provider name empty", "", lambda w: byte_string(b"\x02" + parts(w) + b"\0" + byte_string(b"k") + byte_string(b"w")))
    bad("provider name not ASCII", "", lambda w: byte_string(b"\x02" + parts(w) + b"\x02\xc3\xa9" + byte_string(b"k") + byte_string(b"w")))
    bad("wrapped key past the slots", "by one byte", lambda w: byte_string(b"\x01" + parts(w)[:-1]))
    bad("key id past the slots", "", lambda w: byte_string(b"\x01\x03raw\xff\xff" + parts(w)))
    for name, wrappers in (("every slot empty", [missing(), missing(b"raw", b"primary")]),
                           ("two passphrase slots", [primary] + [Passphrase(PASSPHRASE.encode(), SMALL_ARGON2)] * 2),
                           ("a passphrase slot and an empty one",
                            [primary, Passphrase(PASSPHRASE.encode(), SMALL_ARGON2), missing(b"passphrase", b"")])):
        out.fails(name, "", Message(name, wrappers=wrappers), "Malformed", providers=[raw(), phrase()])
    out.fails("33 slots", "", Message("33 slots", wrappers=[foreign(i) for i in range(32)] + [primary]), "LimitExceeded")
    core = b"ELK\x01" + bytes(3)
    out.fails("core and slots of 65537 bytes", "judged at the length, before it is read", core + u16(65528), "LimitExceeded")
    out.fails("core and slots of 65536 bytes, then the end", "within the limit", core + u16(65527), "Truncated")


def parameters(out):
    def bad(name, comment, value, kind):
        out.fails(name, comment, Message(name, pieces=[(0, True, plaintext(20))], parameters=value), kind)

    tail = u32(64) + u32(32)
    for value in (0x01, 0x65, 0xF0):
        bad(f"aead id {value:02x}", "never assigned" if value == 0x65 else "unknown", bytes([value, 0]) + tail, "Unsupported")
    for value in (1, 255):
        bad(f"kdf id {value:02x}", "unknown", bytes([AES, value]) + tail, "Unsupported")
    for value in (0, 32, 40, 63):
        bad(f"segment length {value}", "", bytes([AES, 0]) + u32(value) + u32(32), "Malformed")
    for value in ((16 << 20) + 1, 2**31, 2**32 - 1):
        bad(f"segment length {value}", "", bytes([AES, 0]) + u32(value) + u32(32), "LimitExceeded")
    for value in (0, 31, 33):
        bad(f"IV length {value}", "", bytes([AES, 0]) + u32(64) + u32(value), "Malformed")


def keys(out):
    primary, failed = Raw("primary", key("primary")), "AuthenticationFailed"
    message = Message("keys")
    out.fails("foreign key only", "", message, "NoMatchingKey", providers=[raw("second")])
    out.fails("no provider", "", message, "NoMatchingKey", providers=[])
    out.fails("passphrase for a raw message", "", message, "NoMatchingKey", providers=[phrase()])
    out.fails("our slot is empty", "never tried", Message("our empty", wrappers=[missing(b"raw", b"primary"), foreign()]), "NoMatchingKey")
    out.fails("key under our name", "another wrapping key", message, failed, providers=[{**raw("second"), "name": "primary"}])

    def planted(name, comment, wrapped, provider=b"raw", key_id=b"primary", providers=None, kind=failed):
        made = Message(name, wrappers=[Planted(provider, key_id, wrapped)], data_key=message.data_key)
        out.fails(name, comment, made, kind, providers=providers)

    good = message.wrapped[0][2]
    planted("raw: version 2", "", b"\x02" + good[1:])
    planted("raw: 92 bytes", "", good[:-1])
    planted("raw: 94 bytes", "", good + b"\0")
    for at, field in ((1, "salt"), (33, "IV"), (45, "ciphertext"), (92, "tag")):
        planted(f"raw: flip in {field}", "", flip(good, at))
    planted("slot of another message", "its key unwraps and fails the header tag", Message("another").wrapped[0][2])
    for use in (b"records/1", b"root/1", None):
        name = f"wrapped for {use.decode() if use else 'no use'}"
        context = encode_entries({b"envelock-use": use} if use else {})
        out.fails(name, "the KMS context holds envelock-use = message/1", Message(name, context=context), failed)
    wrong = [Planted(b"raw", b"primary", b"x")] * 4
    out.fails("fifth try would open", "four slots are tried", Message("fifth", wrappers=wrong + [primary]), "LimitExceeded")
    out.fails("four tries, a foreign slot left", "whose it is, only a provider could tell",
              Message("four", wrappers=wrong + [foreign()]), "LimitExceeded")
    out.fails("four tries, none opens", "an empty slot is not one that is left",
              Message("four", wrappers=wrong + [Planted(b"raw", b"primary", b"")]), failed)
    out.fails("three tries, a foreign slot first", "a slot that is nobody's here is no try",
              Message("three", wrappers=[foreign()] + wrong[:3] + [foreign()]), failed)

    secret = Message("phrase", wrappers=[Passphrase(PASSPHRASE.encode(), SMALL_ARGON2)], data_key=message.data_key)
    reader = {"provider": b"passphrase", "key_id": b"", "providers": [phrase()]}
    good = secret.wrapped[0][2]
    out.fails("wrong passphrase", "", secret, failed, providers=[phrase("correct horse battery stapl")])
    out.fails("passphrase with a line end", "only files and descriptors lose theirs", secret, failed, providers=[phrase(PASSPHRASE + "\n")])
    class Faulty(Passphrase):
        """Wraps well under a first byte or parameters that readers refuse."""

        def keys(self, head, context):
            self.head = version + head[1:]
            return super().keys(self.head, context)

    def faulty(name, comment, argon2):
        made = Faulty(PASSPHRASE.encode(), argon2)
        _, _, wrapped = made.wrap(message.data_key, kms_context({}, {}), lambda label, n: derive(name, label, length=n))
        planted(name, comment, made.head + wrapped[26:], **reader)

    version = b"\x02"
    faulty("passphrase: version 2", "all else as in version 1", SMALL_ARGON2)
    version = b"\x01"
    for argon2, why in (((64, 11, 1), "passes above the cap"), ((136, 1, 17), "lanes above the cap")):
        faulty(f"passphrase: {why}", "well wrapped", argon2)
    planted("passphrase: 105 bytes", "", good[:-1], **reader)
    planted("passphrase: 107 bytes", "", good + b"\0", **reader)
    for at, field in ((10, "salt"), (26, "commitment"), (58, "ciphertext"), (105, "tag")):
        planted(f"passphrase: flip in {field}", "", flip(good, at), **reader)
    for memory, passes, lanes, why in ((1048577, 1, 1, "memory above the cap"), (2**32 - 1, 1, 1, "memory of 4 TiB"),
                                       (64, 0, 1, "no pass"), (64, 1, 0, "no lane"), (7, 1, 1, "memory below 8 KiB"),
                                       (15, 1, 2, "memory below 8 KiB for each lane")):
        planted(f"passphrase: {why}", "a failed try, found before Argon2 runs",
                b"\x01" + struct.pack(">IIB", memory, passes, lanes) + good[10:], **reader)
    planted("passphrase: a key id", "its key id is empty", good, b"passphrase", b"x", [phrase()], "NoMatchingKey")


def flip(data, at, bit=0):
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


# --- failures after a key -----------------------------------------------------------------------


def bodies():
    out = File("messages whose header or body is not what was written, one fault each")
    failed, reader = "AuthenticationFailed", {"context": {"tenant": "acme"}}
    base = Message("bodies", stored={"tenant": "acme"})  # segments of 32, 32 and 6 bytes of plaintext
    whole, head = base.bytes(), base.core + base.slots
    first, second, last = base.segments
    out.opens("base", "the message that faults are put into", whole, 70, **reader)

    changed = {"tenant": "bcme"}
    at = base.core.index(b"acme")
    out.fails("core: stored value changed, old context given", "", whole[:at] + b"b" + whole[at + 1 :], "ContextMismatch", **reader)
    out.fails("core: stored value changed, new context given", "the key does not unwrap", whole[:at] + b"b" + whole[at + 1 :],
              failed, context=changed)
    other_core = Message("other core", stored=changed, data_key=base.data_key)
    out.fails("core: body of another message under the same key", "the AAD differs",
              head + other_core.header + b"".join(other_core.segments), failed, **reader)
    body = len(head)
    for name, at in (("segment length", body + 4), ("FLOE IV, first byte", body + 10), ("FLOE IV, last byte", body + 41),
                     ("header tag, first byte", body + 42), ("header tag, last byte", body + 73)):
        out.fails(f"flip: {name}", "the header tag does not hold", flip(whole, at, 7 if name == "segment length" else 0),
                  failed, **reader)
    out.fails("aead id changed", "AES-256-GCM to ChaCha20-Poly1305", whole[:body] + b"\xf1" + whole[body + 1 :], failed, **reader)

    def segments(name, comment, pieces, kind, released):
        out.fails(name, comment, head + base.header + b"".join(pieces), kind, released, **reader)

    fields = (("prefix", 3), ("IV", 4), ("ciphertext", 16), ("tag", -1))
    for index, released in ((0, 0), (1, 32), (2, 64)):
        for field, at in fields:
            pieces = list(base.segments)
            pieces[index] = flip(pieces[index], at % len(pieces[index]))
            kind, comment = failed, ""
            if (index, field) == (2, "prefix"):
                kind, comment = "Truncated", "38 became 39, and a byte is missing"
            segments(f"flip: segment {index}, {field}", comment, pieces, kind, released)
    segments("swap: first two", "", [second, first, last], failed, 0)
    segments("duplicate: first", "", [first, first, second, last], failed, 32)
    segments("duplicate: second", "", [first, second, second, last], failed, 64)
    segments("missing: first", "", [second, last], failed, 0)
    segments("missing: second", "", [first, last], failed, 32)
    segments("missing: last", "cut at a segment's edge", [first, second], "Truncated", 64)
    segments("missing: last two", "", [first], "Truncated", 32)
    segments("missing: all", "the input ends with the FLOE header", [], "Truncated", 0)
    segments("last first", "", [last, first, second], failed, 0)
    for cut, where in ((1, "prefix"), (4, "before the IV"), (10, "IV"), (17, "ciphertext"), (37, "tag")):
        segments(f"cut: last segment, {where}", f"{cut} of 38 bytes are left", [first, second, last[:cut]], "Truncated", 64)
    for cut in (3, 4, 63):
        segments(f"cut: first segment after {cut} bytes", "", [first[:cut]], "Truncated", 0)
    segments("trailing: a zero byte", "", [first, second, last, b"\0"], "TrailingData", 70)
    segments("trailing: the last segment again", "", [first, second, last, last], "TrailingData", 70)
    segments("trailing: the whole message again", "", [first, second, last, whole], "TrailingData", 70)
    segments("trailing data and a bad last tag", "reported only after the final segment verified",
             [first, second, flip(last, 37), b"\0"], failed, 64)
    seal, iv = base.floe.seal, derive("bodies", "extra iv", length=12)
    segments("trailing: a second final segment", "index 3, well sealed", [first, second, last, seal(3, True, b"", iv)],
             "TrailingData", 70)
    segments("trailing: a segment past the final", "index 3, not final, well sealed",
             [first, second, last, seal(3, False, plaintext(32), iv)], "TrailingData", 70)
    segments("final marked as not final", "sealed as final, the prefix says not", [first, u32(NOT_FINAL) + seal(1, True, plaintext(32), iv)[4:]],
             failed, 32)
    segments("not final marked as final", "sealed as not final, the prefix says final", [u32(64) + first[4:]], failed, 0)
    for length in (31, 0, 4):
        segments(f"prefix {length}", "below a segment's overhead", [first, second, u32(length) + last[4:]], failed, 64)
    segments("prefix 65, well sealed", "above the segment length", [seal(0, True, plaintext(33), iv)], failed, 0)
    segments("prefix fffffffe", "", [u32(0xFFFFFFFE) + first[4:]], failed, 0)
    segments("not final and short, well sealed", "63 bytes where a whole segment has 64", [seal(0, False, plaintext(31), iv), last], failed, 0)

    twin = Message("twin", stored={"tenant": "acme"}, data_key=base.data_key)
    segments("segment of another message under the same key", "its FLOE IV differs", [first, twin.segments[1], last], failed, 32)
    segments("end of another message under the same key", "", [first, second, twin.segments[2]], failed, 64)
    twin = Message("bodies, another key", stored={"tenant": "acme"}, iv=base.floe.iv)
    segments("segment of another message under the same IV", "its data key differs", [twin.segments[0], second, last], failed, 0)
    out.fails("slots of another message", "their key fails the header tag", base.core + twin.slots + base.header + b"".join(base.segments),
              failed, **reader)
    chacha = Message("bodies chacha", stored={"tenant": "acme"}, aead=CHACHA)
    pieces = chacha.segments
    for index, released in ((0, 0), (2, 64)):
        bad = list(pieces)
        bad[index] = flip(bad[index], len(bad[index]) - 1)
        out.fails(f"ChaCha20-Poly1305: flip in tag {index}", "", chacha.core + chacha.slots + chacha.header + b"".join(bad),
                  failed, released, **reader)
    out.fails("ChaCha20-Poly1305: cut at a segment's edge", "", chacha.bytes()[: -len(pieces[2])], "Truncated", 64, **reader)
    return out


# --- record sets, records and values ------------------------------------------------------------


class Set:
    """The parts of a record set, each replaceable before those that depend on it are computed."""

    def __init__(self, name, stored=None, unstored=None, core=None, wrappers=None, context=None, data_key=None):
        drawn = {}

        def random(label, size):
            drawn[label] = drawn.get(label, -1) + 1
            return derive("record set", name, label, str(drawn[label]), length=size)

        stored, unstored = ({k.encode(): v.encode() for k, v in (e or {}).items()} for e in (stored, unstored))
        self.random, self.data_key = random, data_key or random("data key", 32)
        self.core = make_core(stored, unstored, random("set id", 16)) if core is None else core
        context = kms_context(stored, unstored, FOR_RECORDS) if context is None else context
        wrappers = [Raw("primary", key("primary"))] if wrappers is None else wrappers
        self.slots = make_slots([w.wrap(self.data_key, context, random) for w in wrappers])
        self.keys = RecordSet(self.data_key, self.core + (encode_context(unstored) if unstored else b""))
        self.header = self.core + self.slots + self.keys.header_tag

    def seal(self, value, aad=b""):
        return self.keys.seal(value, aad, self.random("nonce", 24))


class RecordFile(File):
    """Vectors of two shapes: a value that stands alone, and records of a header."""

    def add(self, name, comment, what, expect, providers=None, context=None, unstored=None, match="exact"):
        vector = {
            "name": name, "comment": comment,
            "providers": [raw()] if providers is None else providers,
            "context": context or {}, "unstored": unstored or {}, "match": match, **what, "expect": expect,
        }
        assert name not in [v["name"] for v in self.vectors], name
        try:
            got = job({"op": "open_records" if "header" in what else "open_value", **vector})
        except Fault as fault:
            got = {"kind": fault.kind}
        got = {"values": [got["value"]]} if "value" in got else {k: got[k] for k in ("values", "kind") if k in got}
        assert got == expect, f"{name}: expected {expect}, the reference reader says {got}"
        self.vectors.append(vector)

    def opens(self, name, comment, what, values, **reader):
        self.add(name, comment, what, {"values": [value.hex() for value in values]}, **reader)

    def fails(self, name, comment, what, kind, **reader):
        self.add(name, comment, what, {"kind": kind}, **reader)


def of_value(data):
    return {"sealed": data.hex()}


def of_records(header, *records):
    return {"header": header.hex(), "records": [[record.hex(), aad.hex()] for record, aad in records]}


def records():
    out = RecordFile("record sets, compact records and values that stand alone; one fault each, or none")
    reader, place = {"context": {"tenant": "acme"}}, b"\x00\x09customers\x00\x04iban\x00\x044711"
    base, value = Set("base", reader["context"]), plaintext(70)
    record = base.seal(value, place)
    out.opens("base", "the record that faults are put into", of_records(base.header, (record, place)), [value], **reader)
    many = [(base.seal(plaintext(n), b"row %d" % n), b"row %d" % n) for n in (0, 1, 16, 1000)]
    out.opens("several records", "of 0, 1, 16 and 1,000 bytes", of_records(base.header, *many),
              [plaintext(n) for n in (0, 1, 16, 1000)], **reader)
    out.opens("no record", "the header alone", of_records(base.header), [], **reader)
    broken_records(out, base, record, place, reader)
    broken_headers(out, base, record, place, reader)
    values(out, base, reader)
    return out


def broken_records(out, base, record, place, reader):
    def one(name, comment, data, kind, aad=place):
        out.fails(name, comment, of_records(base.header, (data, aad)), kind, **reader)

    failed = "AuthenticationFailed"
    for name, at in (("nonce, the half that derives the key", 17), ("nonce, the half that is the IV", 29),
                     ("ciphertext", 41), ("tag, last byte", len(record) - 1)):
        one(f"flip: {name}", "", flip(record, at), failed)
    for at in (1, 16):
        one(f"flip: fingerprint, byte {at - 1}", "a record of another set", flip(record, at), "NoMatchingKey")
    one("first byte", "no record", b"\xe2" + record[1:], "Malformed")
    one("message for a record", "", b"ELK\x01\x00" + record[5:], "Malformed")
    one("nothing", "no record has less than 57 bytes", b"", "Malformed")
    one("cut: 56 bytes", "no record has less than 57 bytes", record[:56], "Malformed")
    one("cut: one byte", "the tag does not hold", record[:-1], failed)
    one("trailing: a zero byte", "a record has no length of its own: the tag does not hold", record + b"\0", failed)
    for name, aad in (("another row", place[:-1] + b"2"), ("another column", place.replace(b"iban", b"name")),
                      ("no place", b""), ("a place with more", place + b"\0")):
        one(f"associated data: {name}", "", record, failed, aad)
    twin = Set("twin", reader["context"], data_key=base.data_key)
    one("a record of another set under the same data key", "its set id differs", twin.seal(plaintext(70), place), "NoMatchingKey")
    stolen = twin.seal(plaintext(70), place)
    one("a record of another set, this set's fingerprint on it", "what refuses it is the tag",
        record[:17] + stolen[17:], failed)
    out.fails("one of several records", "all or none", of_records(base.header, (record, place), (flip(record, 41), place)), failed,
              **reader)


def broken_headers(out, base, record, place, reader):
    failed = "AuthenticationFailed"

    def headed(name, comment, header, kind, **changes):
        out.fails(name, comment, of_records(header, (record, place)), kind, **{**reader, **changes})

    header, tag = base.header, len(base.header) - 32
    headed("header tag, first byte", "the data key is not this set's", flip(header, tag), failed)
    headed("header tag, last byte", "beyond the fingerprint", flip(header, len(header) - 1), failed)
    at = base.core.index(b"acme") + 4
    headed("set id changed", "the tag covers it", flip(header, at), failed)
    headed("context of another", "", header, "ContextMismatch", context={"tenant": "other"})
    headed("key of another", "", header, "NoMatchingKey", providers=[raw("second")])
    swapped = Set("swapped", reader["context"])
    headed("slots of another set", "a swapped slot: its key fails the tag", base.core + swapped.slots + header[tag:], failed)
    stored = {b"tenant": b"acme"}
    headed("wrapped for messages", "the KMS context names another use",
           Set("wrong use", reader["context"], context=kms_context(stored, {})).header, failed)
    headed("a message for a header", "", Message("no set", stored=reader["context"]).bytes(), "Unsupported")
    for cut in (6, at, at + 16, tag - 1, len(header) - 1):
        headed(f"cut: header after {cut} bytes", "", header[:cut], "Truncated")
    headed("trailing: a record behind the header", "a value is no header", header + record, "TrailingData")
    headed("trailing: a zero byte behind the header", "", header + b"\0", "TrailingData")
    for bit in range(2, 8):
        core = b"ELK\x01" + bytes([2 | 1 << bit]) + base.core[5:]
        headed(f"flag bit {bit}", "unknown", core + base.header[len(core):], "Unsupported")


def values(out, base, reader):
    def sealed(name, value=plaintext(33), **of):
        made = Set(name, **of)
        return made, made.header + made.seal(value)

    failed = "AuthenticationFailed"
    made, whole = sealed("value", stored=reader["context"])
    out.opens("a value", "a set and its one record, under no associated data", of_value(whole), [plaintext(33)], **reader)
    out.opens("a value as text", "", {"text": to_text(whole)}, [plaintext(33)], **reader)
    _, empty = sealed("empty value", b"", stored={}, unstored={"path": "/a"})
    out.opens("an empty value", "with an unstored entry", of_value(empty), [b""], unstored={"path": "/a"})
    out.fails("an unstored entry is not given", "", of_value(empty), "ContextMismatch")
    _, two = sealed("two entries", stored={"a": "1", "b": "2"})
    out.opens("contains at least", "the set has one stored entry more", of_value(two), [plaintext(33)], context={"b": "2"},
              match="at_least")
    out.fails("one entry more than given", "", of_value(two), "ContextMismatch", context={"b": "2"})
    _, phrased = sealed("passphrase", wrappers=[Passphrase(PASSPHRASE.encode(), SMALL_ARGON2)])
    out.opens("a value under a passphrase", "", of_value(phrased), [plaintext(33)], providers=[phrase()])
    out.fails("a value under another passphrase", "", of_value(phrased), failed, providers=[phrase("wrong")])
    end = len(made.header)
    out.fails("value: its record is missing", "a set alone", of_value(made.header), "Truncated", **reader)
    out.fails("value: a message's byte for its record", "", of_value(made.header + b"E" + whole[end + 1 :]), "TrailingData", **reader)
    out.fails("value: its record under a place", "", of_value(made.header + made.seal(plaintext(33), b"row 1")), failed, **reader)
    out.fails("value: the record of another", "", of_value(made.header + base.seal(plaintext(33))), failed, **reader)
    out.fails("value: flip in its tag", "", of_value(flip(whole, len(whole) - 1)), failed, **reader)
    out.fails("value: a byte more", "", of_value(whole + b"\0"), failed, **reader)
    text = to_text(whole)
    padded = len(text[5:]) % 4
    assert padded, "the last character must have spare bits"
    last = text[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spare = text[:-1] + alphabet[alphabet.index(last) ^ 1]
    for name, comment, data in (("padding", "", text + "="), ("another alphabet", "", text[:9] + "+" + text[10:]),
                                ("a line end", "", text + "\n"), ("upper case", "the prefix", "ELK1." + text[5:]),
                                ("no prefix", "", text[5:]), ("spare bits", "one form for each value", spare),
                                ("one character over", "", text[: 5 + 4 * 30 + 1])):
        out.fails(f"text: {name}", comment, {"text": data}, "Malformed", **reader)


def main():
    files = {
        "aes256gcm.json": valid(AES, "AES-256-GCM"), "chacha20poly1305.json": valid(CHACHA, "ChaCha20-Poly1305"),
        "headers.json": headers(), "bodies.json": bodies(), "records.json": records(),
    }
    different = [name for name in FOLDER.glob("*.json") if name.name not in files]
    size = count = 0
    for name, made in files.items():
        text, path = made.text(), FOLDER / name
        size, count = size + len(text), count + len(made.vectors)
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="ascii")
        elif not path.exists() or path.read_text(encoding="ascii") != text:
            different.append(path)
    print(f"{count} vectors in {len(files)} files, {size} bytes")
    for path in different:
        print(f"DIFFERENT: {path.name}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
