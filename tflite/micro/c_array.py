"""A file as a C array, which firmware links into flash memory."""

import re
import textwrap

_ALIGNMENT = 16  # bytes; interpreters read weights in place


def c_array(content: bytes, name: str) -> str:
    """C and C++ source code of an aligned, constant array with the content of a file, and its length.

    Args:
        content: of the file.
        name: of the array, such as the file's; what no C identifier has becomes "_".
    """
    name = re.sub(r"\W|^(?=\d)", "_", name, flags=re.ASCII)
    values = textwrap.fill(", ".join(map(str, content)), 116, initial_indent="  ", subsequent_indent="  ")
    return f"""// A TensorFlow Lite model. Declare it where it is used:
//   extern "C" const unsigned char {name}[];  (without "C" in C)
//   extern "C" const unsigned int {name}_len;
#ifdef __cplusplus
extern "C" {{
extern const unsigned char {name}[];
extern const unsigned int {name}_len;
}}
alignas({_ALIGNMENT})
#else
_Alignas({_ALIGNMENT})
#endif
const unsigned char {name}[] = {{
{values}
}};
const unsigned int {name}_len = {len(content)};
"""
