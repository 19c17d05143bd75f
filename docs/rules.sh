#!/bin/sh
# Holds the rules of docs/architecture.md, section 3, against the sources: each is cited in code, as "Rule P3", and in a test,
# as "Shows rule P3". Says what is missing, and which citation is of no rule. Status 0: nothing; 1: something.
set -eu
cd "$(dirname "$0")/.."

{
  find crates \( -name target -o -name examples -o -name benches \) -prune -o \
    \( -name '*.rs' -o -path '*/testdata/*.txt' \) -type f -print
  find docs proto benches README.md CONTRIBUTING.md \( -name '*.md' -o -name '*.proto' \) -type f -print
} | LC_ALL=C sort | LC_ALL=C awk -v page=docs/architecture.md '
  function wrong(text) { print "docs/rules.sh: " text | "cat >&2"; bad = 1 }

  # The simulator is a test as a whole; a unit test stands at the end of its file, behind "mod tests {".
  function is_test(file) {
    return file ~ /^crates\/sim\// || file ~ /\/(tests|testdata|[a-z]+_tests)\// || file ~ /(^|\/|_)tests\.rs$/
  }

  BEGIN {
    while ((getline line < page) > 0) {
      if (line ~ /^## /) { inside = line ~ /^## 3\./; continue }
      if (!inside || line !~ /^[-*] /) continue
      if (line !~ /^- \*\*[A-Z][0-9]+\*\* /) { wrong(page ": a rule without an id: " line); continue }
      split(line, part, "[*][*]")
      id = part[2]
      if (id in known) wrong(page ": " id " is the id of two rules")
      else order[++count] = id
      known[id] = 1
    }
    if (count == 0) wrong(page ": section 3 has no rules")
  }

  {
    file = $0
    test = is_test(file)
    attribute = 0
    for (number = 1; (getline line < file) > 0; number++) {
      if (attribute && line ~ /^ *(pub(\([a-z]+\))? )?mod [a-z_]+ \{/) test = 1
      if (line !~ /^ *(#\[|\/\/)/) attribute = 0
      if (line ~ /^ *#\[cfg\((all\()?test[,)]/) attribute = 1
      at = file ":" number ": "
      rest = line
      while (match(rest, /[Rr]ules? [A-Z][0-9]+/)) {
        before = substr(rest, 1, RSTART - 1)
        words = substr(rest, RSTART, RLENGTH)
        rest = substr(rest, RSTART + RLENGTH)
        id = words
        sub(/.* /, "", id)
        if (words ~ /^.ules /) { wrong(at "cite one rule at a time: rule " id ", rule ..."); continue }
        if (!(id in known)) { wrong(at "rule " id " is not in " page ", section 3"); continue }
        if (file !~ /^crates\//) continue
        if (before ~ /Shows $/) {
          if (test) shown[id] = 1
          else wrong(at "no test, and says that it shows rule " id)
        } else if (!test) kept[id] = 1
      }
    }
    close(file)
  }

  END {
    for (i = 1; i <= count; i++) {
      id = order[i]
      if (!(id in kept)) wrong("rule " id " is cited by no code: write \"Rule " id "\" at the line that keeps it")
      if (!(id in shown)) wrong("rule " id " is shown by no test: write \"Shows rule " id "\" in one")
    }
    if (bad) { close("cat >&2"); exit 1 }
  }
'
