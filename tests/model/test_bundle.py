"""The bundle on disk: written whole or not at all, and refused when anything is amiss."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest

from model import bundle
from model.errors import BundleError
from model.manifest import Manifest
from model.outputs import Task
from tests.builders import (
    REPORT,
    REPORT_FILE,
    as_schema_1,
    export_network,
    make_bundle,
    make_manifest,
    make_network,
    make_rows,
    run_graph,
)

Document = dict[str, Any]
ROOT = Path(__file__).parents[2]
FILES = {bundle.MODEL_FILE: b"a graph", REPORT_FILE: REPORT}


def describe_as(manifest: Manifest) -> Callable[[int, Mapping[str, str]], Manifest]:
    """A writer's description that takes version and digests, and all else from a manifest."""
    return lambda version, digests: manifest.model_copy(update={"version": version, "files": dict(digests)})


def edit_manifest(path: Path, change: Callable[[Document], object]) -> None:
    """Rewrite a bundle's manifest."""
    document = json.loads((path / bundle.MANIFEST_FILE).read_text())
    change(document)
    (path / bundle.MANIFEST_FILE).write_text(json.dumps(document))


def replace_model(path: Path, content: bytes) -> None:
    """Put another graph into a bundle, with the digest that goes with it."""
    (path / bundle.MODEL_FILE).write_bytes(content)
    edit_manifest(path, lambda document: document["files"].update({bundle.MODEL_FILE: bundle.sha256(content)}))


def assert_refused(path: Path, *parts: str) -> None:
    """Reading the bundle fails with an error that names every part."""
    with pytest.raises(BundleError) as caught:
        bundle.read(path)
    assert [] == [part for part in parts if part not in str(caught.value)]


@pytest.mark.parametrize("task", Task)
def test_a_bundle_is_read_as_it_was_written(tmp_path: Path, task: Task) -> None:
    """Manifest, graph and every other file come back, and the bundle's digest is that of its manifest."""
    path = make_bundle(tmp_path, task=task, seed=1)
    network = make_network(task, seed=1)
    model = export_network(network)
    content = bundle.read(path)
    assert tmp_path / "demo" / "1" == path == content.path
    assert model == content.model
    assert bundle.sha256((path / bundle.MANIFEST_FILE).read_bytes()) == content.digest
    expected = make_manifest(
        network,
        files={
            bundle.MODEL_FILE: bundle.sha256((path / bundle.MODEL_FILE).read_bytes()),
            REPORT_FILE: bundle.sha256(REPORT),
        },
        seed=1,
    )
    assert expected == content.manifest
    assert {bundle.MODEL_FILE, bundle.MANIFEST_FILE, REPORT_FILE} == {file.name for file in path.iterdir()}


@pytest.mark.parametrize("task", Task)
def test_a_built_bundle_is_honest(tmp_path: Path, task: Task) -> None:
    """The calibration of a bundle for tests is what its own graph gives on fresh rows, to within sampling."""
    content = bundle.read(make_bundle(tmp_path, task=task, seed=2))
    norms = run_graph(content.model, make_rows(make_network(task, seed=2), 4000, seed=99))["gradient_norm"]
    for level in (0.5, 0.95):
        share = float((norms <= content.manifest.calibration.quantiles[str(level)]).mean())
        error = (level * (1 - level) * (1 / 400 + 1 / 4000)) ** 0.5
        assert level == pytest.approx(share, abs=4 * error)


def test_a_bundle_can_be_read_by_others(tmp_path: Path) -> None:
    """The temporary folder's closed permissions do not stay on the bundle: another user's server may read it."""
    path = make_bundle(tmp_path, features=2, hidden=(3,))
    assert 0o755 == path.stat().st_mode & 0o777


def test_versions_increase(tmp_path: Path) -> None:
    """Each write gets the next number, above the greatest: a withdrawn version's number is not used again."""
    manifest = make_manifest(make_network())
    assert [] == bundle.versions(tmp_path, "demo")
    for version in (1, 2, 3):
        assert str(version) == bundle.write(tmp_path, "demo", describe_as(manifest), FILES).name
    for file in (tmp_path / "demo" / "2").iterdir():
        file.unlink()
    (tmp_path / "demo" / "2").rmdir()
    (tmp_path / "demo" / "10").mkdir()
    assert "11" == bundle.write(tmp_path, "demo", describe_as(manifest), FILES).name
    assert [1, 3, 10, 11] == bundle.versions(tmp_path, "demo")


