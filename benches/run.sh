#!/usr/bin/env bash
# ringraft on this machine: one group with a full window and with one write, then many groups on the same threads.
# One row a run. Ratios against peers: benches/peers.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=$(make -s where)
SECONDS_EACH=${SECONDS_EACH:-4}
row() {
  "$BIN" bench "$@" --seconds "$SECONDS_EACH" --json 2>/dev/null | tail -1 | python3 -c '
import json, sys
r = json.loads(sys.stdin.read())
number = lambda key, form: "–" if r[key] is None else format(r[key], form)
print("| {} | {} | {} | {} | {} | {} | {} | {} | {} |".format(r["system"], r["groups"], r["payload"], r["window"],
      number("writes_per_s", ",.0f"), r["p50_us"], r["p99_us"], number("cpu_us_per_write", ".2f"), r["threads"]))'
}
echo "| system | groups | payload B | window a group | writes/s | p50 µs | p99 µs | CPU µs a write | threads a process |"
echo "|---|--:|--:|--:|--:|--:|--:|--:|---|"
row --window 1024
row --window 1
row --window 1024 --payload 1024
row --groups 8 --window 128
row --groups 64 --window 16
row --groups 512 --window 2
row --window 1024 --store memory
row --window 1024 --store memory --transport inproc
row --window 256 --client remote
