from tests.js.conftest import package, prepared  # noqa: F401 (fixtures, with what becomes of tests without Node.js)
