# SPDX-License-Identifier: Apache-2.0
"""What the lint tests share: our files, C without comments and strings, and TAP."""

import fnmatch
import os
import re

ROOT = os.environ.get("top_srcdir") or os.path.join(os.path.dirname(__file__), "..", "..")
FOLDERS = ["common", "daemon", "client", "tests", "contrib", "docs", "m4", ".ci"]
NOT_OURS = ["*.pb-c.[ch]", "*.o", "*.a", "*.log", "*.trs", "*.py[co]", "*~", "*.orig", "*.rej", ".dirstamp", ".*.sw?"]
TREES_NOT_OURS = ["__pycache__", ".deps", "corpus"]
ROOT_FILES = ["README.md", "HACKING.md", "NEWS.md", "SECURITY.md", "configure.ac", "Makefile.am",
              ".clang-format", ".clang-tidy", ".editorconfig", ".gitignore"]


def is_text(path):
    """A built program may lie beside its source."""
    with open(os.path.join(ROOT, path), "rb") as file:
        return b"\0" not in file.read(4096)


def files(*patterns):
    """Our source files as paths from the root, sorted; only those that match a pattern, if there are any."""
    found = [name for name in ROOT_FILES if os.path.exists(os.path.join(ROOT, name))]
    for folder in FOLDERS:
        for path, folders, names in os.walk(os.path.join(ROOT, folder)):
            folders[:] = [name for name in folders if name not in TREES_NOT_OURS]
            found += [os.path.relpath(os.path.join(path, name), ROOT) for name in names
                      if not any(fnmatch.fnmatch(name, pattern) for pattern in NOT_OURS)]
    if patterns:
        found = [path for path in found if any(fnmatch.fnmatch(path, pattern) for pattern in patterns)]
    return sorted(path for path in found if is_text(path))


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def bare(text, strings=False):
    """C without its comments and, unless asked for, without what its strings say; lines stay where they are."""
    def replace(match):
        token = match.group(0)
        if token[0] != "/":
            return token if strings else token[0] * 2
        return "\n" * token.count("\n") or " "
    return COMMENT_OR_STRING.sub(replace, text)


def lines_matching(text, pattern):
    """Pairs of line number and match."""
    for number, line in enumerate(text.split("\n"), 1):
        for match in re.finditer(pattern, line):
            yield number, match


def functions(text):
    """Each function definition as (first line, lines, head): `{` and `}` stand alone in the first column."""
    lines = bare(text).split("\n")
    head, start = [], 0
    for number, line in enumerate(lines, 1):
        if number > 1 and lines[number - 2].endswith("\\"):
            continue
        if line.startswith("{") and head:
            body = number
            while not lines[body - 1].startswith("}"):
                body += 1
            yield start, body - start + 1, " ".join(head)
            head = []
        elif re.match(r"[A-Za-z_]", line):
            head, start = [line], number
        elif head and line[:1] in ("\t", " ", ")"):
            head.append(line)
        else:
            head = []


def table(name):
    """The lines of a table in this folder, without comments, as pairs of line number and words."""
    for number, line in enumerate(read("tests/lint/" + name).split("\n"), 1):
        words = line.split("#")[0].split()
        if words:
            yield number, words


def claims(*checks):
    """Run checks, each a generator of what is wrong whose first docstring line is the claim; print TAP."""
    print("1..%d" % len(checks), flush=True)
    for number, check in enumerate(checks, 1):
        wrong = list(check())
        for line in wrong:
            print("# " + line.encode("utf-8", "backslashreplace").decode())
        print("%sok %d - %s" % ("not " if wrong else "", number, check.__doc__.split("\n")[0].rstrip(".")), flush=True)
