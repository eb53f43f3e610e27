"""What documents name is there: files, tests, modules, links, and the options of the command line."""

import re
import subprocess
from pathlib import Path

import pytest
import typer

from cli.main import app
from python_node.policy import Policy
from signaling import IceServers, Limits

ROOT = Path(__file__).parents[2]
if not (ROOT / ".git").exists():
    pytest.skip("what is tracked is known in a checkout alone", allow_module_level=True)
TRACKED = {
    Path(name)
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()
}  # fmt: skip
FOLDERS = {folder for path in TRACKED for folder in path.parents}
DOCUMENTS = sorted(path for path in TRACKED if path.suffix == ".md")
SOURCES = {
    path: (ROOT / path).read_text(encoding="utf-8")
    for path in TRACKED
    if path.suffix in {".py", ".ts", ".mjs"} and path.parts[0] in {"tests", "spec", "mobile_stubs"}
}
TESTS = {
    name
    for path, source in SOURCES.items()
    for name in re.findall(r"^\s*(?:async )?def (test_\w+)", source, re.MULTILINE)
    if path.suffix == ".py"
}
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`([^`\n]+)`")
IN_REPOSITORY = re.compile(r"[\w.*-]+(?:/[\w.*-]+)+/?")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
OURS = {path.parts[0] for path in TRACKED if len(path.parts) > 1}


def prose(document: Path) -> str:
    """The text without fenced code."""
    return FENCE.sub("", (ROOT / document).read_text(encoding="utf-8"))


def quoted(document: Path) -> list[str]:
    return QUOTED.findall(prose(document))


def anchors(document: Path) -> set[str]:
    """What GitHub makes of headings."""
    titles = re.findall(r"^#+ (.+)$", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def is_there(name: str, document: Path) -> bool:
    """Whether a path, or a pattern of paths, is tracked: from the root, or beside the document."""
    bare = name.rstrip("/")
    for base in (Path(), *document.parents):
        path = base / bare
        if path in TRACKED or path in FOLDERS or any(known.match(str(path)) for known in TRACKED if "*" in bare):
            return True
    return subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False).returncode == 0  # it is built


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_files_that_are_named_exist(document):
    named = {word for word in quoted(document) if IN_REPOSITORY.fullmatch(word) and word.split("/")[0] in OURS}
    assert not [name for name in sorted(named) if not is_there(name, document)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_tests_that_are_named_exist(document):
    named = {re.sub(r"\[.*", "", word) for word in quoted(document) if re.fullmatch(r"test_\w+(\[.*\])?", word)}
    assert not sorted(named - TESTS)


def test_the_tests_of_security_md_stand_in_the_files_it_names():
    text = prose(Path("SECURITY.md"))
    attacks = [str(path) for path in SOURCES if path.is_relative_to("tests/round/attacks")]
    cells = [line.split("|")[3] for line in text.splitlines() if line.startswith("| ") and line.count("|") == 4]
    checked = 0
    for cell in cells:
        for part in cell.split(";"):
            files = re.findall(r"`([\w/.-]+\.(?:py|ts))`", part) or (attacks if "attacks" in part else [])
            for name in re.findall(r"`(test_\w+)`", part):
                assert any(f"def {name}(" in SOURCES.get(Path(file), "") for file in files), (name, files)
                checked += 1
    assert checked > 30


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document):
    for target in LINK.findall(prose(document)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        path = document if not file else Path(*_walked(document.parent / file))
        assert path in TRACKED or path in FOLDERS, target
        if anchor:
            assert anchor in anchors(path), target


def _walked(path: Path) -> list[str]:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return parts


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_modules_that_are_to_be_run_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for module in re.findall(r"python -m ([\w.]+)", text):
        path = Path(*module.split("."))
        first = module.split(".", maxsplit=1)[0]
        ours = first in OURS
        assert not ours or path.with_suffix(".py") in TRACKED or path / "__main__.py" in TRACKED, module


def commands() -> dict[str, set[str]]:
    """Options by command, as the program has them; every command's --help and --json apart."""
    found = {}
    group = typer.main.get_command(app)

    def walk(command, words):
        inner = getattr(command, "commands", None)
        if inner is not None:
            for name, child in inner.items():
                walk(child, [*words, name])
            return
        options = {word for param in command.params for word in [*param.opts, *param.secondary_opts]}
        found[" ".join(words)] = {option for option in options if option.startswith("--")} - {"--help", "--json"}

    walk(group, [])
    return found


def test_the_page_of_the_command_line_names_no_option_that_is_not_there():
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## ([\w ]+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    every = {option for options in commands().values() for option in options}
    for command in commands():
        section = sections[command.split()[0]]
        said = set(re.findall(r"--[a-z][\w-]*", section))
        assert not said - every - {"--json", "--help", "--debug"}, (command, said - every)


def test_the_table_of_the_policy_has_every_key_and_its_default():
    text = (ROOT / "docs/owners.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", text, re.MULTILINE))
    said = rows | dict(re.findall(r"`(\w+)` \(default\s+`(\w+)`\)", text))
    policy, names = Policy(), set(Policy.__struct_fields__)
    assert names - {"known_peers"} == set(said) & names
    assert "known_peers" in text
    for name, words in said.items():
        default = getattr(policy, name, None)
        if isinstance(default, bool):
            assert words == str(default).lower(), name
        elif isinstance(default, int):
            number, _, unit = words.replace(",", "").strip().partition(" ")
            assert int(number) * {"": 1, "GiB": 1 << 30}[unit] == default, name


@pytest.mark.parametrize(
    ("document", "number"),
    [
        ("docs/operating.md", f"{Limits().connections:,} connections"),
        ("docs/operating.md", f"({Limits().connections_per_address:,} per address)"),
        ("docs/cli.md", f": {IceServers().turn_lifetime_s}, from 600 to 604800"),
    ],
)
def test_numbers_in_documents_are_those_of_the_code(document, number):
    assert number in (ROOT / document).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_command_lines_in_documents_have_their_commands_and_options(document):
    known = commands()
    text = (ROOT / document).read_text(encoding="utf-8")
    # in a block, or between backticks, where a line may break; comments and pipes end a command
    shown = re.findall(r"^ {4,}peerplan (.+)$", text, re.MULTILINE) + re.findall(r"`peerplan ([^`]+)`", text)
    for line in shown:
        words = re.split(r"\s[#&|]", line)[0].split()
        command = next(
            (known_one for known_one in known if words[: len(known_one.split())] == known_one.split()), None
        )
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        if command is None:
            assert words[0] in {"--help", "--version", "COMMAND", "plan"}, line
            continue
        assert given <= known[command] | {"--json", "--help", "--debug"}, line
