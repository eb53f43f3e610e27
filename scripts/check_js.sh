#!/bin/sh
# Lint and types of the JavaScript SDK, and lint of the scripts its tests run. Without its packages (make js) this is left out, loudly; in CI that is a failure.
set -eu
cd mobile_stubs/js
if [ ! -x node_modules/.bin/oxlint ]; then
  echo "SKIPPED: lint and types of the JavaScript SDK need Node.js 20 and its packages (make js)" >&2
  [ -z "${CI:-}" ] || exit 1
  exit 0
fi
npm run --silent check
# oxlint takes no path above its own folder, and looks for its type-aware half in the path
PATH="$PWD/node_modules/.bin:$PATH"
cd ../..
oxlint --config mobile_stubs/js/.oxlintrc.json tests/js