def test_a_file_can_be_composed_from_the_manifest(tmp_path: Path) -> None:
    """A report that shows the version is made once that is known, and the manifest has its digest."""
    network = make_network()
    make_bundle(tmp_path)
    model, seen = export_network(network), []

    def compose(manifest: Manifest) -> dict[str, bytes]:
        seen.append(manifest)
        return {REPORT_FILE: f"version {manifest.version}".encode()}

    files = {bundle.MODEL_FILE: model.SerializeToString()}
    path = bundle.write(tmp_path, "demo", describe_as(make_manifest(network)), files, compose)
    assert b"version 2" == (path / REPORT_FILE).read_bytes()
    assert {bundle.MODEL_FILE, REPORT_FILE} == set(bundle.read(path).manifest.files)
    assert [{bundle.MODEL_FILE}] == [set(manifest.files) for manifest in seen]


@pytest.mark.parametrize("file", [bundle.MODEL_FILE, bundle.MANIFEST_FILE])
def test_a_composed_file_cannot_take_the_place_of_another(tmp_path: Path, file: str) -> None:
    """What is composed stands beside the given files and the manifest; nothing is written else."""
    describe = describe_as(make_manifest(make_network()))
    with pytest.raises(BundleError, match="expected further files"):
        bundle.write(tmp_path, "demo", describe, FILES, lambda manifest: {file: b""})
    assert [] == list((tmp_path / "demo").iterdir())


def test_a_composer_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """A report that cannot be drawn costs the bundle, and leaves no part of one."""

    def compose(manifest: Manifest) -> dict[str, bytes]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bundle.write(tmp_path, "demo", describe_as(make_manifest(make_network())), FILES, compose)
    assert [] == list((tmp_path / "demo").iterdir())


def test_other_folders_are_no_versions(tmp_path: Path) -> None:
    """Leftovers of a writer that was killed, and whatever is not a positive whole number, do not count."""
    for name in (".writing-abc123", "latest", "0", "01", "-1", "1.0", "²", "٣", "7"):
        (tmp_path / "demo" / name).mkdir(parents=True)
    assert [7] == bundle.versions(tmp_path, "demo")
    assert "8" == bundle.write(tmp_path, "demo", describe_as(make_manifest(make_network())), FILES).name


@pytest.mark.parametrize("earlier", [0, 2])
def test_a_writer_that_fails_leaves_nothing_behind(tmp_path: Path, earlier: int) -> None:
    """When the description raises, its own error comes through, and earlier versions stand alone and untouched."""
    manifest = make_manifest(make_network())
    for _ in range(earlier):
        bundle.write(tmp_path, "demo", describe_as(manifest), FILES)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    def fail(version: int, digests: Mapping[str, str]) -> Manifest:
        raise ArithmeticError(f"no manifest for version {version} of {len(digests)} files")

    with pytest.raises(ArithmeticError, match=f"no manifest for version {earlier + 1} of 2 files"):
        bundle.write(tmp_path, "demo", fail, FILES)
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert earlier == len(list((tmp_path / "demo").iterdir()))


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    """A disk's error becomes a BundleError that names the model's folder."""
    files = {**FILES, "no/such/folder.txt": b""}
    with pytest.raises(BundleError, match="demo: cannot write a bundle"):
        bundle.write(tmp_path, "demo", describe_as(make_manifest(make_network())), files)
    assert [] == list((tmp_path / "demo").iterdir())


def test_a_repository_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    """A file in the place of the repository is reported with the path."""
    (tmp_path / "repository").write_text("in the way")
    with pytest.raises(BundleError, match="repository/demo: cannot write a bundle"):
        bundle.write(tmp_path / "repository", "demo", describe_as(make_manifest(make_network())), FILES)


