#!/usr/bin/env bash
# Chromium for the tests of the explorer's pages: installs Debian's where there is none, as root or through sudo.
set -euo pipefail
if [ -n "${CHROMIUM:-}" ] || command -v chromium > /dev/null || command -v chromium-browser > /dev/null; then exit 0; fi
say() { echo "chromium: $1 Install Chromium, or name one: CHROMIUM=/path make e2e" >&2; exit 1; }
command -v apt-get > /dev/null || say "it is not on this machine, and neither is apt-get."
run=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo > /dev/null || say "it is not on this machine, and apt-get needs root or sudo."
  run=(sudo)
fi
echo "Installing Chromium ..."
"${run[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${run[@]}" apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core \
  > /dev/null || say "apt-get could not install it."
