# SPDX-License-Identifier: Apache-2.0
"""What holds for every file, whatever it is written in."""

from lint import claims, files, lines_matching, read

KEY = "SPDX-License-" + "Identifier:"  # in two pieces, since this file is looked at too
UNFINISHED = r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b"
BANNER = r"^[ \t]*(?:/?\*|//|#)?[ \t]*([-=*#/_~+])\1{9,}"


def licence():
    """Every file names its licence, once, on top"""
    for path in files():
        text = read(path)
        if text.count(KEY) != 1 or KEY + " Apache-2.0" not in "".join(text.split("\n")[:3]):
            yield "%s: wants one line `%s Apache-2.0` within its first three" % (path, KEY)


def unfinished():
    """Nothing is left for later"""
    for path in files():
        for number, match in lines_matching(read(path), UNFINISHED):
            yield "%s:%d: %s" % (path, number, match.group(0))


def banners():
    """No banners"""
    for path in files("*.[ch]", "*.def", "*.sh", "*.py", "*.am", "*.ac", "*.m4", "*.sql", "contrib/*", ".ci/*"):
        for number, match in lines_matching(read(path), BANNER):
            yield "%s:%d: %s" % (path, number, match.group(0))


def whitespace():
    """No white space at the end of a line, and every file ends with a line end"""
    for path in files():
        text = read(path)
        for number, _ in lines_matching(text, r"[ \t\r]+$"):
            yield "%s:%d: white space at the end" % (path, number)
        if text and not text.endswith("\n"):
            yield "%s: no line end at its end" % path


claims(licence, unfinished, banners, whitespace)