def test_two_writers_at_once_get_two_versions(tmp_path: Path) -> None:
    """Writers that both believe in version 1 end with versions 1 and 2, both whole and true to their folder."""
    network = make_network()
    content = {bundle.MODEL_FILE: export_network(network).SerializeToString()}
    manifest = make_manifest(network)
    both_believe = threading.Barrier(2, timeout=30)
    believed: list[int] = []
    written: list[Path] = []

    def work() -> None:
        first = True

        def describe(version: int, digests: Mapping[str, str]) -> Manifest:
            nonlocal first
            believed.append(version)
            if first:
                first = False
                both_believe.wait()
            return describe_as(manifest)(version, digests)

        written.append(bundle.write(tmp_path, "demo", describe, content))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [1, 1, 2] == sorted(believed)
    assert ["1", "2"] == sorted(path.name for path in written)
    assert [1, 2] == [bundle.read(path).manifest.version for path in sorted(written)]
    assert 2 == len(list((tmp_path / "demo").iterdir()))


def test_many_processes_get_many_versions(tmp_path: Path) -> None:
    """Processes that write at the same time end with a version each, all readable."""
    source = make_bundle(tmp_path / "source", features=2, hidden=(3,))
    program = """
import sys
from pathlib import Path
from model import bundle
source, repository = map(Path, sys.argv[1:])
content = bundle.read(source)
sys.stdin.readline()
for _ in range(5):
    bundle.write(
        repository,
        "demo",
        lambda version, digests: content.manifest.model_copy(update={"version": version, "files": dict(digests)}),
        {"model.onnx": (source / "model.onnx").read_bytes()},
    )
"""
    command = [sys.executable, "-c", program, str(source), str(tmp_path / "shared")]
    writers = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) for _ in range(3)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.close()
    assert [0, 0, 0] == [writer.wait(60) for writer in writers]
    expected = list(range(1, 16))
    assert expected == bundle.versions(tmp_path / "shared", "demo")
    paths = [tmp_path / "shared" / "demo" / str(version) for version in expected]
    assert expected == [bundle.read(path).manifest.version for path in paths]
    assert 15 == len(list((tmp_path / "shared" / "demo").iterdir()))


@pytest.mark.parametrize("file", [bundle.MODEL_FILE, REPORT_FILE])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: (
            content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
        ),
        lambda content: content[:-1],
        lambda content: content + b"\n",
        lambda _: b"",
    ],
    ids=["flipped bit", "truncated", "extended", "emptied"],
)
def test_a_damaged_file_is_refused(tmp_path: Path, file: str, damage: Callable[[bytes], bytes]) -> None:
    """One changed bit of any file is enough."""
    path = make_bundle(tmp_path)
    content = (path / file).read_bytes()
    (path / file).write_bytes(damage(content))
    assert_refused(path, str(path / file), bundle.sha256(content), bundle.sha256(damage(content)))


@pytest.mark.parametrize("file", [bundle.MODEL_FILE, bundle.MANIFEST_FILE, REPORT_FILE])
def test_a_missing_file_is_refused(tmp_path: Path, file: str) -> None:
    """A bundle lacks nothing that its manifest names, nor the manifest."""
    path = make_bundle(tmp_path)
    (path / file).unlink()
    assert_refused(path, str(path / file), "No such file")


def test_a_missing_version_is_refused(tmp_path: Path) -> None:
    """A folder that is not there is reported by the file that was looked for."""
    assert_refused(tmp_path / "demo" / "1", str(tmp_path / "demo" / "1" / bundle.MANIFEST_FILE))


@pytest.mark.parametrize("version", [3, 0, "1", "2", None, True, [1]])
def test_an_unknown_schema_is_refused(tmp_path: Path, version: object) -> None:
    """Only the schemas that this code knows are read: 1 and 2, and neither "1" nor true."""
    path = make_bundle(tmp_path)
    edit_manifest(path, lambda document: document.update(schema_version=version))
    assert_refused(path, str(path / bundle.MANIFEST_FILE), "schema_version")


def test_a_manifest_without_a_schema_is_refused(tmp_path: Path) -> None:
    """A missing schema version is not taken for the current one."""
    path = make_bundle(tmp_path)
    edit_manifest(path, lambda document: document.pop("schema_version"))
    assert_refused(path, str(path / bundle.MANIFEST_FILE), "expected schema_version 1 or 2, got None")


