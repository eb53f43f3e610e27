"""What `npm pack` gives is enough to run the README's example; the lockfile names no host."""

import asyncio
import gzip
import json
import os
import re
import subprocess
import tarfile

import pytest

from tests.e2e.world import World


def test_the_lockfile_names_no_host_and_there_are_three_dependencies(package):
    lock = (package / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock
    manifest = json.loads((package / "package.json").read_text(encoding="utf-8"))
    assert sorted(manifest["dependencies"]) == ["node-datachannel", "onnxruntime-web", "ws"]


def test_the_bundle_of_a_page_is_at_most_60_kb_gzipped(package):
    bundle = (package / "dist" / "bundle" / "peerplan.js").read_bytes()
    assert len(gzip.compress(bundle, 9)) <= 60_000


@pytest.fixture
def installed(package, tmp_path):
    """An otherwise empty folder with the packed package and its dependencies installed."""
    subprocess.run(
        ["npm", "pack", "--ignore-scripts", "--pack-destination", str(tmp_path)],
        cwd=package,
        capture_output=True,
        check=True,
    )
    (archive,) = tmp_path.glob("peerplan-*.tgz")
    modules = tmp_path / "app" / "node_modules"
    modules.mkdir(parents=True)
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    (tmp_path / "unpacked" / "package").rename(modules / "peerplan")
    for dependency in (package / "node_modules").iterdir():
        if not dependency.name.startswith("."):
            (modules / dependency.name).symlink_to(dependency)
    return tmp_path / "app"


async def test_the_example_of_the_readme_registers_with_a_signaling_server(package, installed, tmp_path):
    readme = (package / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"## Ten lines in Node.js\n\n```js\n(.*?)```", readme, flags=re.DOTALL)
    async with World(tmp_path / "world") as world:
        author = world.author_identity.peer_id
        code = code.replace("ws://127.0.0.1:8765", world.url).replace("AUTHOR", author)
        (installed / "example.mjs").write_text(code + "console.log(node.peerId);\nnode.stop();\n", encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            "node",
            "--preserve-symlinks",
            "example.mjs",
            cwd=installed,
            env=os.environ.copy(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert re.fullmatch(r"[0-9a-f]{64}", out.decode().strip())
