#!/usr/bin/env python3
"""Medians of a peers run and what ringraft is beside each system, as a table."""
import json, statistics, sys

rows = [json.loads(line) for line in open(sys.argv[1]) if line.startswith("{")]
for window in sorted({r["window"] for r in rows}, reverse=True):
    of_window = [r for r in rows if r["window"] == window]
    names = list(dict.fromkeys(r["system"] for r in of_window))

    def median(name, key):
        values = [r[key] for r in of_window if r["system"] == name and r[key] is not None]
        return statistics.median(values) if values else float("nan")

    ours = next((n for n in names if n.startswith("ringraft")), None)
    print(f"\nwindow {window}, payload {of_window[0]['payload']} B, groups {of_window[0]['groups']}")
    print("| system | writes/s | CPU µs a write | p50 µs | p99 µs | ringraft is (writes/s) | ringraft's p50 is |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for n in names:
        rate, p50 = median(n, "writes_per_s"), median(n, "p50_us")
        ratio = f"{median(ours, 'writes_per_s') / rate:.2f} ×" if ours and rate else "–"
        slower = f"{median(ours, 'p50_us') / p50:.2f} ×" if ours and p50 else "–"
        print(f"| {n} | {rate:,.0f} | {median(n, 'cpu_us_per_write'):.2f} | {p50:,.0f} | {median(n, 'p99_us'):,.0f} | {ratio} | {slower} |")
