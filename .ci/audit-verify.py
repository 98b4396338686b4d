"""Runs examples/audit-verify/verify.py against the log of a server of its own, as it is and
after it was tampered with, beside `coatcheck audit verify`.

Needs bin/coatcheck and Debian's cryptography.
"""

import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
COATCHECK = str(ROOT / "bin/coatcheck")
LIMIT = 60  # seconds
TRIES = 40


def free_address():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"


def serve(instance, address, log, work):
    """Serves until work is done, and waits for the end."""
    server = subprocess.Popen([COATCHECK, "dev", "--dir", str(instance), "--listen", address], stdout=log, stderr=log)
    try:
        work()
        server.send_signal(signal.SIGTERM)
        if server.wait(LIMIT) != 0:
            sys.exit(f"on SIGTERM the server ended with status {server.returncode}")
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


def get_checkpoint(instance, address):
    """Returns the latest checkpoint, as soon as there is one."""
    certs = instance / "certs"
    deadline = time.monotonic() + LIMIT
    while True:
        done = subprocess.run(
            [COATCHECK, "audit", "checkpoint", f"--address={address}", f"--ca={certs / 'ca.crt'}",
             f"--cert={certs / 'admin.crt'}", f"--key={certs / 'admin.key'}"],
            capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        if time.monotonic() > deadline:
            sys.exit(f"no checkpoint after {LIMIT} s: {done.stderr}")
        time.sleep(0.2)


def verified(directory, key, kept):
    """Says whether each of the two verifiers believes a log."""
    commands = [
        ["/usr/bin/python3", str(ROOT / "examples/audit-verify/verify.py"), str(directory), str(key), str(kept)],
        [COATCHECK, "audit", "verify", str(directory), f"--public-key={key}", f"--checkpoint={kept}"],
    ]
    done = [subprocess.run(c, capture_output=True, text=True, check=False, timeout=LIMIT) for c in commands]
    if any(d.returncode not in (0, 1) for d in done) or "Traceback" in done[0].stderr:
        sys.exit("".join(d.stderr for d in done))
    return [d.returncode == 0 for d in done], "".join(d.stdout + d.stderr for d in done)


def tamper(directory, rng):
    """Changes something in one of the files that a verifier reads, and says what."""
    path = rng.choice(sorted(directory.glob("audit-*.jsonl")) + [directory / "checkpoints"])
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    kind = rng.choice(["flip", "drop", "swap", "twice", "cut"])
    at = rng.randrange(len(lines))
    if kind == "flip":
        i = rng.randrange(len(content))
        changed = content[:i] + bytes([content[i] ^ 1 << rng.randrange(8)]) + content[i + 1 :]
    elif kind == "drop":
        changed = b"".join(lines[:at] + lines[at + 1 :])
    elif kind == "swap":
        other = rng.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
        changed = b"".join(lines)
    elif kind == "twice":
        changed = b"".join(lines[: at + 1] + lines[at:])
    else:
        changed = content[: rng.randrange(len(content))]
    path.write_bytes(changed)
    return f"{kind} in {path.name}", changed != content


def main():
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="coatcheck-") as scratch:
        scratch = pathlib.Path(scratch)
        instance, log_path, address = scratch / "instance", scratch / "server.log", free_address()
        kept = scratch / "kept"
        with log_path.open("wb") as log:
            for _ in range(3):  # a few checkpoints
                serve(instance, address, log, lambda: kept.write_text(get_checkpoint(instance, address), "utf-8"))
        directory, key = instance / "audit", scratch / "audit.pub"
        shutil.copy(directory / "audit.pub", key)
        believed, said = verified(directory, key, kept)
        print(said, end="")
        if believed != [True, True]:
            sys.exit(f"a log that nobody has touched is not believed\n{log_path.read_text(errors='replace')}")
        for _ in range(TRIES):
            other = scratch / "tampered"
            shutil.copytree(directory, other)
            what, changed = tamper(other, rng)
            believed, said = verified(other, key, kept)
            if changed and any(believed):
                sys.exit(f"seed {seed}: {what}: believed by {believed}\n{said}")
            shutil.rmtree(other)
    print("audit verifiers: ok")


if __name__ == "__main__":
    main()
