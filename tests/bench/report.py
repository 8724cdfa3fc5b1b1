# SPDX-License-Identifier: Apache-2.0
"""The table, for people (text, Markdown) and for programs (JSON, with all samples)."""

import dataclasses
import json

HEAD = ["what", "dircache", "floor", "ratio", "cp -al", "ratio", "ostree", "goal", "met"]
LEFT = {0, 7, 8}


def number(value, unit=""):
    if value is None:
        return "–"
    text = "%.0f" % value if value >= 1000 else "%.3g" % value if value < 100 else "%.0f" % value
    return text + (" " + unit if unit else "")


def ratio(found, ours, other):
    """As it was found turn by turn, or that of the two columns."""
    if found is None and ours is not None and other:
        found = ours / other
    return "–" if found is None else "%.2f" % found


def cells(row):
    if row.ours is None:
        return [row.what] + ["–"] * 6 + [row.goal or "–", "not run"]
    return [row.what, number(row.ours, row.unit), number(row.floor), ratio(row.floor_ratio, row.ours, row.floor),
            number(row.cp), ratio(row.cp_ratio, row.ours, row.cp), number(row.ostree), row.goal or "–",
            {True: "yes", False: "NO", None: "–"}[row.met]]


def heading(facts):
    lines = ["dircache %s, %d processors (%s), Linux %s, %s; medians of %d after a warm-up" %
             (facts["version"], facts["processors"], facts["processor"], facts["kernel"], facts["file_system"],
              facts["repeat"])]
    if facts["load"] > 0.5 * facts["processors"]:
        lines.append("The machine was busy with other work when this began (load %.1f): the ratios are rough" %
                     facts["load"])
    return lines


def text(rows, facts):
    lines = [HEAD] + [cells(row) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    out = heading(facts) + [""]
    for line, row in zip(lines, [None] + rows):
        out.append("  ".join(cell.ljust(width) if column in LEFT else cell.rjust(width)
                             for column, (cell, width) in enumerate(zip(line, widths))).rstrip())
        if row and row.note:
            out.append("    " + row.note)
    return "\n".join(out) + "\n"


def markdown(rows, facts):
    out = [line + "." for line in heading(facts)] + [""]
    out.append("| " + " | ".join(HEAD) + " |")
    out.append("| " + " | ".join("---" if column in LEFT else "---:" for column in range(len(HEAD))) + " |")
    out += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    notes = ["- %s: %s." % (row.what, row.note) for row in rows if row.note]
    return "\n".join(out + [""] + notes) + "\n"


def to_json(rows, facts):
    return json.dumps({"facts": facts, "rows": [dataclasses.asdict(row) for row in rows]}, indent=1) + "\n"
