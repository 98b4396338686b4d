"""Runs examples/python/client.py against a server of its own, as a user would.

Needs bin/coatcheck and bin/coatcheck.binpb, and Debian's grpcio and protobuf.
"""

import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

import grpc

ROOT = pathlib.Path(__file__).resolve().parent.parent
CARD = "4111 1111 1111 1111"
START_LIMIT = 60  # seconds
STOP_LIMIT = 60

EXPECTED = re.compile(
    r"checkout: \*{12}1111 is now cc_card_[0-9A-Za-z]+\n"
    r"payments: got the number back\n"
    r"support: sees \*{12}1111\n"
    r"support: refused the number, PERMISSION_DENIED REVEAL_NOT_ALLOWED\n"
)


def free_address():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"


def serving(address, certs):
    """Asks grpc.health.v1 once. The messages are small enough to be written by hand."""
    credentials = grpc.ssl_channel_credentials(
        (certs / "ca.crt").read_bytes(),
        (certs / "checkout.key").read_bytes(),
        (certs / "checkout.crt").read_bytes(),
    )
    with grpc.secure_channel(address, credentials) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        return check(b"", timeout=5) == b"\x08\x01"  # status: SERVING


def wait_until_serving(server, address, certs):
    deadline = time.monotonic() + START_LIMIT
    while True:
        if server.poll() is not None:
            sys.exit(f"the server ended with status {server.returncode}")
        try:
            if serving(address, certs):
                return
            last = "not serving"
        except OSError as error:  # certificates not made yet
            last = error
        except grpc.RpcError as error:
            last = f"{error.code().name}: {error.details()}"
        if time.monotonic() > deadline:
            sys.exit(f"the server is not ready after {START_LIMIT} s: {last}")
        time.sleep(0.1)


def run_client(address, certs):
    client = subprocess.run(
        [
            sys.executable,
            str(ROOT / "examples/python/client.py"),
            f"--address={address}",
            f"--certs={certs}",
            f"--descriptors={ROOT / 'bin/coatcheck.binpb'}",
        ],
        input=CARD + "\n",
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    print(client.stdout, end="")
    if client.returncode != 0:
        sys.exit(f"client.py ended with status {client.returncode}")
    if not EXPECTED.fullmatch(client.stdout):
        sys.exit("client.py did not print what its README says")


def main():
    with tempfile.TemporaryDirectory(prefix="coatcheck-") as directory:
        instance = pathlib.Path(directory) / "instance"
        certs = instance / "certs"
        log_path = pathlib.Path(directory) / "server.log"
        address = free_address()
        with log_path.open("wb") as log:
            server = subprocess.Popen(
                [str(ROOT / "bin/coatcheck"), "dev", "--dir", str(instance), "--listen", address],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until_serving(server, address, certs)
            run_client(address, certs)
            server.send_signal(signal.SIGTERM)
            if server.wait(STOP_LIMIT) != 0:
                sys.exit(f"on SIGTERM the server ended with status {server.returncode}")
        except BaseException:
            server.kill()
            server.wait()
            print(log_path.read_text(errors="replace"), file=sys.stderr)
            raise
    print("python client: ok")


if __name__ == "__main__":
    main()
