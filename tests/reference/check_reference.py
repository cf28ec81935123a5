#!/usr/bin/env python3
"""Checks the reference itself: `check_reference.py [--floe FOLDER]`.

FOLDER holds FLOE known answers made by other implementations (`*_ct.txt`, `*_pt.txt`); without it,
`../shared/vectors/floe` beside the repository is tried, and its absence is said aloud.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import unittest

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

import envelock_reference as reference
from envelock_reference import Fault, Passphrase, Planted, Raw, decrypt, encrypt, expand, floe_decrypt

HERE = pathlib.Path(__file__).resolve().parent
FLOE = HERE.parents[2] / "shared" / "vectors" / "floe"
KEY = bytes(range(32))
PROVIDERS = {"raw": Raw("k", KEY), "passphrase": Passphrase(b"secret", (64, 1, 1))}


def run(*arguments, data=b""):
    command = [sys.executable, str(HERE / "envelock_reference.py"), *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=False)


class Reference(unittest.TestCase):
    def fails(self, kind, call, *arguments, **options):
        with self.assertRaises(Fault) as caught:
            call(*arguments, **options)
        self.assertEqual(caught.exception.kind, kind)

    def test_hkdf_expand_agrees_with_the_library(self):
        for size in (0, 32, 48, 128, 200):
            for length in (1, 32, 48, 49, 64, 100):
                library = HKDFExpand(hashes.SHA384(), length, b"info").derive(bytes(size))
                self.assertEqual(expand(bytes(size), b"info", length), library)

    def test_floe_known_answers_of_other_implementations_decrypt(self):
        if not FLOE.is_dir():
            self.skipTest(f"NOT CHECKED: no FLOE known answers at {FLOE}")
        names = sorted(FLOE.glob("*_ct.txt"))
        self.assertGreater(len(names), 0)
        for path in names:
            ciphertext = bytes.fromhex(path.read_text().strip())
            plaintext = bytes.fromhex(pathlib.Path(str(path).replace("_ct", "_pt")).read_text().strip())
            rotation = 2 if "rotation" in path.name else reference.ROTATION
            options = {"rotation": rotation, "min_segment_length": 33}
            with self.subTest(path.name):
                self.assertEqual(floe_decrypt(bytes(32), b"This is AAD", ciphertext, **options), plaintext)
                for key, aad in ((KEY, b"This is AAD"), (bytes(32), b"That is AAD")):
                    self.fails("AuthenticationFailed", floe_decrypt, key, aad, ciphertext, **options)
                self.fails("TrailingData", floe_decrypt, bytes(32), b"This is AAD", ciphertext + b"\0", **options)
        print(f"{len(names)} FLOE known answers decrypt")

    def test_what_is_encrypted_decrypts_at_every_length_around_segment_edges(self):
        count = 0
        for aead in reference.AEAD_IDS:
            for provider in PROVIDERS.values():
                for length in range(0, 131):
                    data = bytes(length)
                    message = encrypt(data, [provider], {"a": "b"}, {"c": "d"}, 64, aead)
                    self.assertEqual(decrypt(message, [provider], {"a": "b"}, {"c": "d"}), data)
                    count += 1
        print(f"{count} messages made and opened")

    def test_every_bit_flip_of_core_and_body_is_rejected_and_of_slots_is_rejected_or_harmless(self):
        data, provider = bytes(70), PROVIDERS["raw"]
        foreign = Planted(b"com.example.hsm", b"key", b"wrapped")
        message = encrypt(data, [foreign, provider], {"a": "b"}, {}, 64, slots_length=200)
        slots = range(7 + 8, 7 + 8 + 2 + 200)
        rejected = harmless = 0
        for bit in range(8 * len(message)):
            bad = bytearray(message)
            bad[bit // 8] ^= 1 << bit % 8
            try:
                self.assertEqual(decrypt(bytes(bad), [provider], {"a": "b"}), data)
                self.assertIn(bit // 8, slots)
                harmless += 1
            except Fault:
                rejected += 1
        self.assertGreater(harmless, 0)
        print(f"{rejected} bit flips rejected, {harmless} in slots harmless")

    def test_every_truncation_is_truncated(self):
        message = encrypt(bytes(70), [PROVIDERS["raw"]], {"a": "b"}, {}, 64)
        for length in range(len(message)):
            self.fails("Truncated", decrypt, message[:length], [PROVIDERS["raw"]], {"a": "b"})

    def test_what_a_caller_may_not_give_is_invalid_input(self):
        bad = [({"": "x"}, {}), ({"envelock-x": "y"}, {}), ({}, {"envelock-use": "y"}),
               ({"a": "b"}, {"a": "b"}), ({"k": "v" * 8161}, {}), ({"k": "v" * 8000}, {"l": "v" * 200})]
        for stored, unstored in bad:
            self.fails("InvalidInput", encrypt, b"", [PROVIDERS["raw"]], stored, unstored)
            self.fails("InvalidInput", decrypt, b"", [PROVIDERS["raw"]], stored, unstored)
        for length in (63, (16 << 20) + 1):
            self.fails("InvalidInput", encrypt, b"", [PROVIDERS["raw"]], segment_length=length)
        self.fails("InvalidInput", Raw, "k", bytes(31))

    def test_xaes_gives_the_published_answers(self):
        for byte, aad, sealed in ((1, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
                                  (3, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d")):
            aead, iv = reference.xaes(bytes([byte]) * 32, b"ABCDEFGHIJKLMNOPQRSTUVWX")
            self.assertEqual(aead.encrypt(iv, b"XAES-256-GCM", aad).hex(), sealed)

    def test_records_and_values_come_back_and_every_flip_and_cut_is_refused(self):
        provider = PROVIDERS["raw"]
        header, keys = reference.make_record_set([provider], {"a": "b"}, {"c": "d"})
        entries = {b"a": b"b", b"c": b"d"}
        opened, rest = reference.open_record_set(header, [provider], entries)
        self.assertEqual(rest, b"")
        for length in range(100):
            record = keys.seal(bytes(length), b"place", bytes([length]) * 24)
            self.assertEqual(opened.open(record, b"place"), bytes(length))
            self.fails("AuthenticationFailed", opened.open, record, b"elsewhere")
        value = reference.seal_value(b"secret", [provider], {"a": "b"})
        self.assertEqual(reference.open_value(value, [provider], {b"a": b"b"}), b"secret")
        self.assertEqual(reference.from_text(reference.to_text(value)), value)
        for bit in range(8 * len(value)):
            bad = bytearray(value)
            bad[bit // 8] ^= 1 << bit % 8
            with self.assertRaises(Fault):
                reference.open_value(bytes(bad), [provider], {b"a": b"b"})
        for length in range(len(value)):
            with self.assertRaises(Fault):
                reference.open_value(value[:length], [provider], {b"a": b"b"})
        # The record is judged before any key is looked for.
        end = len(value) - 6 - reference.RECORD_OVERHEAD
        other = reference.seal_value(b"secret", [provider], {"a": "b"})[end:]
        for kind, rest in (("Truncated", b""), ("Malformed", b"\xe1" * 56), ("AuthenticationFailed", other),
                           ("LimitExceeded", value[end:] + bytes(16 << 20)), ("NoMatchingKey", b"\x00")):
            self.fails(kind, reference.open_value, value[:end] + rest, [], {b"a": b"b"})
        for text in ("", "elk1", "elk1.A", "elk1.AB", "elk1.AA=", "elk1.AA\n", " elk1.AA", "elk1.A+", "elk1.\u00c4A"):
            self.fails("Malformed", reference.from_text, text)

    def test_the_command_line_encrypts_and_decrypts(self):
        options = ["--context", "a=b=c", "--unstored", "c=d"]
        for provider in (["--provider", f"raw:a:b:{KEY.hex()}"], ["--provider", "passphrase:x:y", "--argon2", "64,1,1"]):
            for aead in reference.AEAD_IDS:
                sealed = run("encrypt", *provider, *options, "--aead", aead, "--segment-length", "64", "--pad-slots", data=b"x" * 99)
                self.assertEqual((sealed.returncode, sealed.stderr), (0, b""))
                opened = run("decrypt", *provider, *options, data=sealed.stdout)
                self.assertEqual((opened.returncode, opened.stdout), (0, b"x" * 99))
                failed = run("decrypt", *provider, data=sealed.stdout)
                self.assertEqual((failed.returncode, failed.stdout, failed.stderr), (3, b"", b"ContextMismatch\n"))

    def test_batch_answers_every_line(self):
        raw = {"kind": "raw", "name": "k", "key": KEY.hex()}
        empty = {"kind": "slot", "provider": "com.example.hsm", "key_id": "", "wrapped": ""}
        jobs = [{"op": "encrypt", "id": i, "providers": [empty, raw], "context": {"a": "b"}, "plaintext": "00" * i,
                 "segment_length": 64, "aead": "chacha20poly1305", "slots_length": 300} for i in range(40)]
        sealed = self.batch(jobs)
        answers = self.batch([{"op": "decrypt", "id": a["id"], "providers": [raw], "context": {"a": "b"},
                               "message": a["message"]} for a in sealed])
        self.assertEqual(answers, [{"ok": True, "plaintext": "00" * i, "id": i} for i in range(40)])
        cut = {"op": "decrypt", "providers": [raw], "context": {"a": "b"}, "message": sealed[39]["message"][:-2]}
        answer, = self.batch([cut])
        self.assertEqual((answer["ok"], answer["kind"], answer["released"]), (False, "Truncated", 32))

    def batch(self, jobs):
        done = run("batch", data="".join(json.dumps(j) + "\n" for j in jobs).encode())
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_examples_and_vectors_are_what_the_scripts_make(self):
        for script in ("make_examples.py", "make_vectors.py", "make_kms_vectors.py"):
            done = subprocess.run([sys.executable, str(HERE / script), "--check"], capture_output=True, text=True, check=False)
            print(done.stdout, end="")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--floe", type=pathlib.Path)
    arguments, rest = parser.parse_known_args()
    FLOE = arguments.floe or FLOE
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
