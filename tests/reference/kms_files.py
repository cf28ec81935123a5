"""An independent reader and writer of the files of the embedded KMS, made from docs/kms-files.md alone.

RSA-OAEP is written out here (RFC 8017, section 7.1), so that what is random in it can be given.
"""

import base64
import hashlib
import hmac
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
KINDS = {"import-parameters": 1, "replication-key": 2, "replica-bundle": 3, "rotation": 4, "deletion-receipt": 5,
         "primary-change": 6}
ORIGINS = {"local": 0, "external": 1}


class Fault(Exception):
    pass


def sha256(data):
    return hashlib.sha256(data).digest()


def expand(key, info, length):
    return HKDFExpand(hashes.SHA384(), length, info).derive(key)


def byte_string(data):
    return struct.pack(">H", len(data)) + data


def mgf1(seed, length):
    blocks = (sha256(seed + struct.pack(">I", i)) for i in range(-(-length // 32)))
    return b"".join(blocks)[:length]


def oaep_encrypt(public_key, plaintext, seed):
    numbers = public_key.public_numbers()
    size = public_key.key_size // 8
    block = sha256(b"") + bytes(size - len(plaintext) - 66) + b"\x01" + plaintext
    masked = bytes(a ^ b for a, b in zip(block, mgf1(seed, len(block))))
    masked_seed = bytes(a ^ b for a, b in zip(seed, mgf1(masked, 32)))
    number = int.from_bytes(b"\0" + masked_seed + masked, "big")
    return pow(number, numbers.e, numbers.n).to_bytes(size, "big")


def spki(public_key):
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def begin(kind):
    return b"EKMS" + bytes([1, KINDS[kind]])


def realm(side):
    return bytes.fromhex(side["keystore"]) + byte_string(side["region"].encode())


def address(vector):
    return (realm(vector["issuer"]) + realm(vector["target"]) + byte_string(vector["key_id"].encode())
            + struct.pack(">QQ", vector["serial"], vector["issued_at"]))


def content(vector):
    made = bytes([ORIGINS[vector["origin"]]]) + struct.pack(">H", vector["rotation_days"])
    made += byte_string(vector["description"].encode()) + struct.pack(">H", len(vector["versions"]))
    for version in vector["versions"]:
        made += struct.pack(">IQ", version["version"], version["created_at"]) + bytes.fromhex(version["material"])
    return made


def seal(file, vector, public_key):
    """Appends the sealed content; `fresh` holds what is random."""
    fresh = vector["fresh"]
    key, iv = bytes.fromhex(fresh["key"]), bytes.fromhex(fresh["iv"])
    plain = content(vector)
    aad = file + struct.pack(">I", len(plain) + 16) + oaep_encrypt(public_key, key, bytes.fromhex(fresh["seed"]))
    return aad + iv + AESGCM(expand(key, b"envelock/kms/v1 sealed\0" + aad, 32)).encrypt(iv, plain, aad)


def letter_key(first, key_id):
    return expand(first, b"envelock/kms/v1 replica\0" + byte_string(key_id.encode()), 32)


def authenticate(file, vector):
    key = letter_key(bytes.fromhex(vector["first"]), vector["key_id"])
    return file + hmac.digest(key, file, "sha256")


def token(vector, public_key):
    made = b"\x01" + bytes.fromhex(vector["keystore"]) + bytes.fromhex(vector["random"])
    made += struct.pack(">Q", vector["now"] + 86_400_000) + sha256(spki(public_key))
    made += byte_string(vector["key_id"].encode())
    return made + hmac.digest(bytes.fromhex(vector["token_key"]), b"envelock/kms/v1 import token\0" + made, "sha256")


def write(vector, public_key):
    kind = vector["kind"]
    if kind == "material-text":
        return material_text(vector)
    file = begin(kind)
    if kind == "import-parameters":
        return file + spki(public_key) + token(vector, public_key)
    if kind == "replication-key":
        file += realm(vector["issuer"]) + spki(public_key)
        return file + sha256(file)
    file += address(vector)
    if kind == "replica-bundle":
        return seal(file, vector, public_key)
    if kind == "rotation":
        return authenticate(seal(file, vector, public_key), vector)
    if kind == "primary-change":
        file += realm(vector["primary"])
    return authenticate(file, vector)


def text_keys(passphrase, head):
    memory, passes, lanes = struct.unpack(">IIB", head[:9])
    stretched = Argon2id(salt=head[9:], length=48, iterations=passes, lanes=lanes, memory_cost=memory).derive(passphrase)
    keys = expand(stretched, b"envelock/kms/v1 material\0" + head, 64)
    return keys[:32], keys[32:]


def material_text(vector):
    memory, passes, lanes = vector["argon2"]
    head = struct.pack(">IIB", memory, passes, lanes) + bytes.fromhex(vector["salt"])
    key, commitment = text_keys(vector["passphrase"].encode(), head)
    iv = bytes.fromhex(vector["iv"])
    sealed = AESGCM(key).encrypt(iv, bytes.fromhex(vector["material"]), head + commitment)
    encoded = base64.urlsafe_b64encode(head + commitment + iv + sealed).rstrip(b"=")
    return b"envelock-material1." + encoded


class Fields:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        if self.at + length > len(self.data):
            raise Fault("Truncated")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, form):
        return struct.unpack(">" + form, self.take(struct.calcsize(">" + form)))[0]

    def text(self):
        return self.take(self.number("H")).decode()

    def realm(self):
        return {"keystore": self.take(16).hex(), "region": self.text()}

    def end(self):
        if self.at != len(self.data):
            raise Fault("TrailingData")


def read_sealed(fields, private_key):
    length = fields.number("I")
    wrapped = fields.take(512)
    aad = fields.data[: fields.at]
    iv, sealed = fields.take(12), fields.take(length)
    try:
        key = private_key.decrypt(wrapped, OAEP)
        plain = AESGCM(expand(key, b"envelock/kms/v1 sealed\0" + aad, 32)).decrypt(iv, sealed, aad)
    except (ValueError, InvalidTag) as error:
        raise Fault("AuthenticationFailed") from error
    inner = Fields(plain)
    found = {"origin": {code: name for name, code in ORIGINS.items()}[inner.number("B")],
             "rotation_days": inner.number("H"), "description": inner.text(), "versions": []}
    for _ in range(inner.number("H")):
        found["versions"].append({"version": inner.number("I"), "created_at": inner.number("Q"),
                                  "material": inner.take(32).hex()})
    inner.end()
    return found


def read(file, private_key, first=None, token_key=None):
    """What a file says, authenticated by what is given."""
    fields = Fields(file)
    if fields.take(5) != b"EKMS\x01":
        raise Fault("Malformed")
    kind = {code: name for name, code in KINDS.items()}[fields.number("B")]
    found = {"kind": kind}
    if kind == "import-parameters":
        public = fields.take(550)
        begun = fields.at
        if fields.number("B") != 1:
            raise Fault("Unsupported")
        found |= {"keystore": fields.take(16).hex(), "random": fields.take(16).hex(), "now": fields.number("Q") - 86_400_000}
        if fields.take(32) != sha256(public) or public != spki(private_key.public_key()):
            raise Fault("Malformed")
        found["key_id"] = fields.text()
        check(fields, token_key, b"envelock/kms/v1 import token\0" + file[begun : fields.at])
    elif kind == "replication-key":
        found["issuer"] = fields.realm()
        if fields.take(550) != spki(private_key.public_key()) or sha256(file[: fields.at]) != fields.take(32):
            raise Fault("Malformed")
    else:
        found |= {"issuer": fields.realm(), "target": fields.realm(), "key_id": fields.text(),
                  "serial": fields.number("Q"), "issued_at": fields.number("Q")}
        if kind in ("replica-bundle", "rotation"):
            found |= read_sealed(fields, private_key)
        if kind == "primary-change":
            found["primary"] = fields.realm()
        if kind != "replica-bundle":
            check(fields, letter_key(first, found["key_id"]), file[: fields.at])
    fields.end()
    return found


def check(fields, key, signed):
    if not hmac.compare_digest(hmac.digest(key, signed, "sha256"), fields.take(32)):
        raise Fault("AuthenticationFailed")


def read_material_text(text, passphrase):
    prefix = b"envelock-material1."
    if not text.startswith(prefix):
        raise Fault("Malformed")
    data = base64.b64decode(text[len(prefix) :] + b"==", altchars=b"-_", validate=True)
    head, commitment, iv, sealed = data[:41], data[41:73], data[73:85], data[85:]
    key, expected = text_keys(passphrase, head)
    if not hmac.compare_digest(expected, commitment):
        raise Fault("AuthenticationFailed")
    return AESGCM(key).decrypt(iv, sealed, head + commitment)
