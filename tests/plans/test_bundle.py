import zipfile
from contextlib import nullcontext

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import plans
from plans.errors import BundleError, PlanError
from protocol.envelope import RUN_TYPE, seal_envelope
from protocol.errors import ManifestError, ProtocolError, SignatureError
from protocol.identity import Identity


@pytest.mark.parametrize("name", ["bundle", "bundle.plan"])
def test_a_saved_plan_is_loaded_as_it_was(plan, signed, tmp_path, name):
    plain = plans.load(plan.save(tmp_path / name))
    assert type(plain) is plans.Plan
    assert plain == plan
    again = plans.load(signed.save(tmp_path / f"signed-{name}"))
    assert isinstance(again, plans.SignedPlan)
    assert (again.envelope, again.author, again.blobs) == (signed.envelope, signed.author, signed.blobs)
    assert again.digest == plan.digest


def test_the_same_plan_gives_the_same_file(signed, tmp_path):
    first, second = signed.save(tmp_path / "a.plan"), signed.save(tmp_path / "b.plan")
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.plan", "b.plan"]


def test_a_directory_in_use_is_not_overwritten(plan, tmp_path):
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(BundleError, match="exists already"):
        plan.save(tmp_path)


def test_a_changed_blob_is_refused(signed, tmp_path):
    directory = signed.save(tmp_path / "bundle")
    blob = next((directory / "blobs").iterdir())
    data = bytearray(blob.read_bytes())
    data[0] ^= 1
    blob.write_bytes(data)
    with pytest.raises(BundleError, match="other bytes than it names"):
        plans.load(directory)


def test_a_missing_blob_is_refused(signed, tmp_path):
    directory = signed.save(tmp_path / "bundle")
    next((directory / "blobs").iterdir()).unlink()
    with pytest.raises(BundleError, match="is missing"):
        plans.load(directory)


def test_a_blob_nobody_listed_is_refused(plan):
    with pytest.raises(BundleError, match="is not in the manifest"):
        plans.Plan.from_bytes(plan.manifest_bytes, {**plan.blobs, "0" * 64: b"more"})


def test_a_tampered_manifest_is_refused(signed, tmp_path):
    directory = signed.save(tmp_path / "bundle")
    envelope = directory / "envelope.json"
    text = envelope.read_text()
    at = text.index('"payload":"') + 60
    envelope.write_text(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])
    with pytest.raises(SignatureError):
        plans.load(directory)


def test_an_envelope_for_something_else_is_refused(plan, identity):
    with pytest.raises(SignatureError, match="payload type"):
        plans.open_signed(seal_envelope(identity, RUN_TYPE, plan.manifest_bytes), plan.blobs)


def test_a_plan_by_somebody_else_is_refused(signed, identity):
    stranger = Identity(bytes(32)).peer_id
    assert plans.verify(signed, authors=[identity.peer_id, stranger]).digest == signed.digest
    with pytest.raises(SignatureError, match="is not accepted"):
        plans.verify(signed, authors=[stranger])


def test_an_unsigned_plan_is_not_verified(plan, tmp_path):
    with pytest.raises(SignatureError, match="nobody signed"):
        plans.verify(plan)
    with pytest.raises(SignatureError, match="nobody signed"):
        plans.verify(plan.save(tmp_path / "a.plan"))


def test_a_plan_object_that_shows_another_manifest_than_was_signed_is_refused(signed, plan, identity):
    other = plans.Plan.from_bytes(plan.manifest_bytes.replace(b'"small"', b'"other"'), plan.blobs)
    mixed = plans.SignedPlan(other.manifest, other.manifest_bytes, other.blobs, signed.envelope, signed.author)
    with pytest.raises(PlanError, match="not the one shown"):
        plans.verify(mixed)


