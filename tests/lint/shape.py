# SPDX-License-Identifier: Apache-2.0
"""The shape of our C: short functions, short files, one way out."""

import re

from lint import bare, claims, files, functions, lines_matching, read

FUNCTION_LINES_MAX = 100
FUNCTION_LINES_LONG = 60
FILE_LINES_MAX = 600
PARAMETERS_MAX = 6
C_FILES = files("*.c", "*.h")


def n_parameters(head):
    """How many, but for the `struct err *` at the end."""
    depth, n = 0, -("struct err *" in head)
    for match in re.finditer(r"[(),]", head):
        if match.group(0) == "(":
            depth += 1
        elif match.group(0) == ")":
            depth -= 1
            if depth == 0:
                return n + 1
        else:
            n += depth == 1
    return n


def function_length():
    """No function is longer than 100 lines"""
    for path in C_FILES:
        for number, n, head in functions(read(path)):
            name = re.match(r"[^(]*?(\w+ ?\(\w*)", head)
            name = name.group(1) if name else head
            if n > FUNCTION_LINES_MAX:
                yield "%s:%d: %s has %d lines" % (path, number, name, n)
            elif n > FUNCTION_LINES_LONG:
                print("# warning: %s:%d: %s has %d lines" % (path, number, name, n))


def parameters():
    """No function takes more than six parameters and an err"""
    for path in C_FILES:
        for number, _, head in functions(read(path)):
            if n_parameters(head) > PARAMETERS_MAX:
                yield "%s:%d: %d parameters" % (path, number, n_parameters(head))


def file_length():
    """No file is longer than 600 lines"""
    for path in files("*.c", "*.h", "*.py", "*.sh"):
        n = read(path).count("\n")
        if n > FILE_LINES_MAX:
            yield "%s: %d lines" % (path, n)


def one_way_out():
    """No goto"""
    for path in C_FILES:
        for number, _ in lines_matching(bare(read(path)), r"\bgoto\b"):
            yield "%s:%d" % (path, number)


def plain_structs():
    """A struct is called struct: no typedef hides one"""
    for path in C_FILES:
        for number, _ in lines_matching(bare(read(path)), r"\btypedef\s+(?:const\s+)?(?:struct|union|enum)\b"):
            yield "%s:%d" % (path, number)


def asserts_stay():
    """Nothing compiles asserts out"""
    for path in files("*.c", "*.h", "*.ac", "*.m4", "*.am"):
        for number, _ in lines_matching(read(path), r"\bNDEBUG\b"):
            yield "%s:%d" % (path, number)


def line_length():
    """No line of C is wider than 110 columns"""
    for path in C_FILES:
        for number, line in enumerate(read(path).split("\n"), 1):
            if len(line.expandtabs(8)) > 110:
                yield "%s:%d: %d columns" % (path, number, len(line.expandtabs(8)))


claims(function_length, parameters, file_length, one_way_out, plain_structs, asserts_stay, line_length)
