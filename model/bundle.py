"""The bundle of one version of a model: a folder that is written whole, and read only if it is whole. Torch-free.

    <repository>/<model>/<version>/
        model.onnx        input → every output
        manifest.json     `model.manifest`, with the SHA-256 of every other file

Writers fill a hidden folder beside the final one, flush it to disk and rename it into place, so that a reader meets a
whole bundle or none. Readers hash the very bytes that they go on to use.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import uses_external_data
from pydantic import ValidationError

from model import files as disk
from model.errors import BundleError
from model.manifest import NAME_PATTERN, READABLE_VERSIONS, Manifest
from model.outputs import INPUT

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
TEMPORARY = ".writing-"  # prefix of folders that are not bundles yet


@dataclass(frozen=True)
class Bundle:
    """A bundle whose digests, schema and graph have been checked."""

    path: Path
    manifest: Manifest
    model: onnx.ModelProto
    content: bytes
    """The model as it is on disk."""
    digest: str
    """SHA-256 of manifest.json, which names the digest of every other file: one figure for the whole bundle."""


def sha256(content: bytes) -> str:
    """The SHA-256 of some bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def versions(repository: Path, name: str) -> list[int]:
    """The versions of a model on disk, lowest first. Hidden and otherwise named folders do not count."""
    folder = repository / name
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if _is_version(path.name) and path.is_dir())


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and not name.startswith("0")


