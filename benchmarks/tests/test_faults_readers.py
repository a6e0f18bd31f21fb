"""Rows 4 and 5's own eyes: what the audit hook takes for harm, the twins against what is written by hand, and faults planted and seen."""

import gzip
import os
import pickle
import subprocess
import zlib
from functools import partial
from pathlib import Path
from random import Random

import pytest

from faults import fuzzing, twins
from faults.judging import Refused, judged, outcome
from faults.payloads import MARK, calls, evil_pickle, npz_bomb
from faults.pictures import png
from faults.places import readers
from faults.rows import fuzzed, poisoned
from faults.watching import Attempt, Watch, faults_of, faults_of_one
from scarce_common_utils.errors import UserError


@pytest.fixture(scope="module")
def watch(tmp_path_factory):
    """One hook for all tests here, since none can be taken out; it sees nothing while it is off."""
    return Watch(tmp_path_factory.mktemp("watched"))


def harm(watch, act):
    watch.events.clear()
    watch.on = True
    try:
        act()
    finally:
        watch.on = False
    return " ".join(watch.events)


def test_the_hook_sees_what_is_harm(watch, tmp_path):
    inside, outside = Path(watch.folder) / "file", tmp_path / "outside"
    code = compile("x = 1", str(inside), "exec")
    assert "pickle.find_class" in harm(watch, lambda: pickle.loads(b"cos\ngetcwd\n."))
    assert "subprocess.Popen" in harm(watch, lambda: subprocess.run(["true"], check=True))
    assert "os.system" in harm(watch, lambda: os.system("true"))
    assert f"open of {outside}" in harm(watch, lambda: outside.write_text("x"))
    assert f"os.rename of {outside}" in harm(watch, lambda: outside.rename(tmp_path / "other"))
    assert "exec of" in harm(watch, lambda: exec(code))
    assert "exec of" in harm(watch, lambda: exec(f"'{MARK}'"))
    link = Path(watch.folder) / "link"
    link.symlink_to(outside)
    assert f"open of {link}" in harm(watch, lambda: link.write_text("x"))


def test_the_hook_passes_what_is_none(watch):
    inside = Path(watch.folder) / "file"
    assert harm(watch, lambda: inside.write_text("x")) == ""
    assert harm(watch, lambda: inside.rename(inside.with_name("other"))) == ""
    assert harm(watch, lambda: Path(__file__).read_text()) == ""
    assert harm(watch, lambda: exec("x = 1")) == ""


def spend(seconds):
    import time

    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def refuse(sentence):
    raise UserError(sentence)


@pytest.mark.parametrize(
    ("attempt", "fault"),
    [
        (Attempt("a", lambda: None), None),
        (Attempt("a", lambda: None, refused=True), "a: was read in silence"),
        (Attempt("a", lambda: ["wrong"]), "a: wrong"),
        (Attempt("a", lambda: {}["x"]), "a: KeyError: 'x'"),
        (Attempt("a", lambda: refuse("b.fa is none"), refused=True, named="b.fa"), None),
        (Attempt("a", lambda: refuse("it is none"), named="b.fa"), "a: the sentence does not name b.fa: it is none"),
        (Attempt("a", lambda: spend(0.05), seconds=0.01), "CPU seconds"),
    ],
)
def test_each_fault_of_an_attempt_is_told(attempt, fault):
    found = faults_of_one(attempt, None)
    assert (found == []) if fault is None else (len(found) == 1 and fault in found[0])


def dying(folder):
    yield Attempt("the first", lambda: ["seen"])
    yield Attempt("the second", lambda: os._exit(3))


def test_a_child_that_dies_is_a_fault_with_its_place(tmp_path):
    found = faults_of(dying, folder=tmp_path / "child", hook=True)
    assert found[0] == "the first: seen"
    assert "the second" in found[1]
    assert "ended with 3" in found[1]


def test_every_payload_would_run():
    """None is a pickle that no unpickler could read: each asks for its function."""

    class Asked(Exception):
        pass

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            raise Asked(f"{module}.{name}")

    import io

    wanted = {f"{module}.{name}" for module, name, _ in calls(Path("x"))}
    seen = set()
    for seed in range(200):
        with pytest.raises(Asked) as asked:
            Reader(io.BytesIO(evil_pickle(b"", Random(seed), Path("x")))).load()
        seen.add(str(asked.value))
    assert seen == wanted


def attempts(package, name, folder, *, seed=0):
    place = next(number for number, reader in enumerate(readers(package)) if reader.name == name)
    return poisoned.poisoned(folder, package=package, place=place, whole=None, seed=seed)


def test_poisoned_archives_are_all_refused_and_a_reader_that_unpickles_is_seen(tmp_path, monkeypatch, watch):
    (tmp_path / "a").mkdir()
    assert [
        fault for attempt in attempts("imwa", "npz", tmp_path / "a") for fault in faults_of_one(attempt, watch)
    ] == []
    import numpy

    plain = numpy.load
    monkeypatch.setattr(numpy, "load", lambda path, allow_pickle: plain(path, allow_pickle=True))
    (tmp_path / "b").mkdir()
    found = [fault for attempt in attempts("imwa", "npz", tmp_path / "b") for fault in faults_of_one(attempt, watch)]
    assert any("pickle.find_class" in fault for fault in found)


def test_a_bomb_of_zeros_is_one():
    assert len(npz_bomb(b"", Random(0), Path("x"))) < 4 * 2**20


