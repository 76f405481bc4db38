#!/usr/bin/env bash
# The container tests of CI: start a container engine if there is none and this is possible, test, stop the engine.
# Without an engine, the tests that need one are skipped with the reason; the tests of the files still run.
set -euo pipefail
cd "$(dirname "$0")/.."
engine=../shared/ci/container-engine # installs Docker on a Debian host; absent elsewhere

answers() { docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; }

why_not() {
  if [ ! -x "$engine" ]; then
    echo "no container engine answers and $engine does not exist"
  elif [ "$(id -u)" != 0 ]; then
    echo "no container engine answers and only root may install one"
  elif [ ! -e /etc/debian_version ]; then
    echo "no container engine answers and one can be installed only on Debian"
  fi
}

if ! answers; then
  reason=$(why_not)
  if [ -n "$reason" ]; then
    echo "SKIPPED tests in containers: $reason"
  else
    trap '"$engine" down' EXIT
    "$engine" up
  fi
fi
.venv/bin/python -m pytest tests/e2e/test_containers*.py "$@"
echo "container part: $SECONDS s"
