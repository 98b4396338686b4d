"""Does what the README says, as it says it, in a fresh clone.

`make run` serves, the shell blocks under "Try it" are pasted one after the
other into one shell, and each must print the block that follows it.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MARK = "--- end of block ---"
TOKEN = re.compile(r"cc_[a-z][a-z0-9-]*_[0-9A-Za-z]{29,}|\b[0-9]{12}1111\b")


def blocks(text):
    """Returns the (language, content) of the blocks under "Try it"."""
    section = text.split("\n## Try it\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^```(\w*)\n(.*?)^```$", section, re.M | re.S)


def lines(text):
    """Returns the lines that count, with the random part of tokens taken out."""
    return [TOKEN.sub("TOKEN", line.strip()) for line in text.splitlines() if line.strip()]


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


def main():
    readme = (ROOT / "README.md").read_text()
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        clone = pathlib.Path(scratch, "coatcheck")
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        server = serve(clone)
        shell = subprocess.Popen(
            ["bash"], cwd=clone, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            printed = []
            for language, content in blocks(readme):
                if language == "sh":
                    shell.stdin.write(f"{content}\necho '{MARK}'\n")
                    shell.stdin.flush()
                    printed = []
                    for line in shell.stdout:
                        if line.strip() == MARK:
                            break
                        printed.append(line)
                    print("".join(printed), end="")
                    continue
                lost = missing(lines(content), lines("".join(printed)))
                if lost is not None:
                    print(f"README: not printed, or not there: {lost}", file=sys.stderr)
                    failed += 1
        finally:
            shell.kill()
            # Ctrl-C goes to the whole foreground group, and so does this.
            subprocess.run(["pkill", "-INT", "-s", str(server.pid)], check=False)
            server.stderr.close()
            server.wait(timeout=60)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
