"""Runs a command with a KMS of each kind on this machine, and the environment that a program finds them by.

    python around.py COMMAND [ARGUMENT…]

moto has the key `alias/app`, OpenBao the Transit key `orders`; both end with the command, whose exit status is this one's.
"""

import json
import os
import pathlib
import subprocess
import sys
import urllib.request

HERE = pathlib.Path(__file__).parent


def start(name):
    """A peer, as supervise.py tells of it, and the pipe that ends it."""
    command = [sys.executable, str(HERE / "supervise.py"), name]
    supervisor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    told = json.loads(supervisor.stdout.readline())
    if "failed" in told:
        sys.exit(told["failed"])
    return supervisor, told


def kms(url, operation, parameters):
    """An operation of moto, which looks at no signature."""
    headers = {
        "X-Amz-Target": f"TrentService.{operation}",
        "Content-Type": "application/x-amz-json-1.1",
        "Authorization": "AWS4-HMAC-SHA256 Credential=testing/20260101/eu-central-1/kms/aws4_request, "
        "SignedHeaders=host, Signature=0",
    }
    return ask(url + "/", headers, parameters)


def ask(url, headers, parameters):
    request = urllib.request.Request(url, data=json.dumps(parameters).encode(), headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        body = answer.read()
        return json.loads(body) if body else {}


def main():
    started = []
    try:
        moto, openbao = (started.append(start(name)) or started[-1][1] for name in ("moto", "openbao"))
        key = kms(moto["url"], "CreateKey", {})["KeyMetadata"]["KeyId"]
        kms(moto["url"], "CreateAlias", {"AliasName": "alias/app", "TargetKeyId": key})
        root = {"X-Vault-Token": openbao["token"]}
        ask(openbao["url"] + "/v1/sys/mounts/transit", root, {"type": "transit"})
        ask(openbao["url"] + "/v1/transit/keys/orders", root, {"type": "aes256-gcm96"})
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "VAULT_", "BAO_"))}
        environment |= {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "eu-central-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": moto["url"],
            "ENVELOCK_AWS_KMS_KEY": "alias/app",
            "VAULT_ADDR": openbao["tls_url"],
            "VAULT_CACERT": openbao["ca"],
            "VAULT_TOKEN": openbao["token"],
        }
        return subprocess.run(sys.argv[1:], env=environment, check=False).returncode
    finally:
        for supervisor, _ in started:
            supervisor.stdin.close()
            supervisor.wait()


if __name__ == "__main__":
    sys.exit(main())