def rewritten(source, target, change):
    """The archive with its list of (name, bytes, compression) changed."""
    with zipfile.ZipFile(source) as archive:
        entries = [(info.filename, archive.read(info), zipfile.ZIP_STORED) for info in archive.infolist()]
    expected = pytest.warns(UserWarning, match="Duplicate name") if change is doubled else nullcontext()
    with expected, zipfile.ZipFile(target, "w") as archive:
        for name, data, how in change(entries):
            archive.writestr(name, data, how)
    return target


def doubled(entries):
    return [*entries, entries[-1]]


ATTACKS = {
    "entry twice": (doubled, "there twice"),
    "path upwards": (lambda e: [*e, ("../../evil", b"x", 0)], "unexpected entry"),
    "absolute path": (lambda e: [*e, ("/etc/evil", b"x", 0)], "unexpected entry"),
    "path inside blobs": (lambda e: [*e, ("blobs/../envelope.json", b"x", 0)], "unexpected entry"),
    "upper-case digest": (lambda e: [*e, ("blobs/" + "A" * 64, b"x", 0)], "unexpected entry"),
    "directory": (lambda e: [*e, ("blobs/", b"", 0)], "unexpected entry"),
    "unknown entry": (lambda e: [*e, ("readme", b"x", 0)], "unexpected entry"),
    "both heads": (lambda e: [*e, ("manifest.json", b"{}", 0)], "envelope.json and manifest.json"),
    "no head": (lambda e: [entry for entry in e if entry[0] != "envelope.json"], "got neither"),
    "compressed": (lambda e: [(n, d, zipfile.ZIP_DEFLATED) for n, d, _ in e], "is compressed"),
    "bomb": (lambda e: [*e, ("blobs/" + "0" * 64, bytes(50 << 20), zipfile.ZIP_DEFLATED)], "is compressed"),
    "huge head": (
        lambda e: [("envelope.json", bytes(5 << 20), 0), *(x for x in e if x[0] != "envelope.json")],
        "at most 4194304",
    ),
    "many entries": (lambda e: [*e, *((f"blobs/{at:064x}", b"", 0) for at in range(300))], "more than 256 blobs"),
}


@pytest.mark.parametrize(("change", "message"), ATTACKS.values(), ids=ATTACKS)
def test_a_hostile_archive_is_refused(signed, tmp_path, change, message):
    good = signed.save(tmp_path / "good.plan")
    with pytest.raises(BundleError, match=message):
        plans.load(rewritten(good, tmp_path / "bad.plan", change))


def test_a_link_in_a_directory_is_refused(signed, tmp_path):
    directory = signed.save(tmp_path / "bundle")
    (tmp_path / "secret").write_text("secret")
    (directory / "blobs" / ("0" * 64)).symlink_to(tmp_path / "secret")
    with pytest.raises(BundleError, match="is a link"):
        plans.load(directory)


def test_nothing_and_a_text_file_are_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="no bundle there"):
        plans.load(tmp_path / "absent.plan")
    (tmp_path / "note.plan").write_text("hello")
    with pytest.raises(BundleError, match=r"not a readable \.plan file"):
        plans.load(tmp_path / "note.plan")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
def test_a_damaged_file_is_read_as_it_was_or_refused_by_name(signed, tmp_path, changes):
    data = bytearray(signed.save(tmp_path / "good.plan").read_bytes())
    for place, change in changes:
        data[int(place * len(data))] ^= change
    damaged = tmp_path / "damaged.plan"
    damaged.write_bytes(data)
    try:
        found = plans.load(damaged)
    except (PlanError, ProtocolError):
        return
    assert found.digest == signed.digest
    assert found.blobs == signed.blobs


def test_a_plan_without_a_function_says_which_it_has(plan):
    with pytest.raises(BundleError, match="no function 'query', only train, evaluate, predict"):
        plan.graph("query")


def test_a_manifest_whose_vectors_contradict_it_is_refused(plan):
    worse = plan.manifest_bytes.replace(b'"parameter_count":83', b'"parameter_count":84')
    with pytest.raises(ManifestError):
        plans.Plan.from_bytes(worse, plan.blobs)
