"""Which files users may bring as a model or as a dataset, and how each one is checked."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from src.core.sources.archives import is_archive

PICKLE = "pickle"


def _endings(names: str) -> tuple[str, ...]:
    return tuple(f".{name}" for name in names.split())


_MODEL_KINDS = {
    "safetensors": (".safetensors",),
    PICKLE: (".bin", ".pt", ".pth"),
    "onnx": (".onnx",),
    "protobuf": (".pb",),
    "hdf5": (".h5",),
    "gguf": (".gguf",),
    "json": (".json",),
    # vocabularies, templates, model cards, licences
    "text": _endings("txt md rst yaml yml jinja jinja2 jsonl csv tsv toml cfg bpe vocab tiktoken"),
    "image": _endings("png jpg jpeg gif webp"),
    # SentencePiece, and weights that stand beside an .onnx file
    "opaque": (".model", ".spm", ".onnx_data", ".data"),
}
_KIND_BY_SUFFIX = {suffix: kind for kind, suffixes in _MODEL_KINDS.items() for suffix in suffixes}
_TEXTS = re.compile(
    r"(license|licence|copying|notice|readme|use_policy|authors|modelfile|\.gitattributes|\.gitignore)", re.IGNORECASE
)
_OPAQUE = re.compile(
    r"(tokenizer\.model\.v\d+(m\d+)?"  # Mistral
    r"|.+\.onnx_data_\d+"
    r"|variables\.(index|data-\d{5}-of-\d{5}))"  # TensorFlow's SavedModel
)
_TO_SAFETENSORS = "can run code when it is read: convert it to safetensors"
_PROGRAM = "is a program: code from outside does not run here, leave it out"
_REASONS = {
    **dict.fromkeys(_endings("pkl pickle joblib ckpt npy npz keras msgpack dill"), _TO_SAFETENSORS),
    **dict.fromkeys((".py", ".pyc", ".ipynb"), "is code: code from outside does not run here, leave it out"),
}
_PROGRAMS = _endings(
    "py pyc pyd pyo exe dll so dylib com msi scr sh bash bat cmd ps1 vbs app elf jar class apk deb rpm dmg php wasm"
)


@dataclass(frozen=True, slots=True)
class FileRule:
    """What may be in a folder of one sort; `kind_of` gives the kind of check, or raises `RefusedError`."""

    name: str
    max_files: int
    kind_of: Callable[[str], str]


class RefusedError(Exception):
    """A file may not be brought; the text says why."""


def _model_kind(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    suffix = suffix_of(name)
    if _OPAQUE.fullmatch(name):
        return "opaque"
    if _TEXTS.fullmatch(name.rsplit(".", 1)[0] if suffix in (".txt", ".md") else name):
        return "text"
    if suffix in _KIND_BY_SUFFIX:
        return _KIND_BY_SUFFIX[suffix]
    if is_archive(name):
        raise RefusedError("is an archive among other files: send one archive alone, or the files themselves")
    if suffix in _PROGRAMS and suffix not in _REASONS:
        raise RefusedError(_PROGRAM)
    weights = ".safetensors .bin .pt .pth .onnx .pb .h5 .gguf"
    raise RefusedError(_REASONS.get(suffix, f"is no file of a model: {weights}, json, tokenizer and text files are"))


def _dataset_kind(path: str) -> str:
    if suffix_of(path) in _PROGRAMS:
        raise RefusedError(_PROGRAM)
    return "data"


def suffix_of(path: str) -> str:
    """Returns the last ending of a file's name in small letters, with its dot; "" without one."""
    name = path.rsplit("/", 1)[-1]
    return "." + name.rsplit(".", 1)[1].lower() if "." in name else ""


MODEL_FILES = FileRule("model", 10_000, _model_kind)
DATASET_FILES = FileRule("dataset", 200_000, _dataset_kind)
RULES = {rule.name: rule for rule in (MODEL_FILES, DATASET_FILES)}
