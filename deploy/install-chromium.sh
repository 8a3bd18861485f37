#!/bin/sh
# Make sure that the browser tests have a Chromium: Debian's package, from the system's own archive.
#
# Installs it where that is possible without asking (root on a Debian-like system). Elsewhere it says what to do and ends
# well: the browser tests then say why they are skipped, except in CI (the variable CI is set), where they fail.
set -eu
if command -v chromium >/dev/null 2>&1 || [ -n "${MYNAH_TEST_CHROMIUM:-}" ]; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing Chromium for the browser tests …"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-liberation >/dev/null
    exit 0
fi
echo "The browser tests need Chromium. Install it (Debian, Ubuntu: sudo apt-get install chromium)," >&2
echo "or name one that is there: MYNAH_TEST_CHROMIUM=/path/to/chrome make test" >&2
