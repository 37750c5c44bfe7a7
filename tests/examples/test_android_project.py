"""The Android project in examples/, which cannot be built here: what its texts say of each other and of dcp_tf."""

import pathlib
import re
import xml.etree.ElementTree as ET

import pytest
from ai_edge_litert import schema_py_generated as schema

from dcp_tf.tflite.schema import metadata

PROJECT = pathlib.Path(__file__).resolve().parents[2] / "examples" / "android"
MAIN = PROJECT / "app" / "src" / "main"
KOTLIN = sorted(MAIN.rglob("*.kt"))
ANDROID = "{http://schemas.android.com/apk/res/android}"


def read(path):
    return (PROJECT / path).read_text("utf-8")


def code():
    return "".join(path.read_text("utf-8") for path in KOTLIN)


def strings():
    return {element.get("name"): element.text for element in ET.parse(MAIN / "res/values/strings.xml").getroot()}


def test_packages_are_folders_and_the_manifest_names_a_class():
    (space,) = re.findall(r'namespace = "(.+)"', read("app/build.gradle.kts"))
    (identity,) = re.findall(r'applicationId = "(.+)"', read("app/build.gradle.kts"))
    for path in KOTLIN:
        (package,) = re.findall(r"^package (.+)$", path.read_text("utf-8"), re.MULTILINE)
        assert package == space
        assert path.parent == MAIN / "kotlin" / pathlib.Path(*package.split("."))
        assert re.search(rf"^(?:data )?class {path.stem}\b", path.read_text("utf-8"), re.MULTILINE)
    (activity,) = ET.parse(MAIN / "AndroidManifest.xml").getroot().iter("activity")
    assert activity.get(f"{ANDROID}name") == ".MainActivity"
    assert f"am start -n {identity}/.MainActivity" in read("README.md")


def test_resources_exist_and_are_used():
    layout = ET.parse(MAIN / "res/layout/activity_main.xml").getroot()
    ids = {view.get(f"{ANDROID}id").removeprefix("@+id/") for view in layout.iter() if view.get(f"{ANDROID}id")}
    kinds = {view.get(f"{ANDROID}id", "").removeprefix("@+id/"): view.tag for view in layout.iter()}
    texts = "".join(path.read_text("utf-8") for path in MAIN.rglob("*.xml"))
    assert set(re.findall(r"R\.id\.(\w+)", code())) == ids
    assert set(re.findall(r"R\.string\.(\w+)", code())) | set(re.findall(r'"@string/(\w+)"', texts)) == strings().keys()
    assert set(re.findall(r"R\.layout\.(\w+)", code())) == {"activity_main"}
    for kind, name in re.findall(r"findViewById<(\w+)>\(R\.id\.(\w+)\)", code()):
        assert kinds[name] == kind


@pytest.mark.parametrize(("name", "count"), [("heading", 5), ("row", 2), ("value", 2)])
def test_texts_get_as_many_values_as_they_have_places(name, count):
    assert {int(place) for place in re.findall(r"%(\d)\$", strings()[name])} == set(range(1, count + 1))
    (arguments,) = re.findall(rf"getString\(R\.string\.{name}, (.+)\)", code())
    assert len(re.split(r",(?![^()]*\))", arguments)) == count


def test_versions_and_libraries_are_stated_once():
    catalog, build = read("gradle/libs.versions.toml"), read("app/build.gradle.kts")
    libraries = {name.replace("-", ".") for name in re.findall(r"^([\w-]+) = \{ group", catalog, re.MULTILINE)}
    assert set(re.findall(r"implementation\(libs\.([\w.]+)\)", build)) == libraries == {"litert", "litert.gpu"}
    versions = dict(re.findall(r'^(\w+) = "(.+)"$', catalog, re.MULTILINE))
    assert set(re.findall(r'version\.ref = "(\w+)"', catalog)) == versions.keys()
    guide = (PROJECT.parents[1] / "docs/guides/android.md").read_text("utf-8")
    assert f"com.google.ai.edge.litert:litert:{versions['litert']}" in guide
    minimum, target, compiled = (int(re.search(rf"{name} = (\d+)", build)[1]) for name in SDKS)
    assert minimum < target <= compiled
    assert f"| minSdk | {minimum}," in guide
    assert f"platform {compiled}" in read("README.md")


SDKS = ("minSdk", "targetSdk", "compileSdk")


def test_assets_are_named_as_the_readme_names_them_and_not_kept():
    assets = "app/src/main/assets"
    for name in re.findall(r'const val (?:MODEL|IMAGES) = "(.+)"', code()):
        assert f"{assets}/{name}" in read("README.md")
    assert f"{assets}/" in read(".gitignore").split()
    kept = {path.suffix for path in PROJECT.rglob("*") if path.is_file()}
    assert kept <= {"", ".kt", ".kts", ".md", ".properties", ".toml", ".xml"}  # no binaries


def test_the_app_reads_what_dcp_tf_writes():
    text = read("app/src/main/kotlin/dev/dcptf/sample/ModelFile.kt")
    constants = dict(re.findall(r'const val (\w+) = "?(\w+)"?', text))
    assert constants["ENTRY"] == metadata.OWN
    written = set(metadata.Metadata.__dataclass_fields__)
    assert set(re.findall(r'metadata\.\w+\("(\w+)"\)', text)) <= written
    assert int(constants["FLOAT32"]) == schema.TensorType.FLOAT32
    # Each field of a FlatBuffer's table takes two bytes of its layout, which begins with four bytes of sizes.
    starts = {
        "MODEL_SUBGRAPHS": schema.ModelAddSubgraphs,
        "MODEL_BUFFERS": schema.ModelAddBuffers,
        "MODEL_METADATA": schema.ModelAddMetadata,
        "GRAPH_TENSORS": schema.SubGraphAddTensors,
        "GRAPH_INPUTS": schema.SubGraphAddInputs,
        "TENSOR_SHAPE": schema.TensorAddShape,
        "TENSOR_TYPE": schema.TensorAddType,
        "BUFFER_DATA": schema.BufferAddData,
        "ENTRY_NAME": schema.MetadataAddName,
        "ENTRY_BUFFER": schema.MetadataAddBuffer,
    }
    for name, add in starts.items():
        assert int(constants[name]) == slot(add), name
    assert {name for name, value in constants.items() if value.isdecimal()} == starts.keys() | {"FLOAT32"}


def slot(add):
    """The number of the field that a function of the schema adds."""

    class Builder:
        def prepend(self, number, *_):
            self.number = number

        PrependUOffsetTRelativeSlot = PrependInt8Slot = PrependUint32Slot = prepend

    builder = Builder()
    add(builder, 0)
    return builder.number
