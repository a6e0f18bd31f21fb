"""Means of safetensors files: the values, the file itself, memory, ties, and everything that is refused."""

import json
import math
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file, save_model

from imwa import average_files, average_state_dicts
from imwa.block_mean import BLOCK_BYTES
from imwa.files import DTYPES
from reference.mean import slow_mean
from scarce_common_utils.errors import UserError


def states(count, *, seed=0):
    draw = torch.Generator().manual_seed(seed)
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64)
    made = []
    for index in range(count):
        state = {str(kind): torch.randn(5, 3, generator=draw, dtype=torch.float64).to(kind) for kind in kinds}
        state["long"] = torch.randn(BLOCK_BYTES // 4 + 7, generator=draw)
        state["scalar"], state["empty"] = torch.randn((), generator=draw), torch.zeros(0, 4)
        state["norm.num_batches_tracked"] = torch.tensor(10 + index % 2)
        state["mask"], state["frozen"] = (
            torch.tensor([True, False, True]),
            torch.linspace(0.1, 7, 500),
        )  # (x + x + x) / 3 is not always x
        made.append(state)
    return made


def saved(folder, made, **more):
    paths = []
    for index, state in enumerate(made):
        paths.append(folder / f"{index}.safetensors")
        save_file(state, paths[-1], **more)
    return paths


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_bits_are_those_of_state_dicts(tmp_path, count):
    made = states(count)
    paths = saved(tmp_path, made, metadata={"format": "pt", "note": "ä"})
    before = [path.read_bytes() for path in paths]
    result = average_files(paths, tmp_path / "mean.safetensors")
    assert (result.output, result.tensors, result.tied) == (tmp_path / "mean.safetensors", len(made[0]), {})
    mean, expected = load_file(result.output), average_state_dicts(made)
    assert mean.keys() == expected.keys()
    for name, value in expected.items():
        assert mean[name].dtype == value.dtype
        assert mean[name].shape == value.shape
        if value.is_complex():
            assert torch.allclose(mean[name], value)
        else:
            assert torch.equal(mean[name], value), name
    assert torch.equal(mean["frozen"], made[0]["frozen"])
    assert mean["norm.num_batches_tracked"].item() == (10 if count == 1 else 11)
    with safe_open(result.output, "pt") as file:
        assert file.metadata() == {"format": "pt", "note": "ä"}
    assert [path.read_bytes() for path in paths] == before
    assert not (tmp_path / "mean.safetensors.part").exists()


def test_against_the_slow_twin_and_the_layout_of_the_first(tmp_path):
    made = [{"a": torch.randn(3, 2), "b": torch.randn(7)} for _ in range(3)]
    paths = saved(tmp_path, made)
    # The same tensors in another order on disk.
    content = made[1]["b"].numpy().tobytes() + made[1]["a"].numpy().tobytes()
    header = {"b": ("F32", [7], [0, 28]), "a": ("F32", [3, 2], [28, 52])}
    write_by_hand(paths[1], header, content)
    mean = load_file(average_files(paths, tmp_path / "mean.safetensors").output)
    for name in ("a", "b"):
        expected = slow_mean([state[name] for state in made])
        assert (mean[name].double() - expected).abs().max() < 1e-6


def write_by_hand(path, header, content):
    entries = {
        name: dict(zip(("dtype", "shape", "data_offsets"), entry, strict=True)) for name, entry in header.items()
    }
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


def test_data_that_are_not_aligned(tmp_path):
    values = [torch.randn(9), torch.randn(9)]
    for index, value in enumerate(values):
        content = b"\x01" + value.numpy().tobytes()
        write_by_hand(
            tmp_path / f"{index}.safetensors", {"b": ("BOOL", [1], [0, 1]), "w": ("F32", [9], [1, 37])}, content
        )
    output = average_files(
        [tmp_path / "0.safetensors", tmp_path / "1.safetensors"], tmp_path / "mean.safetensors"
    ).output
    assert torch.equal(load_file(output)["w"], (values[0] + values[1]) / 2)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bit_floats_are_averaged_in_float32(tmp_path, kind):
    made = [{"w": torch.randn(1000).to(kind)} for _ in range(3)]
    mean = load_file(average_files(saved(tmp_path, made), tmp_path / "mean.safetensors").output)["w"]
    exact = (made[0]["w"].float() + made[1]["w"].float() + made[2]["w"].float()) / 3
    assert torch.equal(mean.float(), exact.to(kind).float())


@pytest.mark.parametrize(
    "kind", [torch.int8, torch.int16, torch.uint8, torch.uint16, torch.int32, torch.uint32, torch.uint64]
)
def test_counters_of_every_width_stay_integers(tmp_path, kind):
    made = [{"n": torch.tensor(value).to(kind)} for value in (3, 9, 4)]
    mean = load_file(average_files(saved(tmp_path, made), tmp_path / "mean.safetensors").output)["n"]
    assert (mean.item(), mean.dtype) == (9, kind)


def test_every_dtype_that_torch_saves_is_known():
    for name in ("float8_e4m3fn", "bfloat16", "uint16", "bool", "complex64"):
        kind = getattr(torch, name)
        assert kind in DTYPES.values() or kind.is_complex


def test_infinities_and_equal_masks_pass(tmp_path):
    made = [{"mask": torch.tensor([-math.inf, 0.0]), "w": torch.tensor([math.inf, float(m)])} for m in range(3)]
    mean = load_file(average_files(saved(tmp_path, made), tmp_path / "mean.safetensors").output)
    assert torch.equal(mean["mask"], made[0]["mask"])
    assert mean["w"].tolist() == [math.inf, 1.0]


def test_tied_tensors_that_a_file_leaves_out_are_named_and_the_result_loads(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(4, 3)
            self.head = torch.nn.Linear(3, 4, bias=False)
            self.head.weight = self.embed.weight

    models = [Tied(), Tied()]
    save_model(models[0], tmp_path / "0.safetensors")
    save_file({name: value.clone() for name, value in models[1].state_dict().items()}, tmp_path / "1.safetensors")
    for order in ((0, 1), (1, 0)):
        output = tmp_path / f"mean-{order[0]}.safetensors"
        result = average_files([tmp_path / f"{index}.safetensors" for index in order], output)
        assert result.tied == {"head.weight": "embed.weight"}
        assert list(load_file(output)) == ["embed.weight"]
        assert torch.equal(
            load_file(output)["embed.weight"], average_state_dicts([m.state_dict() for m in models])["embed.weight"]
        )
    middle = {"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.ones(2)}
    save_file(middle, tmp_path / "2.safetensors")
    save_file({"a": torch.zeros(2), "c": torch.full((2,), 3.0)}, tmp_path / "3.safetensors")
    result = average_files([tmp_path / "2.safetensors", tmp_path / "3.safetensors"], tmp_path / "middle.safetensors")
    assert result.tied == {"b": "a"}
    assert {name: value.tolist() for name, value in load_file(result.output).items()} == {"a": [0, 0], "c": [2, 2]}
    save_file({"a": torch.zeros(2), "b": torch.zeros(1, 2), "c": torch.ones(2)}, tmp_path / "2.safetensors")
    with pytest.raises(UserError, match="'b' is in"):  # equal bytes in another shape are no tie
        average_files([tmp_path / "2.safetensors", tmp_path / "3.safetensors"], tmp_path / "shape.safetensors")
    loose = {name: value.clone() for name, value in models[1].state_dict().items()}
    loose["head.weight"][0, 0] += 1
    save_file(loose, tmp_path / "1.safetensors")
    with pytest.raises(UserError, match=r"'head.weight' is in .*1\.safetensors and not in .*0\.safetensors"):
        average_files([tmp_path / "0.safetensors", tmp_path / "1.safetensors"], tmp_path / "loose.safetensors")


def refused(tmp_path, made, sentence):
    """Refused, and nothing new is in the folder."""
    paths = saved(tmp_path, made)
    with pytest.raises(UserError, match=sentence):
        average_files(paths, tmp_path / "mean.safetensors")
    assert sorted(tmp_path.iterdir()) == sorted(paths)


@pytest.mark.parametrize(
    "kind", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.float8_e4m3fn]
)
@pytest.mark.parametrize("place", [0, -1])
def test_a_nan_is_refused_with_tensor_and_file(tmp_path, kind, place):
    made = [{"fine": torch.ones(2) * m, "bad": torch.randn(20).to(kind)} for m in range(3)]
    made[1]["bad"].view(torch.uint8 if kind.itemsize == 1 else kind)[place] = 0x7F if kind.itemsize == 1 else math.nan
    refused(tmp_path, made, r"'bad' of .*1\.safetensors holds NaN")


def test_a_nan_in_the_last_block_and_in_a_single_file_are_seen(tmp_path):
    made = states(1)
    made[0]["long"][-1] = math.nan
    refused(tmp_path, made, r"'long' of .*0\.safetensors holds NaN")


def test_infinities_of_both_signs_are_refused(tmp_path):
    refused(tmp_path, [{"w": torch.tensor([math.inf])}, {"w": torch.tensor([-math.inf])}], "infinities of both signs")


def test_files_that_do_not_belong_together_are_refused_with_a_list(tmp_path):
    made = [
        {"head": torch.zeros(4, 2), "old": torch.zeros(1), "kind": torch.zeros(2)},
        {"head": torch.zeros(1, 2), "new": torch.ones(1), "kind": torch.zeros(2).half()},
    ]
    names = r"'old' is in .*0\.safetensors and not in .*; 'new' is in .*1\.safetensors and not in .*; "
    names += (
        r"'head' is F32 of shape \(4, 2\) in .*F32 of shape \(1, 2\) in .*; 'kind' is F32 of shape \(2,\) in .* and F16"
    )
    refused(tmp_path, made, names)
    many = [{f"{name}-{index}": torch.full((1,), float(index)) for index in range(20)} for name in "ab"]
    refused(tmp_path, many, "; and 28 more")


def test_what_has_no_mean_must_be_equal(tmp_path):
    refused(
        tmp_path,
        [{"ids": torch.tensor([1, 2])}, {"ids": torch.tensor([1, 3])}],
        r"'ids' differs between .*0\.safe.* and .*1\.safe",
    )
    refused(tmp_path, [{"on": torch.tensor(True)}, {"on": torch.tensor(False)}], "'on' differs")


def test_files_that_cannot_be_used_are_refused(tmp_path):
    (path,) = saved(tmp_path, [{"w": torch.ones(3)}])
    torn, words = tmp_path / "torn.safetensors", tmp_path / "words.txt"
    torn.write_bytes(path.read_bytes()[:-2])
    words.write_text("no tensors in here")
    for bad, sentence in (
        (torn, "torn.safetensors is no whole safetensors file"),
        (words, "words.txt is no whole safetensors file"),
        (tmp_path / "gone.safetensors", "gone.safetensors cannot be read"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(UserError, match=sentence):
            average_files([path, bad], tmp_path / "mean.safetensors")
    with pytest.raises(UserError, match=r"0\.safetensors exists already"):
        average_files([path, path], path)
    with pytest.raises(UserError, match="away is no folder"):
        average_files([path], tmp_path / "away" / "mean.safetensors")
    with pytest.raises(UserError, match="There are 0 files"):
        average_files([], tmp_path / "mean.safetensors")
    write_by_hand(torn, {"w": ("F4", [2], [0, 1])}, b"\x00")
    with pytest.raises(UserError, match="dtype F4"):
        average_files([torn], tmp_path / "mean.safetensors")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on anonymous memory is Linux's")
def test_anonymous_memory_stays_below_a_fifth_of_a_model(tmp_path):
    """The system refuses every private allocation beyond it: mapped files apart, nothing of a model's size is made."""
    made = [
        {f"{i}": torch.randn(4_000_000 // 2).to(kind) for i, kind in enumerate((torch.float32, torch.bfloat16) * 8)}
        for _ in range(2)
    ]
    paths = saved(tmp_path, made)
    size = paths[0].stat().st_size  # 96 MB
    code = (
        "import resource, sys, torch, safetensors\n"
        "from imwa.files import average_files\n"
        "torch.set_num_threads(1)\n"
        "average_files(sys.argv[1:-1], sys.argv[-1] + '.first')\n"  # what torch loads and keeps at first use is not the mean's
        "used = [int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmData')][0] * 1024\n"
        f"resource.setrlimit(resource.RLIMIT_DATA, (used + {size} // 5,) * 2)\n"
        "average_files(sys.argv[1:-1], sys.argv[-1])\n"
        f"try:\n    torch.empty({2 * size}, dtype=torch.uint8)\n"
        "except RuntimeError:\n    print('the limit holds')\n"
    )
    words = [sys.executable, "-c", code, *map(str, paths), str(tmp_path / "mean.safetensors")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "the limit holds"
