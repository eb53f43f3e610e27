"""The JavaScript package's own tests: rounds in virtual time, attacks, documents, datasets."""

import subprocess


def test_the_packages_own_tests_pass(package):
    done = subprocess.run(
        ["node", "node_modules/vitest/vitest.mjs", "run", "--reporter=dot"],
        cwd=package,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
