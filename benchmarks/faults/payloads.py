"""Poisoned content for each kind of file: what would run, write, fill the memory or read elsewhere, if a reader let it.

A poison is a function of (content, draw, outside): the sound file's bytes, random numbers, and a path that nothing may write to. It
returns the bytes to put in the sound file's place. Bombs are put together from one packed piece said again and again, so that
making them costs nothing.
"""

import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy

from faults.watching import MARK

Write = Callable[[bytes, Random, Path], bytes]


class Poison(NamedTuple):
    """`write` makes it; `refused` where a sentence has to come, which holds what is `named`.

    `seconds` of CPU time may be taken to its refusal; `costly` ones come once a case.
    """

    name: str
    write: Write
    refused: bool = True
    seconds: float = 1.0
    costly: bool = False
    named: str = ""


def calls(outside: Path) -> list[tuple[str, str, tuple[Any, ...]]]:
    """Functions that an unpickler must not call: module, name, arguments."""
    path, code = str(outside), f"open({str(outside)!r}, 'w').write('{MARK}')"
    return [
        ("os", "system", (f"echo {MARK} > {path}",)),
        ("posix", "system", (f"echo {MARK} > {path}",)),
        ("builtins", "exec", (code,)),
        ("builtins", "eval", (code,)),
        ("builtins", "open", (path, "w")),
        ("subprocess", "Popen", (["touch", path],)),
        ("subprocess", "check_output", (["touch", path],)),
        ("socket", "create_connection", (("127.0.0.1", 9), 1)),
        ("importlib", "import_module", (MARK,)),
        ("runpy", "run_path", (f"{MARK}.py",)),
        ("shutil", "copyfile", (__file__, path)),
        ("os", "mkdir", (path,)),
        ("_pickle", "loads", (_reduce("os", "system", (f"touch {path}",), 2),)),
        ("torch.storage", "_load_from_bytes", (_reduce("os", "system", (f"touch {path}",), 2),)),
        ("torch.serialization", "load", (path,)),
        ("numpy", "load", (path, None, True)),
        ("codecs", "open", (path, "w")),
        ("builtins", "getattr", ("", "__class__")),
        ("operator", "attrgetter", ("system",)),
        (MARK, "Model", ()),
    ]


def evil_pickle(_: bytes, draw: Random, outside: Path) -> bytes:
    """A pickle that calls one of `calls`, in one of the five ways that the opcodes have, bare or deep in a state."""
    module, name, words = draw.choice(calls(outside))
    form = draw.randrange(5)
    if form < 3:
        body = _reduce(module, name, words, (0, 2, 4)[form])[:-1]
    else:
        arguments = b"".join(_bare(word) for word in words)
        body = b"(" + arguments + f"i{module}\n{name}\n".encode()
        if form == 4:
            body = f"(c{module}\n{name}\n".encode() + arguments + b"o"
    if draw.random() < 0.5:
        body = b"}" + _bare("model") + body + b"s"
    return b"\x80\x02" + body + b"."


def _reduce(module: str, name: str, words: tuple[Any, ...], protocol: int) -> bytes:
    found = _bare(module) + _bare(name) + b"\x93" if protocol == 4 else f"c{module}\n{name}\n".encode()
    return found + _bare(words) + b"R."


def _bare(value: Any) -> bytes:
    """The opcodes of a value, without the frame, the protocol and the stop, and without what would collide in the memo."""
    content = io.BytesIO()
    pickler = pickle._Pickler(content, 3)  # pyright: ignore[reportAttributeAccessIssue]  (its fast mode alone leaves out the memo)
    pickler.fast = True
    pickler.dump(value)
    return content.getvalue()[2:-1]


def torch_container(content: bytes, draw: Random, outside: Path) -> bytes:
    """A checkpoint as torch writes it whose pickle is evil."""
    return _rezipped(content, lambda name, data: evil_pickle(data, draw, outside) if name.endswith(".pkl") else data)


