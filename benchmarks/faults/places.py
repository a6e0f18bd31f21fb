"""The places of each package that reads a file: `readers.py`'s shared ones, and those that one package alone has."""

import gzip
import json
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

from faults.payloads import JSON, PACKED, SAFETENSORS, TAR, TORCH, Poison, not_text
from faults.pictures import IMAGES
from faults.readers import Reader, coco_folder, read_coco, run_readers, sealed_folder, shared_readers, tar_of
from faults.watching import MARK, command

EVIL_CODE = f"# {MARK}\nopen({MARK!r}, 'w').write({MARK!r})\nclass Model: pass\nclass KmerTokenizer: pass\n"


def readers(package: str, *, whole: Path | None = None) -> list[Reader]:
    """All of a package; with the folder of a whole run also its command that goes on from one."""
    found = {"layermatch": _of_layermatch, "imwa": _of_imwa, "randommask": _of_randommask}[package]()
    return [*found, *([] if whole is None else _resumes(package, whole))]


def _of_layermatch() -> list[Reader]:
    def trained(folder: Path) -> Path:
        from safetensors.torch import save_file

        from layermatch.models.small_cnn import SmallCNN

        model = folder / "run" / "model"
        model.mkdir(parents=True)
        content = {"model": "cnn", "class_names": ["a", "b"], "channels": 1, "image_size": [8, 8], "mean": [0.0]}
        (model / "config.json").write_text(json.dumps(content | {"deviation": [1.0]}))
        save_file(SmallCNN(2, channels=1).state_dict(), model / "model.safetensors")
        return folder / "run"

    def load(path: Path) -> None:
        from layermatch.commands.trained import load_trained

        load_trained(path, device="cpu").probabilities(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))

    inside = {"run/model/config.json": JSON, "run/model/model.safetensors": SAFETENSORS}
    return [*shared_readers("layermatch"), Reader("trained model", trained, load, inside)]


def _of_imwa() -> list[Reader]:
    def weights(folder: Path, *, name: str) -> Path:
        from safetensors.torch import save_file

        state = _backbone().state_dict()
        path = folder / name
        if path.suffix == ".pt":
            torch.save(state, path)
        else:
            save_file(state, path)
        return path

    def start(path: Path) -> None:
        from imwa.training.initial import start_from

        start_from(_backbone(), path)

    def average(path: Path) -> None:
        from imwa.files import average_files

        average_files([path, path], path.with_name("mean.safetensors"))

    def body(path: Path) -> None:
        from reproduce.imwa.detection.detector import load_weights

        load_weights(_backbone(), path)

    safetensors = partial(weights, name="w.safetensors")
    return [
        *shared_readers("imwa"),
        Reader("weights to begin from", safetensors, start, {"w.safetensors": SAFETENSORS}),
        Reader("weights to average", safetensors, average, {"w.safetensors": SAFETENSORS}),
        Reader("weights of the detector, torch", partial(weights, name="w.pt"), body, {"w.pt": TORCH}),
        Reader("weights of the detector, safetensors", safetensors, body, {"w.safetensors": SAFETENSORS}),
        Reader("tar of the detection recipe", tar_of, read_coco, {"data.tar": TAR}),
        Reader(
            "folder of it",
            coco_folder,
            read_coco,
            {"coco/annotations/train.json": JSON, "coco/images/train/1.png": IMAGES},
        ),
    ]


def _backbone() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3))


FASTA = b">one\n" + b"ACGTTGCA\n" * 20 + b">two\nGATTACAGATTACA\n"
TABLE = b"sequence,label\n" + b"ACGTTGCA,0\nGATTACAG,1\n" * 10


