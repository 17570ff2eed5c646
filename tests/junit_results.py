#!/usr/bin/env python3
"""junit_results.py FILE PREFIX - ctest's JUnit file as `ok`, `not ok` and `skip` lines."""
import sys
import xml.etree.ElementTree as ElementTree

OUTPUT_LINES = 40


def main():
    path, prefix = sys.argv[1:]
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{prefix}/{case.get('name')}"
        status = case.get("status")
        if status == "run":
            print(f"ok {name}")
        elif status in ("notrun", "disabled") or case.find("skipped") is not None:
            print(f"skip {name} it says that it cannot run here")
        else:
            failure = case.find("failure")
            reason = (failure.get("message") if failure is not None else "") or status
            print(f"not ok {name} {reason} after {case.get('time')} s")
            output = case.findtext("system-out") or ""
            for line in output.splitlines()[-OUTPUT_LINES:]:
                print(f"  {line}")


if __name__ == "__main__":
    main()
