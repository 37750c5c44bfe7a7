"""Bad input: one clear line on standard error, exit code 2, and nothing written."""

import numpy as np
import pytest
from tool_inputs import SHORT, WHOLE, contents, detector, write_images

from dcp_tf import tflite
from dcp_tf.tools import benchmark, compare, evaluate, export, finetune, inspect_model, prune, quickstart, report, train


@pytest.fixture
def refused(capsys, tmp_path):
    """Runs a program that must refuse, and returns its one line; the output folder must stay as it is."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "plan.json").write_text("precious")
    (folder / "state" / "pruning").mkdir(parents=True)
    (folder / "state" / "pruning" / "selection.npz").write_bytes(b"precious too")

    def run(program, *flags):
        before = contents(folder)
        code = program.run([*flags, f"--output_dir={folder}"] if "output_dir" in program.PROGRAM.flags else [*flags])
        printed = capsys.readouterr()
        assert code == 2, printed.err
        assert printed.out == ""
        lines = printed.err.splitlines()
        assert len(lines) == 1, printed.err
        assert lines[0].startswith(f"{program.PROGRAM.name}: ")
        assert "Traceback" not in lines[0]
        assert "internal error" not in lines[0]
        assert contents(folder) == before
        return lines[0]

    return run


def subclassed(path):
    import keras

    @keras.saving.register_keras_serializable("tests")
    class Opaque(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(4)

        def call(self, images):
            return self.dense(keras.ops.mean(images, (1, 2))) if float(images[0, 0, 0, 0]) < 2 else images

    model = Opaque()
    model(np.zeros((1, 8, 8, 3), np.float32))
    model.save(path)


def test_labels_that_belong_to_none_of_several_outputs(refused, inputs, tmp_path):
    path = tmp_path / "detector.keras"
    detector().save(path)
    for program in (evaluate, compare):
        line = refused(program, f"--model={path}", inputs.data())
        assert "y_test/kind, y_test/box" in line
    assert "--teacher" in refused(finetune, f"--model={path}", inputs.data())
    assert "one output" in refused(prune, f"--model={path}", inputs.data(), "--loss=mse")


def test_a_file_of_several_outputs(refused, inputs, tmp_path):
    path = tmp_path / "detector.tflite"
    tflite.convert(detector()).save(path)
    assert "y_test/output_0, y_test/output_1" in refused(evaluate, f"--model={path}", inputs.data())


def test_several_inputs(refused, inputs, tmp_path):
    import keras

    both = [keras.Input((4,), name="left"), keras.Input((4,), name="right")]
    path = tmp_path / "two.keras"
    keras.Model(both, keras.layers.Dense(4)(keras.layers.Concatenate()(both))).save(path)
    for program in (prune, finetune, export, evaluate):
        line = refused(program, f"--model={path}", inputs.data())
        assert "has one input, the model has the inputs 'left' (4,), 'right' (4,)" in line
    assert "two.keras has 2 inputs (left, right)" in refused(prune, f"--model={path}", "--dataset=digits")


def test_subclassed_model(refused, inputs, tmp_path):
    path = tmp_path / "opaque.keras"
    subclassed(path)
    line = refused(prune, f"--model={path}", inputs.data(), *SHORT)
    assert "Opaque" in line
    assert "`return self.dense(" in line  # the line that cannot be retraced


def test_files_that_are_no_models(refused, inputs, tmp_path):
    path = tmp_path / "text.keras"
    path.write_text("no model")
    assert "no .keras file" in refused(prune, f"--model={path}", inputs.data())
    assert "there is no model file" in refused(prune, "--model=nowhere.keras", inputs.data())
    assert "folder" in refused(prune, f"--model={tmp_path}", inputs.data())
    assert "say which model" in refused(prune, inputs.data())
    assert "unknown network 'nothing'" in refused(prune, "--model=zoo:nothing", inputs.data())
    assert "there is no model file" in refused(finetune, "--model=nowhere.keras", inputs.data())
    assert "there is no model file" in refused(export, "--model=nowhere.keras", inputs.data())
    assert "there is no model file" in refused(inspect_model, "--model=nowhere.keras")
    assert "nowhere.tflite" in refused(evaluate, "--model=nowhere.tflite", inputs.data())
    assert "nowhere.tflite" in refused(benchmark, "--models=nowhere.tflite")
    path = tmp_path / "text.tflite"
    path.write_text("no model")
    assert "text.tflite" in refused(evaluate, f"--model={path}", inputs.data())


def test_labels_outside_the_outputs(refused, inputs, tmp_path):
    data = write_images(tmp_path / "more.npz", size=32, y_train=np.arange(32))
    line = refused(prune, inputs.residual, f"--dataset=npz:{data}", *SHORT)
    assert "the label 31" in line
    assert "4 outputs" in line
    data = write_images(tmp_path / "negative.npz", size=32, y_train=np.arange(32) % 4 - 1)
    assert "negative label -1" in refused(prune, inputs.residual, f"--dataset=npz:{data}", *SHORT)


def test_images_of_the_wrong_shape(refused, inputs, tmp_path):
    line = refused(prune, inputs.residual, inputs.data("larger"), *SHORT)
    assert "(16, 16, 3)" in line
    assert "(8, 8, 3)" in line
    assert "--resize" in line
    assert "(8, 8, 1)" in refused(prune, inputs.residual, inputs.data("gray"), *SHORT)
    assert "channels" in refused(prune, inputs.residual, inputs.data("deep"), *SHORT)
    assert "channels" in refused(prune, inputs.residual, inputs.data("deep"), *SHORT, "--resize")
    flat = write_images(tmp_path / "flat.npz", size=32, x_train=np.zeros((32, 192), np.float32))
    assert "(32, 192)" in refused(prune, inputs.residual, f"--dataset=npz:{flat}", *SHORT)
    assert "--resize" in refused(evaluate, inputs.residual, inputs.data("larger"))
    assert "--resize" in refused(export, inputs.residual, inputs.data("larger"))
    assert "--resize" in refused(finetune, inputs.residual, inputs.data("larger"))


def test_arrays_that_are_no_images(refused, inputs, tmp_path):
    images = np.full((32, 8, 8, 3), 0.5, np.float32)
    images[5, 2, 2, 0] = np.nan
    data = write_images(tmp_path / "nan.npz", size=32, x_train=images)
    line = refused(prune, inputs.residual, f"--dataset=npz:{data}", *SHORT)
    assert "x_train" in line
    assert "NaN" in line
    assert "there is no file" in refused(prune, inputs.residual, "--dataset=npz:nowhere.npz", *SHORT)
    np.savez(tmp_path / "part.npz", x_train=images)
    assert "lacks y_train" in refused(prune, inputs.residual, f"--dataset=npz:{tmp_path}/part.npz", *SHORT)
    assert "unknown data set" in refused(prune, inputs.residual, "--dataset=imagenot", *SHORT)


@pytest.mark.parametrize("rate", ["0", "1", "1.5", "-0.5", "nan", "half"])
def test_rate_outside_0_to_1(rate, refused, inputs):
    assert "rate" in refused(prune, inputs.residual, inputs.data(), f"--rate={rate}")
    assert "rate" in refused(quickstart, f"--rate={rate}")


def test_unknown_names(refused, inputs):
    given = (inputs.residual, inputs.data(), *SHORT)
    assert "'nothing'" in refused(prune, *given, "--exclude=nothing")
    assert "'nothing'" in refused(prune, *given, "--auxiliary_layers=nothing")
    assert "dcp-tf inspect --layers" in refused(prune, *given, "--auxiliary_layers=joined,nothing")
    assert "'nothing'" in refused(prune, *given, "--quantization=float32,nothing")
    assert "'nothing'" in refused(quickstart, "--exclude=nothing", "--model=zoo:preresnet8")
    assert "'nothing'" in refused(export, inputs.residual, inputs.data(), "--quantization=nothing")


def test_unknown_or_wrong_flags(refused, inputs):
    assert "'nothing'" in refused(prune, "--nothing=1")
    assert "Did you mean" in refused(prune, "--rat=0.3")
    assert "nothing" in refused(prune, "--method=nothing")
    assert "'nothing'" in refused(prune, "nothing")
    assert "received 'a'" in refused(prune, inputs.residual, inputs.data(), "--mean=a", "--std=1")
    assert "--mean" in refused(prune, inputs.residual, inputs.data(), "--mean=1", "--std=1", "--normalization=tf")
    assert "seed" in refused(prune, f"--seed={2**40}")


def test_settings_that_cannot_be(refused, inputs):
    given = (inputs.residual, inputs.data(), *SHORT)
    assert "distillation" in refused(prune, *given, "--distillation=2")
    assert "--aux_lr" in refused(prune, *given, "--aux_lr=0")
    assert "--finetune_lr" in refused(prune, *given, "--finetune_lr=0")
    assert "selection_lr" in refused(prune, *given, "--selection_lr=0")
    assert "nothing would be removed" in refused(prune, *given, "--rate=0.01")
    assert "--teacher" in refused(finetune, inputs.residual, inputs.data(), "--distillation=0.5")
    teacher = f"--teacher={inputs.folder}/residual.keras"
    assert "--teacher" in refused(finetune, inputs.residual, inputs.data(), teacher, "--distillation=0")
    assert "train" in refused(train, inputs.residual, inputs.data())


def test_no_prunable_group(refused, inputs):
    assert "no group of channels" in refused(prune, inputs.unprunable, inputs.data(), *SHORT)
    line = refused(prune, inputs.residual, inputs.data(), *SHORT, "--exclude=inside,wide")
    assert "no group of channels" in line
    assert "--prune_residual" in line


@pytest.mark.parametrize("program", [prune, train, finetune, quickstart, export])
def test_output_folder_that_is_a_file(program, inputs, tmp_path, capsys):
    path = tmp_path / "file"
    path.write_text("precious")
    model = inputs.residual if program in (prune, finetune, export) else "--model=zoo:preresnet8"
    data = [] if program is quickstart else [inputs.data()]
    assert program.run([model, *data, f"--output_dir={path}"]) == 2
    line = capsys.readouterr().err
    assert len(line.splitlines()) == 1
    assert "cannot be written" in line
    assert path.read_text() == "precious"


def test_no_output_folder(inputs, capsys):
    for program in (prune, train, finetune, report):
        given = [] if program is report else [inputs.data()]
        assert program.run(given) == 2
        assert "--output_dir" in capsys.readouterr().err


def test_folder_that_is_no_run(refused):
    assert "no summary.json" in refused(report)


def test_resume_with_other_settings(copied_run, inputs, capsys):
    before = contents(copied_run)
    flags = [inputs.residual, inputs.data(), f"--output_dir={copied_run}", *WHOLE, "--resume"]
    assert prune.run([*flags, "--rate=0.25"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "other settings" in line
    assert "(--rate 0.5 -> 0.25)" in line
    assert contents(copied_run) == before


def test_resume_with_other_data(copied_run, inputs, capsys):
    before = contents(copied_run)
    flags = [inputs.residual, f"--output_dir={copied_run}", *WHOLE, "--resume"]
    for other in ([inputs.data("two")], [inputs.data(), "--mean=.5", "--std=.1"]):
        assert prune.run([*flags, *other]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert "other settings" in line
        assert "(other training images, normalization or augmentation" in line
        assert len(line) < 250
    assert contents(copied_run) == before


def test_training_needs_labels_to_measure_on(refused, tmp_path):
    images = np.zeros((8, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "half.npz", x_train=images, y_train=np.arange(8) % 2, x_test=images)
    line = refused(train, "--model=zoo:preresnet8", f"--dataset=npz:{tmp_path / 'half.npz'}")
    assert "has no labels to measure on" in line


@pytest.mark.parametrize("program", [train, prune])
def test_no_network_is_built_for_channels_that_come_first(program, refused, tmp_path):
    images, labels = np.zeros((8, 3, 32, 32), np.uint8), np.arange(8) % 2
    np.savez(tmp_path / "first.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    line = refused(program, "--model=zoo:preresnet8", f"--dataset=npz:{tmp_path / 'first.npz'}")
    assert "(3, 32, 32) have their channels first; numpy.moveaxis" in line
