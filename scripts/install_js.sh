#!/bin/sh
# Install the packages the JavaScript SDK is built and tested with. Without Node.js 20 its tests are left out, loudly;
# in CI that is a failure.
set -eu
folder=mobile_stubs/js
if ! command -v npm >/dev/null 2>&1 || ! node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'; then
  echo "SKIPPED: the JavaScript SDK needs Node.js 20 and npm; its tests will not run" >&2
  [ -z "${CI:-}" ] || exit 1
  exit 0
fi
if [ ! -x /usr/bin/chromium ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing Chromium for the browser's tests"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
  else
    echo "SKIPPED: no /usr/bin/chromium, and no root to install it; the browser's tests will not run" >&2
    [ -z "${CI:-}" ] || exit 1
  fi
fi
if ! command -v turnserver >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing coturn for the test of relays"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends coturn >/dev/null
  else
    echo "SKIPPED: no turnserver (coturn), and no root to install it; the test of relays will not run" >&2
    [ -z "${CI:-}" ] || exit 1
  fi
fi
echo "installing the JavaScript SDK's packages"
cd "$folder"
ONNXRUNTIME_NODE_INSTALL=skip npm ci --no-audit --no-fund --loglevel=error