def torch_legacy(_: bytes, draw: Random, outside: Path) -> bytes:
    """Torch's format before 1.6: four pickles one after the other."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    return b"".join(pickle.dumps(one, 2) for one in head) + evil_pickle(b"", draw, outside) + pickle.dumps([], 2)


def torch_script(content: bytes, draw: Random, outside: Path) -> bytes:
    """An archive that calls itself TorchScript, with code in it."""
    extra = {
        "archive/constants.pkl": evil_pickle(b"", draw, outside),
        "archive/code/__torch__.py": f"import {MARK}".encode(),
    }
    return _rezipped(content, lambda name, data: data, extra=extra)


def torch_deep(content: bytes, draw: Random, outside: Path) -> bytes:
    """A hundred thousand tuples within each other, or a number of bytes that is not there."""
    body = draw.choice(
        [b"\x80\x02)" + b"\x85" * 100_000 + b".", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.", b"\x80\x02\x8b\xff\xff\xff\x7fx."]
    )  # fmt: skip
    return _rezipped(content, lambda name, data: body if name.endswith(".pkl") else data)


def torch_bomb(content: bytes, draw: Random, outside: Path) -> bytes:
    """A tensor's record that says it holds 4 GiB."""
    return _rezipped(content, lambda name, data: data, lying=draw.choice(["data/0", ".pkl"]))


def npz_objects(_: bytes, draw: Random, outside: Path) -> bytes:
    """Arrays of objects, each a pickle."""
    evil = evil_pickle(b"", draw, outside)
    head = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    names = draw.sample(["x_train.npy", "y_train.npy", "class_names.npy"], 3)
    return _zip({name: head.getvalue() + evil for name in names})


def npz_lies(content: bytes, draw: Random, outside: Path) -> bytes:
    """A header with a shape of terabytes, one that is code, or one of a hundred thousand brackets."""
    shape = draw.choice(
        ["(1000000000000, 8, 8)", f"__import__('{MARK}')", "(" * 90_000, "(-1, 8)", "(1e9,)", "(99999999999999999999,)"]
    )
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text) + 1) + text + b"\n"
    return _rezipped(content, lambda name, data: head + data[128:] if name.startswith("x_train") else data)


def npz_bomb(content: bytes, draw: Random, outside: Path) -> bytes:
    """Zeros, packed a thousand to one: 2 GiB of images in 2 MiB."""
    count = 2 * 1024 * 1024 * 1024 // 64 - 2
    head = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (count, 8, 8)})
    packed = zlib_member(head.getvalue() + b"\0" * 64) + zeros(2048)
    return _zip_of_packed("x_train.npy", packed, size=len(head.getvalue()) + 64 * count)


def zip_names(content: bytes, draw: Random, outside: Path) -> bytes:
    """Members with `..`, with absolute names, twice, or as links; what a reader that unpacks would follow."""
    names = ["../../x_train.npy", str(outside), "x_train.npy", "x_train.npy", "..\\..\\evil.npy", "a/../../b.npy"]
    return _rezipped(
        content, lambda name, data: data, extra=dict.fromkeys(draw.sample(names, 3), MARK.encode()), links=True
    )


def zip_odd(content: bytes, draw: Random, outside: Path) -> bytes:
    """An archive with a password, an unknown packing, a directory that is elsewhere, or none at all."""
    raw = bytearray(content if content[:2] == b"PK" else _zip({"x_train.npy": content}))
    kind = draw.randrange(4)
    if kind == 3:
        return b"PK\x03\x04" + draw.randbytes(draw.randrange(400))
    at = raw.rfind(b"PK\x01\x02")
    place, value = ((8, 1), (10, 99), (42, 0x7FFFFFFF))[kind]
    raw[at + place : at + place + (4 if kind == 2 else 2)] = value.to_bytes(4 if kind == 2 else 2, "little")
    return bytes(raw)


def bare_array(content: bytes, draw: Random, outside: Path) -> bytes:
    """A npy file, sound or of objects, in an archive's place."""
    head = io.BytesIO()
    kind = draw.choice(["|O", "|u1"])
    numpy.lib.format.write_array_header_1_0(head, {"descr": kind, "fortran_order": False, "shape": (4,)})
    return head.getvalue() + (evil_pickle(b"", draw, outside) if kind == "|O" else b"abcd")


