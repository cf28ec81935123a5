#!/usr/bin/env python3
"""An independent reader and writer of envelock's native messages and compact records, from docs/format.md alone.

It exists to be compared with the crate, so it is written for reading: no streaming, no care for
secrets in memory. Do not use it to protect anything. Usage: see README.md beside this file.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode

MAGIC = b"ELK"
VERSION = 1
UNSTORED, RECORD_SET = 1, 2  # the bits of the flags byte
AEADS = {0x00: AESGCM, 0xF1: ChaCha20Poly1305}
AEAD_IDS = {"aes256gcm": 0x00, "chacha20poly1305": 0xF1}
FLOE_HEADER = 74
OVERHEAD = 32  # of a segment: prefix 4, IV 12, tag 16
NOT_FINAL = 0xFFFFFFFF
ROTATION = 20  # low bits of the segment index that a segment key ignores
MAX_STORED, MAX_KMS_CONTEXT = 8167, 8192
WRITTEN_ARGON2 = (65536, 3, 4)  # memory in KiB, passes, lanes
ARGON2_CAPS = (1 << 20, 10, 16)
USE, FOR_MESSAGES, FOR_RECORDS = b"envelock-use", b"message/1", b"records/1"
RECORD, RECORD_OVERHEAD = 0xE1, 57
MAX_VALUE, MAX_AAD = 16 << 20, 64 << 10
RESERVED = b"envelock-"


class Limits:
    """Rule 8."""

    header = 65536
    slots = 32
    tries = 4
    derivations = 1
    segment_length = 16 << 20
    min_segment_length = 64  # 33 under test-only parameters


class Fault(Exception):
    """A failure with the kind that docs/format.md gives it."""

    def __init__(self, kind, detail=""):
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.detail = kind, detail


def u16(x):
    return struct.pack(">H", x)


def u32(x):
    return struct.pack(">I", x)


def u64(x):
    return struct.pack(">Q", x)


def byte_string(b):
    return u16(len(b)) + b


def expand(key, info, length):
    """HKDF-Expand (RFC 5869, section 2.3) with SHA-384; any key length."""
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.new(key, block + info + bytes([counter]), hashlib.sha384).digest()
        out, counter = out + block, counter + 1
    return out[:length]


# --- encryption context -------------------------------------------------------------------------


def encode_entries(entries):
    """u16(count) and the sorted pairs."""
    pairs = b"".join(byte_string(k) + byte_string(v) for k, v in sorted(entries.items()))
    return u16(len(entries)) + pairs


def encode_context(entries):
    """Context length and context, as in the core: `0000` when there is no entry."""
    return byte_string(encode_entries(entries)) if entries else u16(0)


def kms_context(stored, unstored, use=FOR_MESSAGES):
    return encode_entries({**stored, **unstored, USE: use})


def given_context(stored, unstored):
    """The caller's entries as bytes, checked."""
    stored, unstored = ({k.encode(): v.encode() for k, v in e.items()} for e in (stored, unstored))
    if set(stored) & set(unstored):
        raise Fault("InvalidInput", "a key is both stored and unstored")
    for key in (*stored, *unstored):
        if not key or key.startswith(RESERVED):
            raise Fault("InvalidInput", f"context key {key!r} is empty or reserved")
    if any(len(b) > 0xFFFF for e in (stored, unstored) for kv in e.items() for b in kv):
        raise Fault("InvalidInput", "a context key or value is above 65535 bytes")
    if len(kms_context(stored, unstored)) > MAX_KMS_CONTEXT:
        raise Fault("InvalidInput", "the KMS context is above 8192 bytes")
    return stored, unstored


def parse_entries(data):
    fields = Fields(data, "Malformed")
    entries, last = {}, b""
    for _ in range(struct.unpack(">H", fields.take(2))[0]):
        key, value = fields.byte_string(), fields.byte_string()
        try:
            key.decode(), value.decode()
        except UnicodeDecodeError:
            raise Fault("Malformed", "context is not UTF-8") from None
        if key <= last:
            raise Fault("Malformed", "context keys are empty, unsorted or duplicate")
        if key.startswith(RESERVED):
            raise Fault("Malformed", "reserved context key")
        entries[key], last = value, key
    if not entries:
        raise Fault("Malformed", "a context of no entries has length 0")
    if fields.rest():
        raise Fault("Malformed", "bytes left over in the context")
    return entries


