"""Reliability of the forecast's bands: how often true values lie in a band, against the level it claims.

    reliability.py PROGRAM FOLDER OUT.svg

FOLDER holds windows.json (id, series, start, n, h) and SERIES.csv (time, value). Each window is forecast once with
all levels; the share of its true values inside each band counts once. Prints the table and writes the diagram.
Standard library only.
"""
import csv, io, json, pathlib, subprocess, sys

LEVELS = [20, 40, 50, 60, 70, 80, 90, 95]  # as many as one call takes
SIZE, EDGE = 320, 44


def shares(program, folder, window):
    """Share of true values in each band of one window."""
    with open(folder / f"{window['series']}.csv", newline="") as file:
        rows = list(csv.reader(file))[1 + window["start"]:]
    past, truth = rows[:window["n"]], rows[window["n"]:window["n"] + window["h"]]
    text = "time,value\n" + "".join(f"{time},{value}\n" for time, value in past)
    done = subprocess.run(
        [program, "forecast", "--input", "-", "--column", "value", "--horizon", str(window["h"]),
         "--level", ",".join(map(str, LEVELS))],
        input=text, capture_output=True, text=True, timeout=60)
    if done.returncode:
        sys.exit(f"{window['id']}: {done.stderr.strip()}")
    table = list(csv.DictReader(io.StringIO(done.stdout)))
    inside = lambda row, value, level: float(row[f"lower_{level}"]) <= value <= float(row[f"upper_{level}"])
    return [sum(inside(row, float(value), level) for row, (_, value) in zip(table, truth)) / len(truth)
            for level in LEVELS]


def diagram(found, windows):
    """Found shares against claimed ones, as SVG."""
    place = lambda level, share: (EDGE + SIZE * level / 100, EDGE + SIZE * (1 - share))
    points = [place(level, share) for level, share in zip(LEVELS, found)]
    side = 2 * EDGE + SIZE
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}" width="{side}" height="{side}" '
        'font-family="sans-serif" font-size="12">',
        f"<title>Reliability of forecast bands, {windows} windows</title>",
        f'<rect width="{side}" height="{side}" fill="#fff"/>',
    ]
    for tick in range(0, 101, 20):
        x, y = place(tick, tick / 100)
        lines += [
            f'<path d="M{x:.1f} {EDGE}V{EDGE + SIZE}M{EDGE} {y:.1f}H{EDGE + SIZE}" stroke="#ddd"/>',
            f'<text x="{x:.1f}" y="{EDGE + SIZE + 16}" text-anchor="middle">{tick}</text>',
            f'<text x="{EDGE - 6}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>',
        ]
    ends = [*place(0, 0), *place(100, 1)]
    lines += [
        f'<path d="M{ends[0]:.1f} {ends[1]:.1f}L{ends[2]:.1f} {ends[3]:.1f}" stroke="#888" stroke-dasharray="4 4"/>',
        '<polyline fill="none" stroke="#0b6" stroke-width="2" points="'
        + " ".join(f"{x:.1f},{y:.1f}" for x, y in points) + '"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="#0b6"/>' for x, y in points),
        f'<text x="{side / 2}" y="{side - 8}" text-anchor="middle">level of the band, %</text>',
        f'<text transform="translate(12 {side / 2}) rotate(-90)" text-anchor="middle">true values inside, %</text>',
        f'<text x="{side / 2}" y="24" text-anchor="middle" font-size="14">{windows} windows of real series</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def main():
    program, folder, out = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    windows = json.loads((folder / "windows.json").read_text())
    each = [shares(program, folder, window) for window in windows]
    found = [sum(column) / len(each) for column in zip(*each)]
    print("level  inside")
    for level, share in zip(LEVELS, found):
        print(f"{level:4d} %  {100 * share:.1f} %")
    out.write_text(diagram(found, len(each)))


if __name__ == "__main__":
    main()