def _of_randommask() -> list[Reader]:
    from faults.columns import PARQUET

    def file(folder: Path, *, name: str, content: bytes) -> Path:
        path = folder / name
        path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
        return path

    fasta, table = partial(file, name="a.fa.gz", content=FASTA), partial(file, name="a.csv.gz", content=TABLE)
    parquet, stream = (
        {"a.parquet": PARQUET},
        partial(file, name="a.jsonl", content=b'{"sequence": "ACGTTGCAGATTACA"}\n' * 8),
    )
    kmers = {"model/config.json": MODEL_CONFIG, "model/tokenizer_config.json": JSON[:1], "model/vocab.txt": (TEXT,)}
    others = {
        "model/config.json": OTHER_CONFIG,
        "model/tokenizer_config.json": (*JSON, FOREIGN_TOKENIZER),
        "model/vocab.txt": (TEXT,),
    }
    weights = {
        "model/model.safetensors": SAFETENSORS,
        "model/generation_config.json": tuple(one._replace(refused=False) for one in JSON),
    }
    return [
        Reader("FASTA", fasta, _read_fasta, {"a.fa.gz": PACKED}),
        Reader("sequences", fasta, _read_sequences, {"a.fa.gz": PACKED}),
        Reader("table", table, _read_table, {"a.csv.gz": PACKED}),
        Reader("table in parquet", _table_parquet, _read_table, parquet),
        Reader("task of GUE", _gue, _read_gue, {"tf/0/train.csv": PACKED, "tf/0/dev.csv": PACKED}),
        Reader("stream of parquet", _table_parquet, _read_stream, parquet),
        Reader("stream of JSON", stream, _read_stream, {"a.jsonl": (JSON[2], TEXT)}),
        Reader("the genome's cache", _cache, _read_cache, {"cache/a-*.json": JSON}, lenient=True),
        Reader("folder of a k-mer model", partial(_model_folder, kmers=True), _read_kmer_model, kmers | weights),
        Reader("folder of another model", partial(_model_folder, kmers=False), _read_other_model, others | weights),
        *run_readers("randommask"),
    ]


def _read_fasta(path: Path) -> None:
    from randommask.genome.store import read_genome

    read_genome([path])


def _read_sequences(path: Path) -> None:
    from randommask.genome.sequences import read_sequences

    read_sequences(path)


def _read_table(path: Path) -> None:
    from randommask.data.labelled import read_labelled

    read_labelled(path, dev=path, test=path)


def _table_parquet(folder: Path) -> Path:
    import pyarrow

    from faults.columns import written

    letters = ["ACGTTGCAGATTACA"[shift:] for shift in range(8)]
    path = folder / "a.parquet"
    path.write_bytes(written(pyarrow.table({"sequence": letters * 5, "label": ["0", "1"] * 20})))
    return path


def _gue(folder: Path) -> Path:
    for name in ("train", "dev", "test"):
        path = folder / "tf" / "0" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(TABLE)
    return folder


def _read_gue(path: Path) -> None:
    from randommask.data.gue import read_task

    read_task(path, "tf/0")


def _read_stream(path: Path) -> None:
    from randommask.commands.dna import _rows
    from randommask.commands.pretrain import PretrainConfig

    for _ in _rows(PretrainConfig(dataset=str(path)), str(path), split="train").codes():
        pass


def _cache(folder: Path) -> Path:
    from randommask.genome.cache import cached_genome

    (folder / "a.fa").write_bytes(FASTA)
    cached_genome([folder / "a.fa"], folder=folder / "cache")
    return folder


def _read_cache(path: Path) -> list[str] | None:
    from randommask.genome.cache import cached_genome

    found = cached_genome([path / "a.fa"], folder=path / "cache")
    return (
        None
        if found.names == ("one", "two") and found.starts == (0, 160, 174)
        else [f"holds {found.names}, {found.starts}"]
    )


def _model_folder(folder: Path, *, kmers: bool) -> Path:
    """A tiny model; every Python file beside it is not ours."""
    from transformers import EsmConfig, EsmForMaskedLM, EsmTokenizer

    from randommask.models.masked_bert import MaskedBert
    from randommask.models.presets import bert_config
    from randommask.tokenizer import KmerTokenizer

    path = folder / "model"
    if kmers:
        MaskedBert(bert_config("tiny", k=2, positions=32)).save_pretrained(path)
        KmerTokenizer(k=2, model_max_length=32).save_pretrained(path)
    else:
        path.mkdir()
        (path / "vocab.txt").write_text("\n".join(["<unk>", "<pad>", "<mask>", "<cls>", *"ATCGN"]))
        names: dict[str, Any] = {"eos_token": None, "pad_token": "<pad>", "model_max_length": 20}
        EsmTokenizer(str(path / "vocab.txt"), **names).save_pretrained(path)
        sizes: dict[str, Any] = {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
        }
        config = EsmConfig(vocab_size=9, max_position_embeddings=30, pad_token_id=1, mask_token_id=2, **sizes)
        EsmForMaskedLM(config).save_pretrained(path)
    for name in (*(code.name for code in path.glob("*.py")), f"{MARK}.py"):
        (path / name).write_text(EVIL_CODE)
    (path / "generation_config.json").write_text('{"transformers_version": "5.0.0"}')
    return path


