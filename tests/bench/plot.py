# SPDX-License-Identifier: Apache-2.0
"""A plot of lines on logarithmic axes, as SVG, with nothing but Python."""

import html
import math

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 110, 40, 50
LICENCE = "SPDX-License-" + "Identifier:"  # in two pieces: it is not this file's
COLORS = "#1b6ca8", "#888888", "#c4561a", "#3a7d44"


def decades(values):
    """The powers of ten around the values."""
    return range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)


class Axis:
    """From values to pixels."""

    def __init__(self, values, first, last):
        self.ticks = [10 ** power for power in decades(values)]
        self.low, self.span = math.log10(self.ticks[0]), math.log10(self.ticks[-1] / self.ticks[0]) or 1
        self.first, self.last = first, last

    def at(self, value):
        return self.first + (self.last - self.first) * (math.log10(value) - self.low) / self.span


def text(x, y, words, anchor="middle", extra=""):
    return '<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>' % (x, y, anchor, extra, html.escape(words))


def grid(x, y):
    for tick in x.ticks:
        at = x.at(tick)
        yield '<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" class="grid"/>' % (at, TOP, at, HEIGHT - BOTTOM)
        yield text(at, HEIGHT - BOTTOM + 18, "{:,}".format(tick))
    for tick in y.ticks:
        at = y.at(tick)
        yield '<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" class="grid"/>' % (LEFT, at, WIDTH - RIGHT, at)
        yield text(LEFT - 8, at + 4, "{:,g}".format(tick), "end")


def curve(x, y, name, points, color):
    at = [(x.at(a), y.at(b)) for a, b in points]
    yield '<polyline points="%s" style="stroke:%s"/>' % (" ".join("%.1f,%.1f" % p for p in at), color)
    for (left, top), (_, value) in zip(at, points):
        yield '<circle cx="%.1f" cy="%.1f" r="3.5" style="fill:%s"><title>%.3g</title></circle>' % (
            left, top, color, value)


def labels(y, lines):
    """Names beside the ends of the lines, none on top of another."""
    free = HEIGHT
    for (name, points), color in sorted(zip(lines.items(), COLORS), key=lambda line: line[0][1][-1][1]):
        free = min(y.at(points[-1][1]) + 4, free - 15)
        yield text(WIDTH - RIGHT + 10, free, name, "start", ' style="fill:%s"' % color)


def svg(title, x_name, y_name, lines):
    """lines: name -> [(x, y)], all positive."""
    points = [point for line in lines.values() for point in line]
    x = Axis([a for a, _ in points], LEFT, WIDTH - RIGHT)
    y = Axis([b for _, b in points], HEIGHT - BOTTOM, TOP)
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d">' % (WIDTH, HEIGHT),
             '<!-- %s Apache-2.0 -->' % LICENCE,
             '<style>text{font:13px sans-serif;fill:#333}.grid{stroke:#ddd}polyline{fill:none;stroke-width:2}</style>',
             '<rect width="100%" height="100%" fill="#fff"/>', text(WIDTH / 2, 22, title), *grid(x, y)]
    for (name, line), color in zip(lines.items(), COLORS):
        parts += curve(x, y, name, line, color)
    parts += [*labels(y, lines), text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_name),
              text(18, HEIGHT / 2, y_name, "middle", ' transform="rotate(-90 18 %d)"' % (HEIGHT // 2)), "</svg>"]
    return "\n".join(parts) + "\n"


def write(path, *what):
    with open(path, "w", encoding="utf-8") as file:
        file.write(svg(*what))
