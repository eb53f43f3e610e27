#!/bin/sh
# Lint and types of the JavaScript SDK. Without its packages (make js) this is left out, loudly; in CI that is a failure.
set -eu
cd mobile_stubs/js
if [ ! -x node_modules/.bin/oxlint ]; then
  echo "SKIPPED: lint and types of the JavaScript SDK need Node.js 20 and its packages (make js)" >&2
  [ -z "${CI:-}" ] || exit 1
  exit 0
fi
npm run --silent check
