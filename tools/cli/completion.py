"""Scripts that complete commands and flags in a shell, made from the flags."""

import re
from collections.abc import Mapping
from typing import Any

from dcp_tf.tools.cli.help_text import choices

# What each shell needs once.
SHELLS = {
    "bash": "dcp-tf completion bash > ~/.local/share/bash-completion/completions/dcp-tf",
    "zsh": "dcp-tf completion zsh > ~/.zfunc/_dcp-tf, where ~/.zfunc is in fpath",
    "fish": "dcp-tf completion fish > ~/.config/fish/completions/dcp-tf.fish",
}
_BASH = r"""# Completion of dcp-tf in bash.
_dcp_tf() {
    local flag= word=${COMP_WORDS[COMP_CWORD]} words=
    if [[ $COMP_CWORD == 1 ]]; then
        COMPREPLY=($(compgen -W "@NAMES@ completion help" -- "$word"))
        return
    fi
    if [[ $word == = ]]; then
        flag=${COMP_WORDS[COMP_CWORD-1]} word=
    elif [[ ${COMP_WORDS[COMP_CWORD-1]} == = ]]; then
        flag=${COMP_WORDS[COMP_CWORD-2]}
    fi
    if [[ -n $flag ]]; then
        case ${COMP_WORDS[1]}$flag in
@CHOICES@
            *) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$word")); return ;;
        esac
        COMPREPLY=($(compgen -W "$words" -- "$word"))
        return
    fi
    case ${COMP_WORDS[1]} in
@FLAGS@
        completion) words="bash zsh fish" ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
}
complete -F _dcp_tf dcp-tf"""
_ZSH = r"""#compdef dcp-tf
# Completion of dcp-tf in zsh.
_dcp_tf() {
    if (( CURRENT == 2 )); then
        local -a names=(@NAMES@)
        _describe program names
        return
    fi
    shift words
    (( CURRENT-- ))
    case $words[1] in
@FLAGS@
        completion) _values shell bash zsh fish ;;
    esac
}
if [[ $funcstack[1] == _dcp-tf ]]; then _dcp_tf "$@"; else compdef _dcp_tf dcp-tf; fi"""


def script(shell: str, programs: Mapping[str, tuple[Any, str]]) -> str:
    """The script of a shell.

    Args:
        shell: one of `SHELLS`.
        programs: name -> the `Program`, and what it does in one sentence.
    """
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](programs)


def _bash(programs: Mapping[str, tuple[Any, str]]) -> str:
    cases, flags = [], []
    for name, (program, _) in programs.items():
        words = []
        for flag in program.flags_in_order():
            words += [f"--{flag.name}"] if flag.boolean else [f"--{flag.name}="]
            if values := choices(flag):
                cases.append(f'            {name}--{flag.name}) words="{" ".join(values)}" ;;')
        flags.append(f'        {name}) words="{" ".join(words)}" ;;')
    return _filled(_BASH, NAMES=" ".join(programs), CHOICES="\n".join(cases), FLAGS="\n".join(flags))


def _zsh(programs: Mapping[str, tuple[Any, str]]) -> str:
    names = " ".join(f"'{name}:{_quoted(about, ':')}'" for name, (_, about) in programs.items())
    flags = []
    for name, (program, _) in programs.items():
        specs = []
        for flag in program.flags_in_order():
            values = choices(flag)
            takes = "" if flag.boolean else f":value:({' '.join(values)})" if values else ":file:_files"
            specs.append(f"'--{flag.name}{'' if flag.boolean else '='}[{_quoted(_about(flag), '[]:')}]{takes}'")
        flags.append(f"        {name}) _arguments {' '.join(specs)} ;;")
    return _filled(_ZSH, NAMES=names, FLAGS="\n".join(flags))


def _fish(programs: Mapping[str, tuple[Any, str]]) -> str:
    lines = ["# Completion of dcp-tf in fish."]
    lines += [
        f"complete -c dcp-tf -f -n __fish_use_subcommand -a {name} -d '{_quoted(about)}'"
        for name, (_, about) in programs.items()
    ]
    lines.append("complete -c dcp-tf -f -n __fish_use_subcommand -a completion -d 'Prints a script like this'")
    lines.append("complete -c dcp-tf -f -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'")
    for name, (program, _) in programs.items():
        for flag in program.flags_in_order():
            values = choices(flag)
            takes = "" if flag.boolean else f" -x -a '{' '.join(values)}'" if values else " -r"
            condition = f"-n '__fish_seen_subcommand_from {name}'"
            lines.append(f"complete -c dcp-tf {condition} -l {flag.name}{takes} -d '{_quoted(_about(flag))}'")
    return "\n".join(lines)


def _about(flag: Any) -> str:
    """The first words of a help text."""
    text = re.sub(r"^<.+?>: ", "", flag.help).split(". ")[0]
    return text if len(text) <= 70 else text[:67].rsplit(" ", 1)[0] + " ..."


def _quoted(text: str, escaped: str = "") -> str:
    """A text between single quotes, with some characters behind backslashes."""
    return "".join("\\" + char if char in escaped else char for char in text.replace("\\", "").replace("'", "’"))


def _filled(template: str, **parts: str) -> str:
    for name, part in parts.items():
        template = template.replace(f"@{name}@", part)
    return template
