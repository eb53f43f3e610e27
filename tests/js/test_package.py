"""What `npm pack` gives is enough to run the README's example; the lockfile names no host."""

import asyncio
import gzip
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from examples.digits import build_plan
from spec import generate_schemas
from tests.e2e.world import World

SCHEMAS = Path(generate_schemas.__file__).parent / "schemas"


def test_the_lockfile_names_no_host_but_every_digest_and_there_are_three_dependencies(package):
    lock = json.loads((package / "package-lock.json").read_text(encoding="utf-8"))
    locked = {name: entry for name, entry in lock["packages"].items() if name}
    assert [name for name, entry in locked.items() if "resolved" in entry] == []
    assert [name for name, entry in locked.items() if not entry.get("integrity", "").startswith("sha512-")] == []
    manifest = json.loads((package / "package.json").read_text(encoding="utf-8"))
    assert sorted(manifest["dependencies"]) == ["node-datachannel", "onnxruntime-web", "ws"]


def test_the_bundle_of_a_page_is_at_most_60_kb_gzipped(package):
    bundle = (package / "dist" / "bundle" / "peerplan.js").read_bytes()
    assert len(gzip.compress(bundle, 9)) <= 60_000


def test_no_name_that_leaves_the_bundle_is_shortened_in_it(package):
    script = "import { internalNames } from './internal-names.mjs'; console.log(JSON.stringify(internalNames()))"
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script], cwd=package, capture_output=True, text=True, check=True
    )
    names = set(json.loads(done.stdout))
    assert {"ownIndex", "keepCommit", "maskPublics"} <= names
    schemas = "".join(path.read_text(encoding="utf-8") for path in SCHEMAS.rglob("*.json"))
    assert {name for name in names if f'"{name}"' in schemas} == set()
    public = "".join(path.read_text(encoding="utf-8") for path in (package / "dist").rglob("*.d.ts"))
    for kept in ("modelDigest", "heldOut", "minCohort", "iceServers", "peerId", "bytesSent", "leastBattery"):
        assert kept in public
        assert kept not in names
    bundle = (package / "dist" / "bundle" / "peerplan.js").read_text(encoding="utf-8")
    assert "keepCommit" not in bundle
    assert "modelDigest" in bundle


@pytest.fixture
def installed(package, tmp_path):
    """An otherwise empty folder into which npm installed the packed package, as somebody would who uses it."""
    subprocess.run(
        ["npm", "pack", "--ignore-scripts", "--pack-destination", str(tmp_path)],
        cwd=package,
        capture_output=True,
        check=True,
    )
    (archive,) = tmp_path.glob("peerplan-*.tgz")
    app = tmp_path / "app"
    app.mkdir()
    done = subprocess.run(
        ["npm", "install", "--prefer-offline", "--no-audit", "--no-fund", str(archive)],
        cwd=app,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 and re.search(r"EAI_AGAIN|ENOTFOUND|ECONNREFUSED|ETIMEDOUT", done.stderr):
        if os.environ.get("CI"):
            pytest.fail(f"no npm registry within reach: {done.stderr[-500:]}")
        pytest.skip("needs an npm registry within reach")
    assert done.returncode == 0, done.stderr
    return app


async def test_the_example_of_the_readme_takes_part_in_a_run_once_the_package_is_installed(
    package, installed, tmp_path
):
    readme = (package / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"## Ten lines in Node.js\n\n```js\n(.*?)```", readme, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    async with World(tmp_path / "world") as world:
        author = world.author_identity.peer_id
        code = code.replace("ws://127.0.0.1:8080", world.url).replace("AUTHOR", author)
        (installed / "example.mjs").write_text(code, encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            "node", "example.mjs", cwd=installed, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            hosts = await world.nodes(2)
            run = await world.publish(await world.author(), build_plan(), rounds=2, cohort_size=3)
            async with asyncio.timeout(60):
                lines = [(await process.stdout.readline()).decode() for _ in range(2)]
        finally:
            process.kill()
            errors = (await process.stderr.read()).decode()
            await process.wait()
        assert errors == ""
        for number, line in enumerate(lines, start=1):
            assert re.fullmatch(rf"{number} {{ loss: [0-9.e-]+, accuracy: [0-9.e-]+ }}\n", line)
            done = await hosts[0].diary.until("round_completed", round=number)
            assert done.fields["run"] == run.run
            assert done.fields["survivors"] == 3
