#!/usr/bin/env python3
"""Makes tests/vectors/kms/files.json; with --check, compares it instead (exit code 1 where it differs).

One file of each kind, with everything that is random in it. Each is read back, and refused with any one bit of it
flipped. The RSA key is the one that OpenSSL made for the tests of src/crypto.
"""

import hashlib
import json
import pathlib
import sys

from cryptography.hazmat.primitives import serialization

import kms_files
from kms_files import Fault

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATH = ROOT / "tests" / "vectors" / "kms" / "files.json"
KEY = ROOT / "src" / "crypto" / "tests" / "openssl-rsa-4096.pkcs8.der"
SEED = "envelock kms files, version 1"
KEY_ID = "mrk-0123456789abcdef0123456789abcdef"


def drawn(name, length):
    return hashlib.shake_256(f"{SEED}: {name}".encode()).digest(length).hex()


def version(number):
    return {"version": number, "created_at": 1_600_000_000_000 + number, "material": drawn(f"material {number}", 32)}


def vectors():
    here = {"keystore": drawn("here", 16), "region": "us-east-1"}
    there = {"keystore": drawn("there", 16), "region": "eu-west-1"}
    between = {"issuer": here, "target": there, "key_id": KEY_ID}
    first = drawn("material 1", 32)

    def fresh(name):
        return {"key": drawn(f"{name} key", 32), "seed": drawn(f"{name} seed", 32), "iv": drawn(f"{name} iv", 12)}

    yield {"kind": "import-parameters", "keystore": here["keystore"], "key_id": "01234567-89ab-4cde-8f01-23456789abcd",
           "random": drawn("token", 16), "now": 1_700_000_000_000, "token_key": drawn("token key", 32)}
    yield {"kind": "replication-key", "issuer": there}
    yield {"kind": "replica-bundle", **between, "serial": 1, "issued_at": 1_700_000_000_001, "fresh": fresh("bundle"),
           "origin": "local", "rotation_days": 365, "description": "invoices \U0001f511",
           "versions": [version(1), version(2), version(5)]}
    yield {"kind": "rotation", **between, "serial": 2, "issued_at": 1_700_000_000_002, "fresh": fresh("rotation"),
           "origin": "external", "rotation_days": 0, "description": "", "versions": [version(6)], "first": first}
    yield {"kind": "deletion-receipt", **between, "serial": 3, "issued_at": 1_700_000_000_003, "first": first}
    yield {"kind": "primary-change", **between, "serial": 4, "issued_at": 1_700_000_000_004, "first": first,
           "primary": {"keystore": drawn("third", 16), "region": "ap-south-1"}}
    yield {"kind": "material-text", "passphrase": "correct horse battery staple", "argon2": [19_456, 2, 1],
           "salt": drawn("salt", 32), "iv": drawn("text iv", 12), "material": drawn("text material", 32)}


def read(vector, file, key):
    if vector["kind"] == "material-text":
        return {"material": kms_files.read_material_text(file, vector["passphrase"].encode()).hex()}
    secrets = {name: bytes.fromhex(vector[name]) for name in ("first", "token_key") if name in vector}
    return kms_files.read(file, key, **secrets)


def check(vector, file, key):
    for name, value in read(vector, file, key).items():
        assert vector[name] == value, (vector["kind"], name)
    # The bundle's hash and the replication key's fingerprint are what covers every bit of these.
    if vector["kind"] in ("material-text", "import-parameters", "replication-key"):
        return
    for at in range(len(file)):
        bad = bytearray(file)
        bad[at] ^= 1 << at % 8
        try:
            read(vector, bytes(bad), key)
        except (Fault, KeyError, UnicodeDecodeError):
            continue
        raise AssertionError(f"{vector['kind']}: byte {at} may be changed")


def main():
    key = serialization.load_der_private_key(KEY.read_bytes(), None)
    made = list(vectors())
    for vector in made:
        file = kms_files.write(vector, key.public_key())
        check(vector, file, key)
        vector["file"] = file.decode() if vector["kind"] == "material-text" else file.hex()
    text = json.dumps({"description": "files of the embedded KMS (docs/kms-files.md), made by "
                       "tests/reference/make_kms_vectors.py", "seed": SEED, "vectors": made}, indent=1) + "\n"
    print(f"{len(made)} files of the KMS, {len(text)} bytes")
    if "--check" not in sys.argv[1:]:
        PATH.parent.mkdir(exist_ok=True)
        PATH.write_text(text, encoding="ascii")
    elif not PATH.exists() or PATH.read_text(encoding="ascii") != text:
        print(f"DIFFERENT: {PATH.name}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