def test_a_bundle_of_the_first_schema_is_read(tmp_path: Path) -> None:
    """Its numbers are the same; the network that it was compared with is one comparison."""
    path = make_bundle(tmp_path)
    written = bundle.read(path).manifest
    (path / bundle.MANIFEST_FILE).write_text(json.dumps(as_schema_1(written)))
    read = bundle.read(path).manifest
    assert written.model_copy(update={"comparisons": read.comparisons}) == read
    (comparison,) = read.comparisons
    assert "ReLU network" == comparison.name
    evaluation = written.evaluation
    assert (evaluation.metrics, evaluation.gradient_norm, evaluation.parameters) == (
        comparison.metrics,
        comparison.gradient_norm,
        comparison.parameters,
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b'"text"', b"[" * 200_000, b"1" * 10_000, b'{"schema_version": 1}'],
    ids=["empty", "cut", "not UTF-8", "list", "null", "text", "deep", "long number", "bare"],
)
def test_a_broken_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever stands in the manifest's place, the error is a BundleError that names the file."""
    path = make_bundle(tmp_path)
    (path / bundle.MANIFEST_FILE).write_bytes(content)
    assert_refused(path, str(path / bundle.MANIFEST_FILE))


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    """A field that this schema does not know is named, wherever it stands."""
    path = make_bundle(tmp_path)
    edit_manifest(path, lambda document: document["target"].update(colour="red"))
    assert_refused(path, str(path / bundle.MANIFEST_FILE), "target.colour", "Extra inputs are not permitted")


@pytest.mark.parametrize(("model", "version"), [("demo", "2"), ("other", "1")])
def test_a_bundle_in_the_wrong_folder_is_refused(tmp_path: Path, model: str, version: str) -> None:
    """A renamed or copied folder does not make another version or another model."""
    path = make_bundle(tmp_path)
    moved = tmp_path / model / version
    moved.parent.mkdir(exist_ok=True)
    path.rename(moved)
    assert_refused(
        moved,
        str(moved / bundle.MANIFEST_FILE),
        f"expected model {model!r} version {version} as the folder says, got 'demo' version 1",
    )


def test_a_manifest_without_the_graphs_digest_is_refused(tmp_path: Path) -> None:
    """A graph that nothing vouches for is not run."""
    path = make_bundle(tmp_path)
    edit_manifest(path, lambda document: document["files"].pop(bundle.MODEL_FILE))
    assert_refused(path, str(path / bundle.MANIFEST_FILE), "expected a digest of model.onnx in 'files', got none")


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08"], ids=["empty", "text", "cut"])
def test_what_is_no_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file with the right digest may still be no graph."""
    path = make_bundle(tmp_path)
    replace_model(path, content)
    assert_refused(path, str(path / bundle.MODEL_FILE), "expected")


@pytest.mark.parametrize("task", Task)
def test_a_graph_that_lacks_an_output_is_refused(tmp_path: Path, task: Task) -> None:
    """Each output in turn: the error names the file and the output, although all digests are right."""
    path = make_bundle(tmp_path, task=task)
    content = bundle.read(path)
    for missing, output in enumerate(content.manifest.outputs()):
        model = onnx.ModelProto()
        model.CopyFrom(content.model)
        del model.graph.output[missing]
        replace_model(path, model.SerializeToString())
        assert_refused(path, str(path / bundle.MODEL_FILE), f"expected an output {output.name!r}", "got none")


def test_a_graph_of_other_classes_is_refused(tmp_path: Path) -> None:
    """An output of another width than the manifest's classes is named, with both shapes."""
    path = make_bundle(tmp_path, targets=4)
    edit_manifest(path, lambda document: document["target"].update(classes=["a", "b", "c"]))
    assert_refused(path, str(path / bundle.MODEL_FILE), "'logits' of FLOAT [rows, 3], got FLOAT [rows, 4]")


