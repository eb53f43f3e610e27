from tests.js.conftest import installed, package  # noqa: F401 (fixtures, with what becomes of tests without Node.js)
