"""Stands in for adb: a script that behaves like it towards a "device" that is a folder.

The test writes `scenario.json` beside it; every call is added to `calls.txt`. Keys of the scenario: `devices` (serial
-> state), `logs` (delegate flag -> text with {graph} and {us}), `codes` (delegate flag -> exit code), `microseconds`
(byte length of a model -> time), `push_error`, `vanish_at` (number of the run in which the device goes away),
`temperatures` (tenths of a degree, the last one stays), `profile` (text). What a run writes beside the model, in
hexadecimal: `results` (byte length of a model -> result.pb), `graphs` (delegate flag -> graph.pb).
"""

import json
import pathlib
import random
import re
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
SCENARIO = json.loads((HERE / "scenario.json").read_text())
STATE = HERE / "state.json"
PROPERTIES = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 7",
    "ro.soc.manufacturer": "Google",
    "ro.soc.model": "GS201",
    "ro.build.version.release": "15",
    "ro.build.version.sdk": "35",
    "ro.product.cpu.abilist": "arm64-v8a",
}
KHZ = [1803000] * 4 + [2348000] * 2 + [2850000] * 2


def main():
    with (HERE / "calls.txt").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    if sys.argv[1] == "devices":
        print("List of devices attached")
        for serial, state in SCENARIO["devices"].items():
            print(f"{serial}\t{state}")
        return 0
    serial, action = sys.argv[2], sys.argv[3]
    state = json.loads(STATE.read_text()) if STATE.exists() else {"runs": 0, "looks": 0}
    if state.get("gone") and serial == state["gone"]:
        print(f"adb: device '{serial}' not found", file=sys.stderr)
        return 1
    if action == "shell":
        code = shell(serial, sys.argv[4], state)
    else:
        code = {"push": push, "pull": pull}[action](serial, *sys.argv[4:6])
    STATE.write_text(json.dumps(state))
    return code


def place(serial, path):
    return HERE / "device" / serial / path.lstrip("/")


def push(serial, source, target):
    if SCENARIO.get("push_error"):
        print(f"{source}: 1 file pushed, 0 skipped. 5.3 MB/s (34930 bytes in 0.006s)")
        print(f"adb: error: failed to copy '{source}' to '{target}': {SCENARIO['push_error']}", file=sys.stderr)
        return 1
    shutil.copy(source, place(serial, target))
    print(f"{source}: 1 file pushed, 0 skipped. 5.3 MB/s (34930 bytes in 0.006s)")
    return 0


def pull(serial, source, target):
    if not place(serial, source).exists():
        print(f"adb: error: failed to stat remote object '{source}': No such file or directory", file=sys.stderr)
        return 1
    shutil.copy(place(serial, source), target)
    return 0


def shell(serial, line, state):
    command = re.fullmatch(r"\( (.*) \) 2>&1; echo dcp_tf_exit=\$\?", line)[1]
    code = answer(serial, command, state)
    if code is None:
        return 1
    print(f"dcp_tf_exit={code}")
    return 0


def answer(serial, command, state):
    if command == "getprop":
        print("\n".join(f"[{key}]: [{value}]" for key, value in PROPERTIES.items()))
    elif "cpuinfo_max_freq" in command:
        print("\n".join(f"/sys/devices/system/cpu/cpu{i}/cpufreq/cpuinfo_max_freq {khz}" for i, khz in enumerate(KHZ)))
    elif command == "dumpsys battery":
        degrees = SCENARIO.get("temperatures", [289])
        print("Current Battery Service state:\n  USB powered: true\n  level: 84\n  scale: 100\n  voltage: 4063")
        print(f"  temperature: {degrees[min(state['looks'], len(degrees) - 1)]}\n  technology: Li-ion")
        state["looks"] += 1
    elif command.startswith("mkdir "):
        place(serial, command.split()[1]).mkdir(parents=True)
    elif command.startswith("rm -rf "):
        shutil.rmtree(place(serial, command.split()[2]))
    elif "benchmark_model " in command and command.startswith("cd "):
        return run(serial, command, state)
    elif not command.startswith(("chmod 755 ", "pkill -f ")):
        print(f"/system/bin/sh: {command.split()[0]}: inaccessible or not found")
        return 127
    return 0


def run(serial, command, state):
    state["runs"] += 1
    if state["runs"] == SCENARIO.get("vanish_at"):
        print("INFO: STARTING!")
        print("error: closed", file=sys.stderr)
        state["gone"] = serial
        return None
    graph = re.search(r"--graph=(\S+)", command)[1]
    delegate = re.search(r"--use_\w+", command)[0]
    path = place(serial, graph)
    size = path.stat().st_size
    for name, content in (("result.pb", ("results", str(size))), ("graph.pb", ("graphs", delegate))):
        if written := SCENARIO.get(content[0], {}).get(content[1]):
            path.with_name(name).write_bytes(bytes.fromhex(written))
    us = round(SCENARIO["microseconds"].get(str(size), 10000) * random.Random(state["runs"]).uniform(0.99, 1.01))
    text = SCENARIO["logs"][delegate].replace("{graph}", graph).replace("{us}", str(us))
    print(text + (SCENARIO["profile"] if "--enable_op_profiling=true" in command else ""))
    return SCENARIO.get("codes", {}).get(delegate, 0)


if __name__ == "__main__":
    sys.exit(main())