@pytest.mark.parametrize("features", [4, 6])
def test_a_graph_of_other_features_is_refused(tmp_path: Path, features: int) -> None:
    """The input is as wide as the manifest's features."""
    path = make_bundle(tmp_path, features=5)

    def change(document: Document) -> None:
        feature = document["features"][0]
        document["features"] = [feature | {"name": f"y{k}"} for k in range(features)]

    edit_manifest(path, change)
    assert_refused(
        path,
        str(path / bundle.MODEL_FILE),
        f"expected the inputs {{'input': 'FLOAT [rows, {features}]'}}",
        "{'input': 'FLOAT [rows, 5]'}",
    )


def _set_type(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64


def _fix_batch(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1


def _drop_batch(model: onnx.ModelProto) -> None:
    del model.graph.output[0].type.tensor_type.shape.dim[:]


@pytest.mark.parametrize(
    ("change", "got"), [(_set_type, "INT64 [rows, 4]"), (_fix_batch, "FLOAT [1, 4]"), (_drop_batch, "FLOAT []")]
)
def test_an_output_of_another_kind_is_refused(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], got: str
) -> None:
    """Type and free batch axis are part of what an output promises."""
    path = make_bundle(tmp_path)
    model = bundle.read(path).model
    change(model)
    replace_model(path, model.SerializeToString())
    assert_refused(path, str(path / bundle.MODEL_FILE), "'logits' of FLOAT [rows, 4]", f"got {got}")


@pytest.mark.parametrize("files", [{}, {REPORT_FILE: REPORT}, {**FILES, bundle.MANIFEST_FILE: b"{}"}])
def test_files_that_no_reader_would_accept_are_not_written(tmp_path: Path, files: dict[str, bytes]) -> None:
    """A graph must be among the files, and the manifest is the writer's own."""
    with pytest.raises(BundleError, match=r"demo: expected model\.onnx and no manifest\.json among the files"):
        bundle.write(tmp_path, "demo", describe_as(make_manifest(make_network())), files)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../escaped", "", ".hidden", "a/b", "a b", "x" * 129])
def test_a_name_that_is_no_folder_of_the_repository_is_refused(tmp_path: Path, name: str) -> None:
    """A model's name cannot lead out of the repository."""
    repository = tmp_path / "repository"
    with pytest.raises(BundleError, match="model name: expected"):
        bundle.write(repository, name, describe_as(make_manifest(make_network())), FILES)
    assert [] == list(tmp_path.iterdir())


def test_a_manifest_of_another_model_is_not_written(tmp_path: Path) -> None:
    """What is described must be what is written."""
    with pytest.raises(BundleError, match="manifest: expected"):
        bundle.write(tmp_path, "other", describe_as(make_manifest(make_network())), FILES)
    assert [] == bundle.versions(tmp_path, "other")


def test_numbers_outside_the_file_are_refused(tmp_path: Path) -> None:
    """A tensor with external data lies in a file that no digest vouches for."""
    path = make_bundle(tmp_path)
    model = bundle.read(path).model
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere.bin")
    replace_model(path, model.SerializeToString())
    assert_refused(path, str(path / bundle.MODEL_FILE), "external data")


def test_a_type_that_onnx_does_not_know_is_refused(tmp_path: Path) -> None:
    """A number that names no type is a fault of the file, not of the reader."""
    path = make_bundle(tmp_path)
    model = bundle.read(path).model
    model.graph.output[0].type.tensor_type.elem_type = 999
    replace_model(path, model.SerializeToString())
    assert_refused(path, str(path / bundle.MODEL_FILE), "999")


def test_what_has_a_versions_name_is_stepped_over(tmp_path: Path) -> None:
    """A file in the place of the next version does not stop a writer, nor keep it trying for ever."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "1").write_text("in the way")
    assert "2" == bundle.write(tmp_path, "demo", describe_as(make_manifest(make_network())), FILES).name


def test_the_torch_free_half_imports_no_torch() -> None:
    """What the service reads of this package starts without torch, jaxtyping or any other part of training."""
    program = (
        "import sys, model.bundle, model.distance, model.errors, model.graph, model.manifest, model.onnx_runtime; "
        "import model.outputs, model.ranges; "
        "print(sorted({'torch', 'jaxtyping', 'sklearn', 'pandas'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "[]\n" == run.stdout
