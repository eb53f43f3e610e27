"""The JavaScript package, built once; without Node.js or installed packages these tests are skipped, in CI failed."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.js.process import JsPeer, owned_examples

PACKAGE = Path(__file__).resolve().parents[2] / "mobile_stubs" / "js"


@pytest.fixture(scope="session")
def prepared() -> Path:
    """The package's folder, where Node.js and its packages are there."""
    if shutil.which("node") is None or not (PACKAGE / "node_modules" / "typescript").is_dir():
        reason = f"needs Node.js 20 and `npm ci` in mobile_stubs/{PACKAGE.name} (make js)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return PACKAGE


@pytest.fixture(scope="session")
def package(prepared: Path) -> Path:
    """The same folder with a fresh `dist`."""
    done = subprocess.run(["node", "build.mjs"], cwd=prepared, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return prepared


@pytest.fixture(scope="session")
def join_page(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page for browsers, built as `make js` builds it, in a folder of its own."""
    folder = tmp_path_factory.mktemp("page") / "join"
    command = ["node", str(package / "build-join.mjs"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
async def js(package, world, tmp_path):
    """Starts JavaScript nodes by name and ends them all."""
    peers = []

    async def start(name, *, folder=None, script="peer.mjs", **options):
        data = owned_examples(name)
        source = tmp_path / f"{name}.json"
        source.write_text(json.dumps({"image": data["image"].ravel().tolist(), "label": data["label"].tolist()}))
        peer = JsPeer(name)
        peers.append(peer)
        given = {
            "url": world.url,
            "seed": hashlib.sha256(f"js {name}".encode()).hexdigest(),
            "folder": str(folder or tmp_path / f"js-{name}"),
            "author": world.author_identity.peer_id,
            "data": str(source),
        }
        await peer.start(given | options, script=script)
        return peer

    yield start
    for peer in peers:
        await peer.close()