def check_writable(repository: Path, name: str) -> None:
    """See that a bundle could be written, by writing something, and leave no trace (`model.files.probe`).

    So that hours of training do not end at a closed door.

    Raises:
        BundleError: the name is no plain one, or the folder cannot be made, or nothing be written into it.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise BundleError(
            "model name: expected letters, digits, '.', '_' and '-', a letter or a digit first, 128 at most, "
            f"got {name!r}"
        )
    folder = repository / name
    try:
        disk.probe(folder)
    except OSError as error:
        raise BundleError(f"{folder}: cannot write a bundle: {error}") from error


def write(
    repository: Path,
    name: str,
    describe: Callable[[int, Mapping[str, str]], Manifest],
    files: Mapping[str, bytes],
    compose: Callable[[Manifest], Mapping[str, bytes]] | None = None,
) -> Path:
    """Write the next version of a model into a repository.

    Args:
        repository: folder of models; made if it is not there.
        name: of the model.
        describe: makes the manifest from the version and the files' digests.
        files: content by file name; `model.onnx` must be among them.
        compose: makes further files, a report say, from the manifest that the others have.

    Returns:
        The new bundle's folder.

    Raises:
        BundleError: a file or the manifest is not what `read` would accept, or the folder cannot be written. No version
            is left behind then, nor part of one.
    """
    if MODEL_FILE not in files or MANIFEST_FILE in files:
        raise BundleError(f"{name}: expected {MODEL_FILE} and no {MANIFEST_FILE} among the files, got {sorted(files)}")
    check_writable(repository, name)
    given = {file: sha256(content) for file, content in files.items()}
    parent = repository / name
    try:
        temporary = Path(disk.in_folder(parent, lambda: tempfile.mkdtemp(prefix=TEMPORARY, dir=parent)))
        try:
            for file, content in files.items():
                disk.write_flushed(temporary / file, (content,))
            while True:
                # Whatever has a version's name is in the way, be it a bundle or not.
                version = max((int(path.name) for path in parent.iterdir() if _is_version(path.name)), default=0) + 1
                composed = compose(describe(version, given)) if compose else {}
                if not composed.keys().isdisjoint({*files, MANIFEST_FILE}):
                    raise BundleError(f"{name}: expected further files beside {sorted(files)}, got {sorted(composed)}")
                for file, content in composed.items():
                    disk.write_flushed(temporary / file, (content,))
                digests = given | {file: sha256(content) for file, content in composed.items()}
                manifest = describe(version, digests)
                described = (manifest.name, manifest.version, manifest.files)
                if described != (name, version, digests):
                    raise BundleError(f"manifest: expected {(name, version, digests)}, got {described}")
                text = manifest.model_dump_json(indent=2) + "\n"
                disk.write_flushed(temporary / MANIFEST_FILE, (text.encode(),))
                temporary.chmod(0o755)
                disk.flush_folder(temporary)
                final = parent / str(version)
                try:
                    temporary.rename(final)
                except OSError:
                    if final.exists():  # another writer took this version in the meantime
                        continue
                    raise
                disk.flush_folder(parent)
                return final
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise BundleError(f"{parent}: cannot write a bundle: {error}") from error


def read(path: Path) -> Bundle:
    """Read one version of a model, and refuse it unless all of it is as its manifest says.

    Args:
        path: `<repository>/<model>/<version>`.

    Raises:
        BundleError: a file is missing or has another digest, the schema is unknown or broken, the folder's name
            disagrees with the manifest, or the graph lacks an input or output. The message names the file.
    """
    manifest_path = path / MANIFEST_FILE
    content = _read_file(manifest_path)
    manifest = _parse_manifest(manifest_path, content)
    if (manifest.name, str(manifest.version)) != (path.parent.name, path.name):
        raise BundleError(
            f"{manifest_path}: expected model {path.parent.name!r} version {path.name} as the folder says, "
            f"got {manifest.name!r} version {manifest.version}"
        )
    if MODEL_FILE not in manifest.files:
        raise BundleError(f"{manifest_path}: expected a digest of {MODEL_FILE} in 'files', got none")
    model_content = b""
    for file, digest in manifest.files.items():
        file_content = _read_file(path / file)
        if sha256(file_content) != digest:
            raise BundleError(f"{path / file}: expected SHA-256 {digest}, got {sha256(file_content)}")
        if file == MODEL_FILE:
            model_content = file_content
    model = _parse_model(path / MODEL_FILE, model_content, manifest)
    return Bundle(path, manifest, model, model_content, sha256(content))


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot read it: {error.strerror or error}") from error


def _parse_manifest(path: Path, content: bytes) -> Manifest:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: expected JSON: {error}") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is not int or version not in READABLE_VERSIONS:  # true == 1 in Python
        expected = " or ".join(map(str, READABLE_VERSIONS))
        raise BundleError(f"{path}: expected schema_version {expected}, got {version!r}")
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'manifest'}: {problem['msg']}" for problem in error.errors()[:5]
        )
        raise BundleError(f"{path}: {problems}") from error


def _parse_model(path: Path, content: bytes, manifest: Manifest) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise BundleError(f"{path}: expected an ONNX model: {error}") from error
    if any(uses_external_data(tensor) for tensor in _tensors(model.graph)):
        raise BundleError(f"{path}: expected all numbers within the file, got a tensor with external data")
    features = len(manifest.features)
    expected_inputs = {INPUT: _float_rows((features,))}
    inputs = {value.name: _signature(value) for value in model.graph.input}
    if inputs != expected_inputs:
        raise BundleError(f"{path}: expected the inputs {expected_inputs}, got {inputs}")
    outputs = {value.name: _signature(value) for value in model.graph.output}
    for output in manifest.outputs():
        expected = _float_rows(output.shape)
        if outputs.get(output.name) != expected:
            got = outputs.get(output.name, "none")
            raise BundleError(f"{path}: expected an output {output.name!r} of {expected}, got {got}")
    return model


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor of a graph: constants, and those in attributes, of graphs in attributes too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _float_rows(shape: tuple[int, ...]) -> str:
    return f"FLOAT [{', '.join(map(str, ('rows', *shape)))}]"


def _signature(value: onnx.ValueInfoProto) -> str:
    """Type and shape as text; a first axis of free size reads `rows`."""
    tensor = value.type.tensor_type
    sizes = [dimension.dim_value if dimension.HasField("dim_value") else "free" for dimension in tensor.shape.dim]
    if sizes and sizes[0] == "free":
        sizes[0] = "rows"
    kinds = {number: name for name, number in onnx.TensorProto.DataType.items()}
    return f"{kinds.get(tensor.elem_type, tensor.elem_type)} [{', '.join(map(str, sizes))}]"