class Fields:
    """Takes fields from the front; `short` is the kind reported when the bytes do not suffice."""

    def __init__(self, data, short):
        self.data, self.short, self.position = data, short, 0

    def take(self, length):
        if len(self.data) - self.position < length:
            raise Fault(self.short, f"at byte {self.position}")
        self.position += length
        return self.data[self.position - length : self.position]

    def byte_string(self):
        return self.take(struct.unpack(">H", self.take(2))[0])

    def rest(self):
        return self.data[self.position :]


# --- core and slots -----------------------------------------------------------------------------


def make_core(stored, unstored, set_id=b""):
    flags = (UNSTORED if unstored else 0) | (RECORD_SET if set_id else 0)
    return MAGIC + bytes([VERSION, flags]) + encode_context(stored) + set_id


def make_slots(slots, length=None):
    """Slots length, count, slots, padding. `length`: the wanted m, or "file" for a file writer's."""
    body = bytes([len(slots)])
    for name, key_id, wrapped in slots:
        body += bytes([len(name)]) + name + byte_string(key_id) + byte_string(wrapped)
    if length == "file":
        length = -(-(len(body) + 256) // 1024) * 1024
    if length is not None and length < len(body):
        raise Fault("InvalidInput", "the slots do not fit")
    body += bytes((length or len(body)) - len(body))
    return byte_string(body)


class Header:
    """Core, slots, and the 74 FLOE header bytes or the record-set tag, judged field by field as each is whole."""

    def __init__(self, data, limits, record_set=False):
        fields = Fields(data, "Truncated")
        if data[:3] != MAGIC[: len(data)]:
            raise Fault("Malformed", "magic")
        fields.take(3)
        if fields.take(1)[0] != VERSION:
            raise Fault("Unsupported", "version")
        self.flags = fields.take(1)[0]
        if self.flags & ~(UNSTORED | RECORD_SET) or bool(self.flags & RECORD_SET) != record_set:
            raise Fault("Unsupported", "flags")
        n = struct.unpack(">H", fields.take(2))[0]
        if n > MAX_STORED:
            raise Fault("LimitExceeded", "context length")
        context = fields.take(n)
        self.stored = parse_entries(context) if n else {}
        if record_set:
            fields.take(16)
        self.core = data[: fields.position]
        m = struct.unpack(">H", fields.take(2))[0]
        if len(self.core) + 2 + m > limits.header:
            raise Fault("LimitExceeded", "core and slots")
        self.slots = parse_slots(fields.take(m), limits)
        if record_set:
            self.tag = fields.take(32)
            self.end = fields.position
            return
        self.floe = fields.position
        floe = FloeHeader(fields, limits)
        self.parameters, self.iv, self.tag = floe.parameters, floe.iv, floe.tag
        self.segments = fields.position


def parse_slots(data, limits):
    fields, slots = Fields(data, "Malformed"), []
    count = fields.take(1)[0]
    if count == 0:
        raise Fault("Malformed", "no slot")
    if count > limits.slots:
        raise Fault("LimitExceeded", "slot count")
    for _ in range(count):
        name = fields.take(fields.take(1)[0])
        if not name or not name.isascii():
            raise Fault("Malformed", "provider name")
        slots.append((name, fields.byte_string(), fields.byte_string()))
    if any(fields.rest()):
        raise Fault("Malformed", "padding is not zero")
    if not any(wrapped for _, _, wrapped in slots):
        raise Fault("Malformed", "every slot is empty")
    if sum(name == b"passphrase" for name, _, _ in slots) > 1:
        raise Fault("Malformed", "two passphrase slots")
    return slots


# --- FLOE ---------------------------------------------------------------------------------------


class FloeHeader:
    def __init__(self, fields, limits):
        start = fields.position
        if fields.take(1)[0] not in AEADS:
            raise Fault("Unsupported", "aead")
        if fields.take(1)[0] != 0:
            raise Fault("Unsupported", "kdf")
        length = struct.unpack(">I", fields.take(4))[0]
        if length < limits.min_segment_length:
            raise Fault("Malformed", "segment length")
        if length > limits.segment_length:
            raise Fault("LimitExceeded", "segment length")
        if struct.unpack(">I", fields.take(4))[0] != 32:
            raise Fault("Malformed", "IV length")
        self.parameters = fields.data[start : fields.position]
        self.iv, self.tag = fields.take(32), fields.take(32)


class Floe:
    """The keys of one FLOE ciphertext; `rotation` differs from 20 in known answers only."""

    def __init__(self, key, parameters, iv, aad, rotation=ROTATION):
        self.parameters, self.iv, self.aad, self.rotation = parameters, iv, aad, rotation
        self.segment_length = struct.unpack(">I", parameters[2:6])[0]
        self.header_tag = self.kdf(key, b"HEADER_TAG:", 32)
        self.message_key = self.kdf(key, b"MESSAGE_KEY:", 48)

    def info(self, purpose):
        return self.parameters + self.iv + purpose + self.aad

    def kdf(self, key, purpose, length):
        return expand(key, self.info(purpose), length)

    def segment_key(self, index):
        return self.kdf(self.message_key, self.segment_purpose(index), 32)

    def segment_purpose(self, index):
        return b"DEK:" + u64(index >> self.rotation << self.rotation)

    def aead(self, index):
        return AEADS[self.parameters[0]](self.segment_key(index))

    def seal(self, index, final, plaintext, iv):
        sealed = self.aead(index).encrypt(iv, plaintext, u64(index) + bytes([final]))
        prefix = OVERHEAD + len(plaintext) if final else NOT_FINAL
        return u32(prefix) + iv + sealed

    def open(self, data):
        """Yields the plaintext of one verified segment after the other."""
        fields, index = Fields(data, "Truncated"), 0
        while True:
            prefix = struct.unpack(">I", fields.take(4))[0]
            final = prefix != NOT_FINAL
            length = prefix if final else self.segment_length
            if not OVERHEAD <= length <= self.segment_length or (not final and index > 2**40 - 2):
                raise Fault("AuthenticationFailed", f"segment {index}")
            iv, sealed = fields.take(12), fields.take(length - 16)
            try:
                yield self.aead(index).decrypt(iv, sealed, u64(index) + bytes([final]))
            except InvalidTag:
                raise Fault("AuthenticationFailed", f"segment {index}") from None
            if final:
                break
            index += 1
        if fields.rest():
            raise Fault("TrailingData", f"{len(fields.rest())} bytes")

    def cut(self, plaintext):
        """(index, final, plaintext) of each segment; an empty final one for an empty message only."""
        size = self.segment_length - OVERHEAD
        count = max(1, -(-len(plaintext) // size))
        for i in range(count):
            yield i, i == count - 1, plaintext[i * size : (i + 1) * size]


# --- providers ----------------------------------------------------------------------------------


class Raw:
    def __init__(self, name, key):
        if len(key) != 32:
            raise Fault("InvalidInput", "a raw wrapping key is exactly 32 bytes")
        self.name, self.key = name.encode(), key

    def owns(self, slot):
        return slot[0] == b"raw" and slot[1] == self.name

    def cipher(self, salt, context):
        key = expand(self.key, b"envelock/v1 raw\x00\x01" + salt, 32)
        return AESGCM(key), b"\x01" + salt + byte_string(self.name) + context

    def wrap(self, data_key, context, random):
        salt, iv = random("raw-salt", 32), random("raw-iv", 12)
        aead, aad = self.cipher(salt, context)
        return b"raw", self.name, b"\x01" + salt + iv + aead.encrypt(iv, data_key, aad)

    def unwrap(self, wrapped, context):
        if len(wrapped) != 93 or wrapped[0] != 1:
            return None
        aead, aad = self.cipher(wrapped[1:33], context)
        try:
            return aead.decrypt(wrapped[33:45], wrapped[45:], aad)
        except InvalidTag:
            return None


class Passphrase:
    def __init__(self, passphrase, argon2=WRITTEN_ARGON2):
        self.passphrase, self.argon2 = passphrase, argon2

    def owns(self, slot):
        return slot[0] == b"passphrase" and slot[1] == b""

    def stretch(self, head):
        """The Argon2id output for the first 26 bytes of a wrapped key."""
        memory, passes, lanes = struct.unpack(">IIB", head[1:10])
        kdf = Argon2id(salt=head[10:], length=48, iterations=passes, lanes=lanes, memory_cost=memory)
        return kdf.derive(self.passphrase)

    def keys(self, head, context):
        """Wrap key and commitment."""
        info = b"envelock/v1 passphrase\x00" + head + hashlib.sha384(context).digest()
        out = expand(self.stretch(head), info, 64)
        return out[:32], out[32:]

    def wrap(self, data_key, context, random):
        head = b"\x01" + struct.pack(">IIB", *self.argon2) + random("passphrase-salt", 16)
        key, commitment = self.keys(head, context)
        sealed = AESGCM(key).encrypt(bytes(12), data_key, b"")
        return b"passphrase", b"", head + commitment + sealed

    def unwrap(self, wrapped, context):
        if len(wrapped) != 106 or wrapped[0] != 1:
            return None
        given = struct.unpack(">IIB", wrapped[1:10])
        memory, passes, lanes = given
        if passes < 1 or lanes < 1 or memory < 8 * lanes:
            return None
        if any(value > cap for value, cap in zip(given, ARGON2_CAPS)):
            return None
        key, commitment = self.keys(wrapped[:26], context)
        if not hmac.compare_digest(commitment, wrapped[26:58]):
            return None
        try:
            return AESGCM(key).decrypt(bytes(12), wrapped[58:], b"")
        except InvalidTag:
            return None


class Planted:
    """Writer only: a slot with given bytes; an empty wrapped key records a missing recipient."""

    def __init__(self, provider, key_id, wrapped):
        self.slot = provider, key_id, wrapped

    def owns(self, _):
        return False

    def wrap(self, *_):
        return self.slot


def local_wrap(material, key_id, version, data_key, context, salt, iv):
    """The embedded KMS's ciphertext blob, for the worked example of a `local` slot."""
    head = b"\x01" + bytes([len(key_id)]) + key_id + u32(version) + salt
    key = expand(material, b"envelock/kms/v1 blob\x00" + head, 32)
    return head + iv + AESGCM(key).encrypt(iv, data_key, head + context)


# --- messages -----------------------------------------------------------------------------------


def os_random(_label, length):
    return os.urandom(length)


def encrypt(plaintext, providers, stored=None, unstored=None, segment_length=65536,
            aead="aes256gcm", slots_length=None, random=os_random):
    """A whole message. `random(label, length)` gives each random field."""
    stored, unstored = given_context(stored or {}, unstored or {})
    if not 64 <= segment_length <= Limits.segment_length:
        raise Fault("InvalidInput", "segment length")
    context = kms_context(stored, unstored)
    data_key = random("data-key", 32)
    core = make_core(stored, unstored)
    slots = [provider.wrap(data_key, context, random) for provider in providers]
    parameters = bytes([AEAD_IDS[aead], 0]) + u32(segment_length) + u32(32)
    aad = core + (encode_context(unstored) if unstored else b"")
    floe = Floe(data_key, parameters, random("floe-iv", 32), aad)
    out = [core, make_slots(slots, slots_length), parameters, floe.iv, floe.header_tag]
    for index, final, piece in floe.cut(plaintext):
        out.append(floe.seal(index, final, piece, random(f"segment-iv-{index}", 12)))
    return b"".join(out)


def open_message(message, providers, context, at_least=False, limits=Limits):
    """Header and keys (rule 1): the Floe that opens the segments, and where these begin."""
    header = Header(message, limits)
    make = lambda key, aad: Floe(key, header.parameters, header.iv, aad)
    return unlock(header, providers, context, at_least, limits, FOR_MESSAGES, make), header.segments


def unlock(header, providers, context, at_least, limits, use, make):
    """What `make` makes of the data key and core || unstored, once its tag is the header's."""
    expected = {k: v for k, v in context.items() if k in header.stored}
    unstored = {k: v for k, v in context.items() if k not in header.stored}
    if any(header.stored[k] != v for k, v in expected.items()):
        raise Fault("ContextMismatch", "a stored entry has another value")
    if len(expected) < len(header.stored) and not at_least:
        raise Fault("ContextMismatch", "the message has further stored entries")
    if bool(unstored) != bool(header.flags & UNSTORED):
        raise Fault("ContextMismatch", "unstored entries")
    kms = kms_context(header.stored, unstored, use)
    if len(kms) > MAX_KMS_CONTEXT:
        raise Fault("LimitExceeded", "KMS context")
    aad = header.core + (encode_context(unstored) if unstored else b"")
    tries = derivations = 0
    for slot in header.slots:
        if slot[2] and tries == limits.tries:
            raise Fault("LimitExceeded", "slots tried")
        for provider in providers:
            if not slot[2] or not provider.owns(slot):
                continue
            derives = isinstance(provider, Passphrase)
            if derives and derivations == limits.derivations:
                raise Fault("LimitExceeded", "passphrase derivations")
            tries, derivations = tries + 1, derivations + derives
            key = provider.unwrap(slot[2], kms)
            if key is None:
                continue
            made = make(key, aad)
            if hmac.compare_digest(made.header_tag, header.tag):
                return made
    raise Fault("AuthenticationFailed" if tries else "NoMatchingKey", "no slot gave the key")


def decrypt_pieces(message, providers, context, at_least=False):
    """Yields each verified segment's plaintext, then ends or raises Fault."""
    floe, start = open_message(message, providers, context, at_least)
    yield from floe.open(message[start:])


def decrypt(message, providers, context=None, unstored=None, at_least=False):
    stored, unstored = given_context(context or {}, unstored or {})
    return b"".join(decrypt_pieces(message, providers, {**stored, **unstored}, at_least))


def floe_decrypt(key, aad, ciphertext, rotation=ROTATION, min_segment_length=64):
    """A bare FLOE ciphertext, for known answers made by others."""
    limits = type("TestLimits", (Limits,), {"min_segment_length": min_segment_length})
    fields = Fields(ciphertext, "Truncated")
    header = FloeHeader(fields, limits)
    floe = Floe(key, header.parameters, header.iv, aad, rotation)
    if not hmac.compare_digest(floe.header_tag, header.tag):
        raise Fault("AuthenticationFailed", "header tag")
    return b"".join(floe.open(fields.rest()))


# --- compact records ----------------------------------------------------------------------------


def xaes_key(key, nonce):
    """The key of a nonce: SP 800-108r1's KDF in counter mode over CMAC."""
    kdf = KBKDFCMAC(algorithm=AES, mode=Mode.CounterMode, length=32, rlen=2, llen=None,
                    location=CounterLocation.BeforeFixed, label=None, context=None, fixed=b"X\x00" + nonce[:12])
    return kdf.derive(key)


def xaes(key, nonce):
    """XAES-256-GCM's AES-256-GCM, and the half of the nonce that is left for it."""
    return AESGCM(xaes_key(key, nonce)), nonce[12:]


def judge_record(record, aad):
    """What needs no key."""
    if len(record) < RECORD_OVERHEAD or record[0] != RECORD:
        raise Fault("Malformed", "no record")
    if len(record) > RECORD_OVERHEAD + MAX_VALUE or len(aad) > MAX_AAD:
        raise Fault("LimitExceeded", "value or associated data")


class RecordSet:
    """The keys of a record set."""

    def __init__(self, key, aad):
        self.tag_info = b"envelock/v1 record set\x00" + aad
        self.key_info = b"envelock/v1 records\x00" + aad
        self.header_tag = expand(key, self.tag_info, 32)
        self.record_key = expand(key, self.key_info, 32)

    def seal(self, value, aad, nonce):
        if len(value) > MAX_VALUE or len(aad) > MAX_AAD:
            raise Fault("LimitExceeded", "value or associated data")
        aead, iv = xaes(self.record_key, nonce)
        return bytes([RECORD]) + self.header_tag[:16] + nonce + aead.encrypt(iv, value, aad)

    def open(self, record, aad):
        judge_record(record, aad)
        if not hmac.compare_digest(record[1:17], self.header_tag[:16]):
            raise Fault("NoMatchingKey", "fingerprint")
        aead, iv = xaes(self.record_key, record[17:41])
        try:
            return aead.decrypt(iv, record[41:], aad)
        except InvalidTag:
            raise Fault("AuthenticationFailed", "record") from None


def make_record_set(providers, stored=None, unstored=None, random=os_random):
    """A header, and its keys."""
    stored, unstored = given_context(stored or {}, unstored or {})
    context = kms_context(stored, unstored, FOR_RECORDS)
    data_key = random("data-key", 32)
    core = make_core(stored, unstored, random("set-id", 16))
    slots = [provider.wrap(data_key, context, random) for provider in providers]
    keys = RecordSet(data_key, core + (encode_context(unstored) if unstored else b""))
    return core + make_slots(slots) + keys.header_tag, keys


def open_record_set(data, providers, context, at_least=False, limits=Limits):
    """The keys of the record set that `data` begins with, and what follows it."""
    header = Header(data, limits, record_set=True)
    keys = unlock(header, providers, context, at_least, limits, FOR_RECORDS, RecordSet)
    return keys, data[header.end :]


def seal_value(value, providers, stored=None, unstored=None, random=os_random):
    header, keys = make_record_set(providers, stored, unstored, random)
    return header + keys.seal(value, b"", random("nonce", 24))


def open_value(data, providers, context, at_least=False):
    header = Header(data, Limits, record_set=True)
    record = data[header.end :]
    if not record:
        raise Fault("Truncated", "a record set without a record")
    if record[0] == RECORD:
        judge_record(record, b"")
        if record[1:17] != header.tag[:16]:
            raise Fault("AuthenticationFailed", "a record of another set")
    keys, record = open_record_set(data, providers, context, at_least)
    if record[0] != RECORD:
        raise Fault("TrailingData", "after the record set")
    return keys.open(record, b"")


def to_text(data):
    return "elk1." + base64.urlsafe_b64encode(data).decode().rstrip("=")


def from_text(text):
    match = re.fullmatch(r"elk1\.([A-Za-z0-9_-]*)", text, re.ASCII)
    if not match or len(match[1]) % 4 == 1:
        raise Fault("Malformed", "text form")
    data = base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4))
    if to_text(data) != text:
        raise Fault("Malformed", "spare bits")
    return data


# --- command line -------------------------------------------------------------------------------


def provider_from_text(text, argon2):
    kind, _, rest = text.partition(":")
    if kind == "raw":
        name, _, key = rest.rpartition(":")
        return Raw(name, bytes.fromhex(key))
    if kind == "passphrase":
        return Passphrase(rest.encode(), argon2)
    raise Fault("InvalidInput", "a provider is raw:NAME:HEXKEY or passphrase:TEXT")


def provider_from_json(p):
    if p["kind"] == "raw":
        return Raw(p["name"], bytes.fromhex(p["key"]))
    if p["kind"] == "passphrase":
        return Passphrase(p["passphrase"].encode(), tuple(p.get("argon2", WRITTEN_ARGON2)))
    if p["kind"] == "slot":
        fields = (p["provider"].encode(), bytes.fromhex(p["key_id"]), bytes.fromhex(p["wrapped"]))
        return Planted(*fields)
    raise Fault("InvalidInput", "a provider's kind is raw, passphrase or slot")


def job(j):
    """One line of `batch`: a dictionary in, a dictionary out."""
    providers = [provider_from_json(p) for p in j["providers"]]
    context, unstored = j.get("context", {}), j.get("unstored", {})
    at_least = j.get("match", "exact") == "at_least"
    if j["op"] == "make_record_set":
        return {"ok": True, "header": make_record_set(providers, context, unstored)[0].hex()}
    if j["op"] == "seal_value":
        sealed = seal_value(bytes.fromhex(j["value"]), providers, context, unstored)
        return {"ok": True, "sealed": sealed.hex(), "text": to_text(sealed)}
    if j["op"] in ("open_value", "seal_records", "open_records"):
        stored, unstored = given_context(context, unstored)
        entries = {**stored, **unstored}
        if j["op"] == "open_value":
            sealed = from_text(j["text"]) if "text" in j else bytes.fromhex(j["sealed"])
            return {"ok": True, "value": open_value(sealed, providers, entries, at_least).hex()}
        keys, rest = open_record_set(bytes.fromhex(j["header"]), providers, entries, at_least)
        if rest:
            raise Fault("TrailingData", "after the record set")
        pairs = [(bytes.fromhex(data), bytes.fromhex(aad)) for data, aad in j["records"]]
        if j["op"] == "seal_records":
            return {"ok": True, "records": [keys.seal(value, aad, os.urandom(24)).hex() for value, aad in pairs]}
        return {"ok": True, "values": [keys.open(record, aad).hex() for record, aad in pairs]}
    if j["op"] == "encrypt":
        options = {k: j[k] for k in ("segment_length", "aead", "slots_length") if k in j}
        message = encrypt(bytes.fromhex(j["plaintext"]), providers, context, unstored, **options)
        return {"ok": True, "message": message.hex()}
    if j["op"] != "decrypt":
        raise Fault("InvalidInput", "op is none of those in README.md")
    stored, unstored = given_context(context, unstored)
    released = b""
    try:
        message = bytes.fromhex(j["message"])
        for piece in decrypt_pieces(message, providers, {**stored, **unstored}, at_least):
            released += piece
    except Fault as fault:
        return {"ok": False, "kind": fault.kind, "detail": fault.detail, "released": len(released)}
    return {"ok": True, "plaintext": released.hex()}


def batch():
    for line in sys.stdin:
        try:
            j = json.loads(line)
            answer = job(j)
        except Fault as fault:
            answer = {"ok": False, "kind": fault.kind, "detail": fault.detail, "released": 0}
        if "id" in j:
            answer["id"] = j["id"]
        print(json.dumps(answer), flush=True)


def main():
    parser = argparse.ArgumentParser(description="reads and writes native envelock messages")
    parser.add_argument("op", choices=("encrypt", "decrypt", "batch"))
    parser.add_argument("--provider", action="append", default=[])
    parser.add_argument("--context", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--unstored", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--at-least", action="store_true", help="allow further stored entries")
    parser.add_argument("--segment-length", type=int, default=65536)
    parser.add_argument("--aead", choices=AEAD_IDS, default="aes256gcm")
    parser.add_argument("--argon2", default="65536,3,4", metavar="KIB,PASSES,LANES")
    parser.add_argument("--pad-slots", action="store_true", help="pad as writers of files do")
    args = parser.parse_args()
    if args.op == "batch":
        return batch()
    try:
        argon2 = tuple(int(x) for x in args.argon2.split(","))
        providers = [provider_from_text(p, argon2) for p in args.provider]
        context, unstored = (dict(e.split("=", 1) for e in x) for x in (args.context, args.unstored))
        data = sys.stdin.buffer.read()
        if args.op == "encrypt":
            length = "file" if args.pad_slots else None
            out = encrypt(data, providers, context, unstored, args.segment_length, args.aead, length)
        else:
            out = decrypt(data, providers, context, unstored, args.at_least)
    except Fault as fault:
        print(fault.kind, file=sys.stderr)
        return 3
    sys.stdout.buffer.write(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
