"""The AWS Encryption SDK for Python, driven line by line: it times itself, by its own processor time.

A request on standard input is a JSON object: {"do": "load", "path": FILE, "frame_len": N}, then
{"do": "encrypt"|"decrypt", "repeat": N}. Each is answered by one line: {"ok": ...} or {"seconds": of one run}.
Raw AES master key (no KMS), and the suite that commits to its key and does not sign.
"""

import json
import sys
import time

import aws_encryption_sdk
from aws_encryption_sdk.identifiers import Algorithm, CommitmentPolicy, EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider

CONTEXT = {"tenant": "acme"}


class Provider(RawMasterKeyProvider):
    provider_id = "bench"

    def _get_raw_key(self, key_id):
        return WrappingKey(
            wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
            wrapping_key=bytes([7] * 32),
            wrapping_key_type=EncryptionKeyType.SYMMETRIC,
        )


class Rival:
    def __init__(self):
        self.client = aws_encryption_sdk.EncryptionSDKClient(
            commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
        )
        self.provider = Provider()
        self.provider.add_master_key("bench")
        self.plain = b""
        self.frame_len = 4096

    def encrypt(self):
        sealed, _ = self.client.encrypt(
            source=self.plain,
            key_provider=self.provider,
            encryption_context=CONTEXT,
            algorithm=Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
            frame_length=self.frame_len,
        )
        return sealed

    def decrypt(self, sealed):
        plain, header = self.client.decrypt(source=sealed, key_provider=self.provider)
        assert header.encryption_context == CONTEXT
        return plain

    def answer(self, request):
        do = request["do"]
        if do == "load":
            with open(request["path"], "rb") as file:
                self.plain = file.read()
            self.frame_len = request["frame_len"]
            self.sealed = self.encrypt()
            assert self.decrypt(self.sealed) == self.plain
            return {"ok": aws_encryption_sdk.__version__, "python": sys.version.split()[0]}
        work = self.encrypt if do == "encrypt" else lambda: self.decrypt(self.sealed)
        repeat = request["repeat"]
        start = time.process_time()
        for _ in range(repeat):
            work()
        return {"seconds": (time.process_time() - start) / repeat}


def main():
    rival = Rival()
    for line in sys.stdin:
        print(json.dumps(rival.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
