#!/bin/sh
# Build the page that `peerplan signal` serves at /join. Without Node.js 20 it is left out, loudly.
set -eu
if [ ! -d mobile_stubs/js/node_modules/esbuild ]; then
  echo "SKIPPED: the page at /join needs Node.js 20 and npm; the signaling server will say that it is not built" >&2
  exit 0
fi
node mobile_stubs/js/build-join.mjs
