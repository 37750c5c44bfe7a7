"""How a model file is read: `--custom_objects` and `--allow_lambda` for a user's own code, and `--open_layers`."""

from typing import Any

from dcp_tf.tools.cli.program import Program


def define_model_code(program: Program) -> None:
    """`--custom_objects`, `--allow_lambda` and `--open_layers`."""
    program.path(
        "custom_objects",
        None,
        "A Python file with the layers, models and functions of your own that the model file names. It is imported "
        "first: this runs the code in it. Lambda layers find its imports too.",
    )
    program.boolean(
        "allow_lambda",
        False,
        "Load Lambda layers: this runs code that is stored in the model file, so say it for files that you trust.",
    )
    program.boolean(
        "open_layers",
        False,
        "Open custom layers whose call is made of Keras layers and operations, such as those of KerasHub: each becomes "
        "a nested model whose inner channels can be pruned, and the files that are written need its code no more.",
    )


def code_of(flags: Any) -> dict[str, Any]:
    """The code that the flags allow, as arguments; none for programs without these flags."""
    return {
        "custom_objects": flags.custom_objects if "custom_objects" in flags else None,
        "allow_lambda": flags.allow_lambda if "allow_lambda" in flags else False,
    }


def loading_of(flags: Any) -> dict[str, Any]:
    """The arguments of `dcp_tf.models.load` that the flags state."""
    return {**code_of(flags), "open_layers": flags.open_layers if "open_layers" in flags else False}


def compile_model(flags: Any, model: Any) -> list[str]:
    """Compiles the model in place as its file says; a line for what cannot be read of that."""
    from dcp_tf.models.saved_compile import compile_as_saved
    from dcp_tf.tools.cli.run_record import is_of_first_version

    if is_of_first_version(flags):
        return []
    lost = compile_as_saved(model, flags.model)
    return [
        f"note: the {what.replace('_', ' ')} of model.compile is left out: {why}"
        + ("; --custom_objects=FILE.py brings it" if "custom_objects" in flags and not flags.custom_objects else "")
        for what, why in lost.items()
    ]


def notes_on(flags: Any, model: Any) -> list[str]:
    """A line for each reason why the `.keras` files that a program writes of a model need more than plain Keras."""
    from dcp_tf.models.custom_objects import is_custom, lambdas
    from dcp_tf.models.saved_compile import own_parts

    notes = []
    own = {type(layer).__name__ for layer in model._flatten_layers() if is_custom(layer)} | set(own_parts(model))
    if own:
        origin = f" (in {flags.custom_objects})" if flags.custom_objects else ""
        notes.append(
            f"the .keras files of this run hold {', '.join(sorted(own))}: whoever loads them needs that code{origin}, "
            "keras.models.load_model(FILE, custom_objects={...})"
        )
    if names := lambdas(model):
        notes.append(
            f"the .keras files of this run hold Lambda layers ({', '.join(names)}): they load with "
            "keras.models.load_model(FILE, safe_mode=False) only"
        )
    return notes


def define_reload_check(program: Program) -> None:
    """`--reload_check`."""
    program.boolean(
        "reload_check",
        True,
        "Load the .keras files that were written with plain Keras in a process of its own, and compare the outputs "
        "with those of the models that were measured. It takes the seconds in which TensorFlow starts.",
    )
