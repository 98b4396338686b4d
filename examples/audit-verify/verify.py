"""Verifies Coatcheck's audit log, without Coatcheck: written from docs/audit.md alone.

    verify.py DIRECTORY PUBLIC-KEY [KEPT-CHECKPOINTS]

PUBLIC-KEY is the key of the checkpoints, NAME+HASH+KEY, or a file with it. Exits with 0 if
the log is what its checkpoints say that it was, and so are those that were kept elsewhere.
The program zstd is needed to read segments that are compressed.
"""

import base64
import hashlib
import json
import pathlib
import re
import subprocess
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LINE = re.compile(
    rb'\{"log":"([0-9a-f]{32})","seq":([1-9][0-9]*),"prev":"([0-9a-f]{64})",'
    rb'"hash":"([0-9a-f]{64})","event":(\{[ -~]*\})\}\n'
)
CHECKPOINT = re.compile(
    r"(?P<text>(?P<origin>coatcheck/audit/[0-9a-f]{32})\n(?P<events>[1-9][0-9]*)\n(?P<root>[0-9A-Za-z+/]{43}=)\n"
    r"time [0-9-]{10}T[0-9:]{8}Z\nhead (?P<head>[0-9a-f]{64})\n)"
    r"\n\u2014 (?P<signer>[0-9A-Za-z/]+) (?P<signature>[0-9A-Za-z+/]+=*)\n"
)


class Broken(Exception):
    """The log is not what it was."""


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def from_base64(text):
    """Decodes base64 that is written in the one way there is."""
    raw = base64.b64decode(text, validate=True)
    if base64.b64encode(raw).decode() != text:
        raise Broken(f"not the base64 of anything: {text}")
    return raw


class Key:
    """The public key of the checkpoints."""

    def __init__(self, text):
        self.origin, key_hash, encoded = text.strip().split("+", 2)
        raw = from_base64(encoded)
        if raw[:1] != b"\x01" or len(raw) != 33:
            raise Broken("not an Ed25519 key")
        self.hash = sha256(self.origin.encode(), b"\n", raw)[:4]
        if self.hash.hex() != key_hash:
            raise Broken("the hash of the key is not that of the key")
        self.log = bytes.fromhex(self.origin.rpartition("/")[2])
        self.key = Ed25519PublicKey.from_public_bytes(raw[1:])

    def verify(self, checkpoint):
        """Checks that a checkpoint, a match of CHECKPOINT, is signed by this key."""
        signature = from_base64(checkpoint["signature"])
        if checkpoint["origin"] != self.origin or checkpoint["signer"] != self.origin or signature[:4] != self.hash:
            raise Broken(f"a checkpoint is of {checkpoint['origin']}, the key of {self.origin}")
        try:
            self.key.verify(signature[4:], checkpoint["text"].encode())
        except InvalidSignature:
            raise Broken(f"the signature of the checkpoint of {checkpoint['events']} events is wrong") from None


class Tree:
    """The Merkle tree of RFC 6962, of which no more is kept than it takes to grow."""

    def __init__(self):
        self.complete = []  # (leaves, hash) of complete trees, the largest first

    def add(self, leaf):
        size, node = 1, leaf
        while self.complete and self.complete[-1][0] == size:
            node = sha256(b"\x01", self.complete.pop()[1], node)
            size *= 2
        self.complete.append((size, node))

    def root(self):
        node = self.complete[-1][1]
        for _, left in reversed(self.complete[:-1]):
            node = sha256(b"\x01", left, node)
        return node


def checkpoints(text, key):
    """Yields the checkpoints of a text, each verified, and then what is left of the text."""
    at = 0
    while found := CHECKPOINT.match(text, at):
        key.verify(found)
        yield found
        at = found.end()
        if text[at : at + 1] == "\n":
            at += 1
        elif at < len(text):
            raise Broken("no empty line behind a checkpoint")
    if text[at:].count("\n") > 7 or at == 0:
        raise Broken("what should be a checkpoint is none")


def open_segment(path):
    """Opens the lines of a segment, plain or compressed."""
    if path.suffix == ".zst":
        return subprocess.Popen(["zstd", "-q", "-dc", str(path)], stdout=subprocess.PIPE).stdout
    return path.open("rb")


def segments(directory):
    """Returns (number of the first event, path) of each segment; of two forms of one the plain."""
    found = {}
    for path in sorted(directory.glob("audit-" + 20 * "[0-9]" + ".jsonl*")):
        if path.name[26:] in (".jsonl", ".jsonl.zst"):
            found.setdefault(int(path.name[6:26]), path)
    return sorted(found.items())