def _read_kmer_model(path: Path) -> list[str] | None:
    from randommask.tokenizer import KmerTokenizer

    found = _read_models(path)
    return None if type(found) is KmerTokenizer else [f"the tokenizer is {type(found)}"]


def _read_other_model(path: Path) -> None:
    _read_models(path)


def _read_models(path: Path) -> Any:
    """By all three ways that the commands have."""
    from randommask.training.encoders import pretrained_classifier
    from randommask.training.loading import load_encoder, load_masked

    load_encoder(path)
    tokenizer = load_masked(path).tokenizer
    pretrained_classifier(path, labels=["0", "1"], dropout=0.0, seed=0)
    return tokenizer


def _config(content: bytes, draw: Random, outside: Path) -> bytes:
    """Code by every name that transformers knows, for a model of a kind that it knows."""
    path = f"{MARK}.Model"
    autos = ("AutoConfig", "AutoModel", "AutoModelForMaskedLM", "AutoModelForSequenceClassification")
    more: dict[str, Any] = {"auto_map": dict.fromkeys(autos, path) | {"AutoTokenizer": [path, None]}}
    more |= draw.choice(
        [
            {"attn_implementation": f"{MARK}/kernel"},
            {"dtype": "load"},
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
            {"_name_or_path": f"{MARK}/model", "custom_pipelines": {"x": {"impl": path}}},
            {"hidden_act": "os.system"},
        ]
    )
    return json.dumps(json.loads(content) | more).encode()


def _foreign_kind(content: bytes, draw: Random, outside: Path) -> bytes:
    """Code by a kind of model that nobody knows."""
    return json.dumps(json.loads(_config(content, draw, outside)) | {"model_type": MARK}).encode()


def _foreign_tokenizer(content: bytes, draw: Random, outside: Path) -> bytes:
    """A tokenizer that is code; of `KmerTokenizer` this package has its own, which knows the vocabulary for another's."""
    name = draw.choice([f"{MARK}.KmerTokenizer", f"{MARK}.Model", f"{MARK}/{MARK}--{MARK}.Model"])
    auto = {"AutoTokenizer": draw.choice([[name, None], [None, name], name])}
    return json.dumps(json.loads(content) | {"auto_map": auto, "tokenizer_class": name.split(".")[-1]}).encode()


TEXT = Poison("no text", not_text)
MODEL_CONFIG = (Poison("auto_map and other code", _config, refused=False), *JSON)
OTHER_CONFIG = (*MODEL_CONFIG, Poison("auto_map of an unknown kind", _foreign_kind, named="--trust-remote-code"))
FOREIGN_TOKENIZER = Poison("a tokenizer that is code", _foreign_tokenizer)


def _resumes(package: str, whole: Path) -> list[Reader]:
    """The command itself, going on from a run whose checkpoints are poisoned and sealed; the Trainer's own files for randommask."""
    import shutil
    from importlib import import_module

    def copied(folder: Path) -> Path:
        shutil.copytree(whole, folder / "run", symlinks=True)
        (folder / "run" / "result.json").unlink(missing_ok=True)
        return folder / "run"

    def go_on(path: Path) -> None:
        main = import_module(f"{package}.commands").main
        command(main, {"randommask": "pretrain"}.get(package, "train"), "--resume", str(path))

    newest = max(path for path in (whole / "checkpoints").glob("step-*") if path.suffix != ".sha256")
    if newest.is_file():
        from faults.readers import sealed_file

        inside = {f"run/checkpoints/{path.name}": TORCH[:3] for path in (newest,)}
        return [Reader("resume", copied, go_on, inside, lenient=True, seal=sealed_file, files=2)]
    inside = {
        f"run/checkpoints/{newest.name}/{name}": TORCH[:3] for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth")
    }
    return [Reader("resume", copied, go_on, inside, seal=sealed_folder, files=3)]
