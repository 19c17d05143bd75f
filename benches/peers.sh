#!/usr/bin/env bash
# ringraft and its peers on the same work, interleaved in one run; prints one JSON line a system and round, then
# the ratios of the medians. Needs Java, Maven and Go for the peers; builds them on first use.
#
#   ROUNDS=3 SECONDS_EACH=8 WARMUP=12 WINDOWS="1024 1" SYSTEMS="floor ringraft jraft dragonboat hashicorp" benches/peers.sh
set -euo pipefail
cd "$(dirname "$0")/.."
PEERS=$(realpath "${PEERS:-../shared/peers}")
BIN=$(make -s where)
export RINGRAFT_BENCH_NODE="$BIN bench-node"
OUT=${OUT:-$HOME/.cache/ringraft-peers}
export OUT
ROUNDS=${ROUNDS:-3} SECONDS_EACH=${SECONDS_EACH:-8} WARMUP=${WARMUP:-12} WINDOWS=${WINDOWS:-1024 1}
SYSTEMS=${SYSTEMS:-floor ringraft jraft dragonboat hashicorp} GROUPS_EACH=${GROUPS_EACH:-1}
RESULTS=$(mktemp)
trap 'rm -f "$RESULTS"' EXIT
for system in $SYSTEMS; do
  case $system in
    ringraft) continue ;;
    jraft) built=$OUT/jraft/target/jraft-bench-1.jar ;;
    *) built=$OUT/$system/bench ;;
  esac
  [ -e "$built" ] || make -C "$PEERS" "$system" >&2
done
for window in $WINDOWS; do
  for round in $(seq "$ROUNDS"); do
    for system in $SYSTEMS; do
      store=()
      if [ "$system" = hashicorp ]; then store=(--store wal); fi
      if [ "$system" = dragonboat ]; then store=(--store tan); fi
      python3 "$PEERS/run.py" "$system" --groups "$GROUPS_EACH" --payload 16 --window "$window" \
        --seconds "$SECONDS_EACH" --warmup "$WARMUP" "${store[@]}" | tee -a "$RESULTS"
    done
  done
done
python3 benches/ratios.py "$RESULTS"
