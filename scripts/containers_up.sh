#!/usr/bin/env bash
# make up, make down: with containers if a container engine answers, else with the local launcher. Prints which one.
#
#   SKYSHORE_WITH=compose|local    use only this one
#   SKYSHORE_LAYERS="links gpu"    more layers from compose/ (gpu, links, observability)
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'skyshore: %s\n' "$*" >&2; }
engine_answers() { docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; }

choose() {
  case ${SKYSHORE_WITH:-} in
    compose | local) echo "$SKYSHORE_WITH" ;;
    '') if engine_answers; then echo compose; else echo local; fi ;;
    *) say "SKYSHORE_WITH must be compose or local, not '$SKYSHORE_WITH'"; exit 2 ;;
  esac
}

# Files of this host are used instead of fetching them into volumes or building them from source.
offer_local_files() {
  local cache=${XDG_CACHE_HOME:-$HOME/.cache}/skyshore/models wheels=${PIP_FIND_LINKS:-}
  if [ -z "${SKYSHORE_MODELS:-}" ] && [ -d "$cache" ]; then export SKYSHORE_MODELS=$cache; fi
  if [ -z "${SKYSHORE_WHEELS:-}" ] && [ -d "$wheels" ]; then export SKYSHORE_WHEELS=$wheels; fi
  if [ -z "${SKYSHORE_CLOUD_EXTRA:-}" ] && compgen -G "${SKYSHORE_WHEELS:-/nowhere}/torch-*" >/dev/null; then
    export SKYSHORE_CLOUD_EXTRA=cloud
  fi
}

up_compose() {
  local files=(-f compose/compose.yaml) layer
  for layer in ${SKYSHORE_LAYERS:-}; do files+=(-f "compose/compose.$layer.yaml"); done
  offer_local_files
  say "starting with docker compose (SKYSHORE_WITH=local for plain processes)"
  docker compose "${files[@]}" up -d --build --wait
  local emulated
  emulated=$(docker compose "${files[@]}" logs --no-log-prefix | grep -c 'runs EMULATED' || true)
  if [ "$emulated" != 0 ]; then
    say "$emulated nodes are EMULATED, their answers are not real; run 'skyshore models fetch', then 'make up' again"
  fi
  say "ready: http://$(docker compose "${files[@]}" port gateway 8080)  (make down stops it)"
}

up_local() {
  say "starting with the local launcher (no container engine answers, or SKYSHORE_WITH=local)"
  make --no-print-directory .venv/.run
  .venv/bin/skyshore up --detach
}

down() {
  local stopped=
  if engine_answers && [ -n "$(docker ps -aq --filter label=com.docker.compose.project=skyshore)" ]; then
    say "stopping the containers (volumes stay: docker volume ls --filter name=skyshore)"
    docker compose -p skyshore down --remove-orphans
    stopped=1
  fi
  if [ -x .venv/bin/skyshore ] && [ -e "${SKYSHORE_STATE_DIR:-.state}" ]; then
    say "asking the local launcher"
    .venv/bin/skyshore down
    stopped=1
  fi
  [ -n "$stopped" ] || say "nothing runs"
}

case ${1:-} in
  up) with=$(choose); "up_$with" ;;
  down) down ;;
  *) sed -n '2,5p' "$0" >&2; exit 2 ;;
esac