class Log:
    """A log that is read from its beginning: the chain, and the tree over it."""

    def __init__(self, directory, key, due):
        self.directory, self.key, self.due = directory, key, due
        self.tree, self.head, self.last = Tree(), sha256(b"coatcheck audit log v1\n", key.log), 0
        self.pruned, self.prunes = [], {}  # lines of pruned.jsonl; what events say of prunes

    def read(self):
        path = self.directory / "pruned.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        self.pruned = [line for line in map(json.loads, lines) if line["log"] == self.key.log.hex()]
        files = segments(self.directory)
        for index, (first, path) in enumerate(files):
            while self.last + 1 < first:
                self.skip(first)
            if first != self.last + 1:
                raise Broken(f"{path.name}: it begins with event {first}, and event {self.last} is before it")
            with open_segment(path) as file:
                for number, line in enumerate(file, 1):
                    if not line.endswith(b"\n") and index == len(files) - 1:
                        break  # being written, or left by a crash
                    self.line(f"{path.name}:{number}", line)
        self.check_prunes()
        if self.due:
            raise Broken(f"the log ends with event {self.last}, and {max(self.due)} were signed: what is behind was cut off")

    def line(self, place, line):
        found = LINE.fullmatch(line)
        if not found:
            raise Broken(f"{place}: not a line")
        log, prev, said = (bytes.fromhex(found[i].decode()) for i in (1, 3, 4))
        number, event = int(found[2]), found[5]
        if log != self.key.log or number != self.last + 1 or prev != self.head:
            raise Broken(f"{place}: of another log, out of order, or not chained to the line before")
        if sha256(b"coatcheck audit entry v1\n", number.to_bytes(8, "big"), prev, event) != said:
            raise Broken(f"{place}: the event doesn't have the hash that its line says")
        if b'"action":"prune-audit"' in event:
            self.prunes[number] = json.loads(event)
        self.head, self.last = said, number
        self.add(place, sha256(b"\x00", said))

    def skip(self, until):
        """Goes over a segment that was pruned: the tree has the hashes of its events."""
        gone = next((p for p in self.pruned if p["first"] == self.last + 1 and p["last"] < until), None)
        if gone is None:
            raise Broken(f"events {self.last + 1} to {until - 1} are missing")
        if bytes.fromhex(gone["prev"]) != self.head:
            raise Broken(f"pruned.jsonl: event {gone['first']} is not chained to what is before it")
        with (self.directory / "tree").open("rb") as tree:
            for number in range(gone["first"], gone["last"] + 1):
                before = sum((number - 1) >> k for k in range(64))  # hashes that are complete before its leaf
                tree.seek(32 * before)
                leaf = tree.read(32)
                if number == gone["last"] and leaf != sha256(b"\x00", bytes.fromhex(gone["hash"])):
                    raise Broken(f"pruned.jsonl: event {number} is not the one in the tree")
                self.last = number
                self.add("tree", leaf)
        self.head, gone["skipped"] = bytes.fromhex(gone["hash"]), True

    def check_prunes(self):
        """Checks that events tell of what was pruned, unless they were pruned too."""
        gone = [p for p in self.pruned if "skipped" in p]
        for p in gone:
            event = self.prunes.get(p["event"], {})
            named = event.get("pruned_first", 0) <= p["first"] and p["last"] <= event.get("pruned_last", 0)
            if not named and not any(q["first"] <= p["event"] <= q["last"] for q in gone):
                raise Broken(f"pruned.jsonl: event {p['event']} doesn't say that {p['first']} to {p['last']} were pruned")

    def add(self, place, leaf):
        """Adds a leaf to the tree, and holds it against the checkpoints of its size."""
        self.tree.add(leaf)
        for found in self.due.pop(self.last, []):
            if from_base64(found["root"]) != self.tree.root() or sha256(b"\x00", bytes.fromhex(found["head"])) != leaf:
                raise Broken(f"{place}: the first {self.last} events are not those that were signed")


def verify(directory, key, kept):
    """Returns how many events there are, how many are signed, and how many checkpoints."""
    latest = directory / "checkpoint"
    latest = latest.read_bytes().decode("utf-8") if latest.exists() else ""
    signed = list(checkpoints((directory / "checkpoints").read_bytes().decode("utf-8"), key))
    if latest not in [found[0] for found in signed[-2:]] and not (latest == "" and len(signed) == 1):
        raise Broken("checkpoint: it is not the last in checkpoints")
    sizes = [int(found["events"]) for found in signed]
    if any(earlier >= later for earlier, later in zip(sizes, sizes[1:])):
        raise Broken("checkpoints: one doesn't cover more than the one before")
    due = {}  # checkpoints by how many events they cover
    for found in signed + kept:
        due.setdefault(int(found["events"]), []).append(found)
    log = Log(directory, key, due)
    log.read()
    return log.last, sizes[-1], len(signed)


def main(arguments):
    if len(arguments) not in (2, 3):
        sys.exit(__doc__)
    directory, key_text = pathlib.Path(arguments[0]), arguments[1]
    try:
        key = Key(key_text if "+" in key_text else pathlib.Path(key_text).read_text("utf-8"))
        kept = list(checkpoints(pathlib.Path(arguments[2]).read_bytes().decode("utf-8"), key)) if arguments[2:] else []
        last, covered, count = verify(directory, key, kept)
    except (Broken, OSError, KeyError, TypeError, ValueError) as error:
        sys.exit(f"broken: {error}")
    print(f"whole: {last} events, {covered} of them signed, {count} checkpoints")


if __name__ == "__main__":
    main(sys.argv[1:])
