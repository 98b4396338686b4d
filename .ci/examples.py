"""Does what the README and the pages with examples say, as they say it, in a
fresh clone.

`make run` serves, and the shell blocks of each page are pasted one after the
other into one shell. A block of another kind that follows one must be printed
by it: each of its lines, in their order.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [("README.md", "Try it"), ("docs/calling.md", None), ("docs/cli.md", None), ("docs/migration.md", "Moving in"), ("docs/serving.md", None)]
MARK = "--- end of block ---"
VARIES = [
    (re.compile(r"cc_[a-z][a-z0-9-]*_[0-9A-Za-z]{29,}|\b[0-9]{12}(1111|4444)\b|\b[0-9a-z]{16}@example\.invalid"), "TOKEN"),
    (re.compile(r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z"), "TIME"),
    (re.compile(r"\b[0-9A-Za-z+/]{43}="), "KEY"),
    (re.compile(r"\bage1[0-9a-z]{58}"), "RECIPIENT"),
]


def blocks(page, section):
    """Returns the (language, content) of the blocks of a page, or of a section."""
    text = (ROOT / page).read_text()
    if section:
        text = text.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)


def lines(text):
    """Returns the lines that count, with what varies taken out."""
    for form, name in VARIES:
        text = form.sub(name, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def missing(want, got):
    """Returns the first wanted line that doesn't follow the ones before it."""
    rest = iter(got)
    for line in want:
        if line not in rest:
            return line
    return None


def serve(clone):
    """Runs make run and waits until it serves."""
    server = subprocess.Popen(["make", "run"], cwd=clone, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for line in server.stderr:
        if "serving on 127.0.0.1:7443" in line:
            return server
    raise SystemExit(f"make run ended with {server.wait()}")


def paste(shell, content):
    """Pastes a block and returns what it prints."""
    shell.stdin.write(f"{content}\necho '{MARK}'\n")
    shell.stdin.flush()
    printed = []
    for line in shell.stdout:
        if line.strip() == MARK:
            break
        printed.append(line)
    print("".join(printed), end="")
    return "".join(printed)


def follow(page, section, clone):
    """Does what a page says, and returns how much of it is not so."""
    failed = 0
    shell = subprocess.Popen(
        ["bash"], cwd=clone, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        printed = None
        for language, content in blocks(page, section):
            if language == "sh":
                printed = paste(shell, content)
                continue
            lost = missing(lines(content), lines(printed)) if printed is not None else None
            if lost is not None:
                print(f"{page}: not printed, or not there: {lost}", file=sys.stderr)
                failed += 1
            printed = None
    finally:
        shell.kill()
    return failed


def main():
    with tempfile.TemporaryDirectory() as scratch:
        clone = pathlib.Path(scratch, "coatcheck")
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        server = serve(clone)
        try:
            failed = sum(follow(page, section, clone) for page, section in PAGES)
        finally:
            # Ctrl-C goes to the whole foreground group, and so does this.
            subprocess.run(["pkill", "-INT", "-s", str(server.pid)], check=False)
            server.stderr.close()
            server.wait(timeout=60)
        left = subprocess.run(["git", "status", "--porcelain"], cwd=clone, check=True, capture_output=True, text=True).stdout
        if left:
            print(f"what the pages leave in the clone:\n{left}", file=sys.stderr)
            failed += 1
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
