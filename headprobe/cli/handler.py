"""The one place that turns what went wrong into a line on standard error and an exit code."""

import atexit
import gc
import os
import platform
import signal
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType

import typer

from headprobe.errors import EnvironmentFailure, HeadprobeError, printable

BUG, INTERRUPTED, TERMINATED, BROKEN_PIPE = 70, 130, 143, 141


def main() -> None:
    """Run the program and leave with its exit code."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # torch's threads spin for each other on cores that metrics want
    gc.set_threshold(100_000, 20, 100)  # looking again and again through what imports leave behind takes half a second
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks is shown as an escape
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    code = run()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)  # nothing is left to be done, and taking torch's modules apart one by one takes half a second


def run(arguments: list[str] | None = None) -> int:
    """Run the program on `arguments` (those of the process by default); the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        from headprobe.cli.app import app

        code = app([word for word in given if word != "--debug"], prog_name="headprobe", standalone_mode=False)
        sys.stdout.flush()
    except HeadprobeError as fault:
        return _told(str(fault), fault.exit_code, debug)
    except typer.TyperException as fault:
        message = fault.format_message().replace("\n", " ")
        return _told(printable(f"error[E-USAGE]: {message.rstrip('.')}. See headprobe --help."), 2, debug)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except (BrokenPipeError, SystemExit) as stop:
        return _stopped(stop)
    except OSError as fault:
        _silence(sys.stdout)
        failure = EnvironmentFailure("E-IO", f"input or output failed: {fault.strerror or fault}")
        return _told(str(failure), failure.exit_code, debug)
    except Exception as fault:  # the one broad handler: whatever gets here is a bug
        return _bug(fault, debug)
    return code if isinstance(code, int) else 0


def _stopped(stop: BaseException) -> int:
    """A reader that went away, as Python tells it or as the libraries do: by leaving with code 1."""
    if isinstance(stop, BrokenPipeError) or isinstance(stop.__context__, BrokenPipeError):
        _silence(sys.stdout)
        return BROKEN_PIPE
    code = stop.code if isinstance(stop, SystemExit) else 1
    return code if isinstance(code, int) else 0


def _told(line: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"headprobe: {line}", file=sys.stderr)
    return code


def _bug(fault: Exception, debug: bool) -> int:
    with tempfile.NamedTemporaryFile("w", prefix="headprobe-", suffix=".log", delete=False, encoding="utf-8") as log:
        log.write(f"headprobe, Python {platform.python_version()}, {platform.platform()}\n{traceback.format_exc()}")
    what = f"{type(fault).__name__}: {fault}".splitlines()[0][:200]
    line = printable(f"error[E-BUG]: {what}. This is a bug in headprobe: please report it with the log {log.name}.")
    return _told(line, BUG, debug)


def _silence(stream: object) -> None:
    """Keep Python from failing again when it flushes a stream that is gone."""
    fileno = getattr(stream, "fileno", None)
    if fileno is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), fileno())


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    sys.exit(TERMINATED)