def test_the_twins_read_what_is_written_by_hand():
    assert twins.fasta(b">a x\nAC\nuN\n\n>b\n>c\nR\n") == [("a", "ACTN"), ("c", "N")]
    assert twins.fasta(b">a\nAC\nA-C\n") == twins.Bad(3)
    assert twins.fasta(b"") == twins.Bad(0)
    assert twins.table(b'label,sequence\r\n"1","ac"\r\n\r\n2,"G"\r\n') == [("AC", "1"), ("G", "2")]
    assert twins.table(b'sequence,label\nAC,"x\ny"\nZ,1\n') == twins.Bad(4)
    assert twins.table(b"sequence,label\nAC,1,2\n") == twins.Bad(2)
    text = b">a\nACGT\n" * 9
    members = gzip.compress(text[:9]) + gzip.compress(text[9:]) + bytes(4)
    for whole in (gzip.compress(text), members, b"".join(fuzzing.block_gzip(text, size=7))):
        assert twins.gunzipped(whole) == text
        assert gzip.decompress(whole) == text
        for length in range(2, len(whole) - 4):
            if length != len(gzip.compress(text[:9])):  # the end of a member, which nothing tells from a file's
                assert twins.gunzipped(whole[:length]) == twins.Bad(), length


@pytest.mark.parametrize("seed", range(12))
def test_the_twin_of_pictures_reads_as_pillow_does(tmp_path, seed):
    import io

    import numpy
    from PIL import Image

    _, raw = fuzzing.small_picture(Random(seed))
    found = twins.picture(raw)
    own = numpy.frombuffer(found.rows, numpy.uint8).reshape(found.height, found.width, found.channels).squeeze()
    assert (own == numpy.asarray(Image.open(io.BytesIO(raw))).squeeze()).all()
    assert twins.picture(raw[: -1 if raw.startswith(b"P") else -4]) == twins.Bad()
    assert twins.picture(png(1, 1, data=zlib.compress(b"\x09abc"))) == twins.Bad()


def test_what_is_judged():
    path, sound, bad = Path("a.fa"), [("a", "AC")], twins.Bad(3)
    assert judged(sound, sound, path, line=True) == []
    assert "the twin says" in judged([], sound, path, line=True)[0]
    assert "was refused" in judged(Refused("a.fa, line 3: no"), sound, path, line=True)[0]
    assert "what the twin refuses (line 3) was read" in judged(sound, bad, path, line=True)[0]
    assert judged(Refused("a.fa, line 3: no"), bad, path, line=True) == []
    assert "the twin refuses line 3" in judged(Refused("a.fa, line 2: no"), bad, path, line=True)[0]
    assert "several lines" in judged(Refused("a.fa, line 3: no\nnot"), bad, path, line=True)[0]
    assert "not named" in judged(Refused("line 3: no"), twins.Bad(), path, line=True)[0]


def fuzz(package, folder, files=150):
    tried = list(fuzzed.fuzzed(folder, package=package, seed=3, files=0))
    assert len(tried) == 1
    found = fuzzed.fuzzed(folder, package=package, seed=3, files=files)
    return [fault for attempt in found for fault in faults_of_one(attempt, None)]


def test_fuzzed_dna_is_read_right_and_planted_faults_are_seen(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    assert fuzz("randommask", tmp_path / "a") == []
    # Planted: block gzip's end is not looked for; what is behind a bad letter is dropped.
    from randommask.data import tables
    from randommask.genome import fasta

    with monkeypatch.context() as planted:
        planted.setattr(fasta, "lacks_end", lambda head, tail: False)
        planted.setattr(tables, "lacks_end", lambda head, tail: False)
        attempt = next(one for one in fuzzed.fuzzed(tmp_path, package="randommask", seed=3, files=1))
        assert attempt.name == "the first of all"
        path = tmp_path / "cut.gz"
        path.write_bytes(b"".join(fuzzing.block_gzip(b">one\nACGTACGT\n>two\nGATTACA\n", size=9)[:-1]))
        assert "cut, it was read as 2" in fuzzed.check_fasta_cut(path, refused=True)[0]
    with monkeypatch.context() as planted:
        planted.setattr(fasta, "FOREIGN", 99)
        path.write_bytes(raw := b">one\nAC-GT\n")
        assert "what the twin refuses (line 2) was read" in fuzzed.check_fasta(path, raw, 1 << 24)[0]


def test_fuzzed_images_are_read_right_and_a_planted_fault_is_seen(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    assert fuzz("imwa", tmp_path / "a", files=60) == []
    from scarce_common_utils import image_reading

    plain = image_reading.fit
    monkeypatch.setattr(image_reading, "fit", lambda array, *, shape: plain(array[::-1], shape=shape))
    path = tmp_path / "b"
    expected = {}
    for number in range(4):
        file = path / "ab"[number % 2] / f"{number}.ppm"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(raw := b"P6 2 2 255\n" + bytes(range(number, number + 12)))
        expected[str(file)] = ("ab"[number % 2], raw, raw)
    from faults.fuzzed_images import check_images

    assert any("has other pixels" in fault for fault in check_images(path, expected, on_disk=False))


def test_an_error_that_is_none_of_ours_is_not_an_outcome():
    assert outcome(lambda: 5) == 5
    assert outcome(partial(refuse, "no")).sentence == "no"
    with pytest.raises(KeyError):
        outcome(lambda: {}["x"])
