#!/usr/bin/env bash
# CI's container part: start an engine where there is none and one can be had, test, stop it again.
# Where none can be had, the tests that need one say SKIPPED and why; those of the files alone still run.
set -euo pipefail
cd "$(dirname "$0")/.."
engine=../shared/ci/container-engine # installs Docker on a Debian host; absent elsewhere

answers() { docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; }

why_not() {
  if [ ! -x "$engine" ]; then
    echo "no container engine answers and $engine is not there"
  elif [ "$(id -u)" != 0 ]; then
    echo "no container engine answers and only root may install one"
  elif [ ! -e /etc/debian_version ]; then
    echo "no container engine answers and one can be installed on Debian only"
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