def json_classes(content: bytes, draw: Random, outside: Path) -> bytes:
    """Class paths under every name that a loader may look for, beside what is there."""
    path = draw.choice(["os.system", "subprocess.Popen", f"{MARK}.Model", f"{MARK}--{MARK}.Model", "builtins.eval"])
    names = (
        "__class__",
        "_target_",
        "class_path",
        "py/object",
        "py/reduce",
        "__reduce__",
        "_class_name",
        "_type",
        "builder_name",
    )
    more = dict.fromkeys(names, path) | {
        "init_args": [f"touch {outside}"],
        "auto_map": {"AutoModel": path, "AutoConfig": path},
    }
    found = json.loads(content)
    return json.dumps(found | more if isinstance(found, dict) else more).encode()


def json_shapes(content: bytes, draw: Random, outside: Path) -> bytes:
    """Another kind of value at one place, or at the top; of several lines in the first."""
    found = json.loads(content.splitlines()[0] if content.count(b"\n{") else content)
    odd = draw.choice([None, [], {}, [[]], "x", -1, 1e400, 10**40, {"a": [MARK]}, True, "os.system", "../../x", "\x00"])
    if not isinstance(found, dict) or not found or draw.random() < 0.2:
        return json.dumps(odd).encode()
    at = found
    while True:
        name = draw.choice(list(at))
        if isinstance(at[name], dict) and at[name] and draw.random() < 0.8:
            at = at[name]
            continue
        at[name] = odd
        return json.dumps(found).encode() + b"\n"


def json_deep(content: bytes, draw: Random, outside: Path) -> bytes:
    """A hundred thousand lists within each other, or a number of five thousand digits."""
    return draw.choice([b"[" * 100_000, b'{"a":' * 100_000, b'{"model_type": ' + b"9" * 5000 + b"}"]) + b"\n"


def not_text(content: bytes, draw: Random, outside: Path) -> bytes:
    """A pickle where text is expected, bytes that are no UTF-8, or nothing."""
    return draw.choice([evil_pickle(content, draw, outside) + b"\xff\n", draw.randbytes(200), b"\xff\xfe\x00\n"])


def safetensors_lies(content: bytes, draw: Random, outside: Path) -> bytes:
    """A header of exabytes, of other shapes, of tensors that overlap or lie elsewhere."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    name = draw.choice([one for one in header if one != "__metadata__"])
    kind = draw.randrange(7)
    if kind == 0:
        return draw.choice([1 << 60, 1 << 31, len(content)]).to_bytes(8, "little") + content[8:]
    if kind == 1:
        header[name]["shape"] = [10**6, 10**6]
    elif kind == 2:
        header[name]["data_offsets"] = draw.choice([[0, 1 << 50], [-8, 8], [8, 0], [1 << 40, 1 << 40]])
    elif kind == 3:
        header[name]["dtype"] = draw.choice(["os.system", "O", "F99", None])
    elif kind == 4:
        header["__metadata__"] = draw.choice([{"format": {"a": 1}}, [MARK], {"__class__": 5}])
    elif kind == 5:
        return (100_000).to_bytes(8, "little") + b"[" * 100_000
    else:
        header["more"] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def text_links(content: bytes, draw: Random, outside: Path) -> bytes:
    """A list whose names lead elsewhere."""
    return b"".join(f"{name} 0\n".encode() for name in ("../../../etc/passwd", "/dev/stdin", "/dev/zero", str(outside)))


def tar_names(content: bytes, draw: Random, outside: Path) -> bytes:
    """Members with `..`, absolute names, links and devices: one of the sound members goes, and comes back as such."""
    found = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as sound, tarfile.open(fileobj=found, mode="w") as tar:
        members = [member for member in sound if member.isreg()]
        lost = draw.choice(members)
        for member in members:
            if member is not lost:
                tar.addfile(member, sound.extractfile(member))
        odd = tarfile.TarInfo(draw.choice(["../../" + lost.name, "/" + lost.name, lost.name, str(outside)]))
        odd.type = draw.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
        odd.linkname = draw.choice(["/etc/passwd", "../../../../etc/passwd", str(outside)])
        tar.addfile(odd)
    return found.getvalue()


def tar_lies(content: bytes, draw: Random, outside: Path) -> bytes:
    """A member's size of exabytes or below zero, a sparse one, a header that is none, or the whole packed."""
    raw = bytearray(content)
    kind = draw.randrange(4)
    if kind == 0:
        return zlib_member(bytes(raw))
    if kind == 1:
        return bytes(raw[: draw.randrange(1, len(raw) - 1024)])
    sizes = (b"77777777777\0", b"\x80\0\0\0\x7f" + b"\xff" * 7, b"\xff" * 12, b"00000100000\0")
    raw[124:136] = draw.choice(sizes)
    if kind == 3:
        raw[156:157] = b"S"
    raw[148:156] = b" " * 8
    raw[148:156] = f"{sum(raw[:512]):06o}\0 ".encode()
    return bytes(raw)


def zeros(mebibytes: int, letter: bytes = b"\0") -> bytes:
    """Raw deflate of so many MiB of one letter, without an end before the last piece."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(letter * 2**20) + packer.flush(zlib.Z_FULL_FLUSH)
    return piece * mebibytes + b"\x03\x00"


def zlib_member(content: bytes) -> bytes:
    """Raw deflate of some bytes, to be gone on with."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH)


def gzip_bomb(content: bytes, draw: Random, outside: Path) -> bytes:
    """What is there, and then 1.5 GiB of letters."""
    return (
        b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
        + zlib_member(content)
        + zeros(1536, draw.choice([b"A", b"N", b"\n", b"\0"]))
        + b"\0" * 8
    )


def _zip(files: dict[str, bytes]) -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return found.getvalue()


def _rezipped(
    content: bytes,
    change: Callable[[str, bytes], bytes],
    *,
    extra: dict[str, bytes] | None = None,
    links: bool = False,
    lying: str | None = None,
) -> bytes:
    """The archive with each member changed, others added, and the size of some member a lie."""
    found = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as sound, zipfile.ZipFile(found, "w") as archive:
        for name in sound.namelist():
            archive.writestr(name, change(name, sound.read(name)))
        for name, data in (extra or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if links else 0o644) << 16
            archive.writestr(info, data)
    raw = bytearray(found.getvalue())
    if lying is not None:
        name = next(name for name in zipfile.ZipFile(io.BytesIO(raw)).namelist() if name.endswith(lying))
        at = raw.rfind(name.encode()) - 46  # of its entry in the directory
        raw[at + 24 : at + 28] = (0xF0000000).to_bytes(4, "little")
    return bytes(raw)


def _zip_of_packed(name: str, packed: bytes, *, size: int) -> bytes:
    """An archive of one member that is packed already; its checksum is wrong, which is seen at its end alone."""
    title = name.encode()
    fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0, 0, len(packed), size, len(title), 0)
    local = b"PK\x03\x04" + fields + title
    entry = b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0) + title
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(local) + len(packed), 0)
    return local + packed + entry + end


PICKLES = (Poison("a bare pickle", evil_pickle),)
TORCH = (
    *PICKLES,
    Poison("a pickle in torch's container", torch_container),
    Poison("a pickle in torch's old format", torch_legacy),
    Poison("TorchScript", torch_script),
    Poison("deep or endless pickle", torch_deep),
    Poison("a record of 4 GiB", torch_bomb),
)
NPZ = (
    *PICKLES,
    Poison("arrays of objects", npz_objects),
    Poison("headers that lie", npz_lies),
    Poison("a bomb of zeros", npz_bomb, costly=True),
    Poison("names with .. and links", zip_names, refused=False),
    Poison("a zip that is odd", zip_odd),
    Poison("an array in the archive's place", bare_array),
)
JSON = (
    Poison("class paths", json_classes, refused=False),
    Poison("other kinds of values", json_shapes, refused=False),
    Poison("deep or endless JSON", json_deep),
    Poison("no text", not_text),
)
LINES = (
    Poison("no text", not_text),
    Poison("lines of JSON too deep", json_deep),
    Poison("lines of another kind", json_shapes, refused=False),
)
SAFETENSORS = (*PICKLES, Poison("a header that lies", safetensors_lies, refused=False))
TAR = (
    *PICKLES,
    Poison("names with .., links, devices", tar_names),
    Poison("members that lie", tar_lies, refused=False),
)
PACKED = (Poison("a gzip bomb", gzip_bomb, seconds=10.0, costly=True), Poison("a pickle", evil_pickle))
LIST = (Poison("no text", not_text), Poison("names that lead elsewhere", text_links))
UNCHANGED = (Poison("links", lambda content, draw, outside: content, refused=False),)
