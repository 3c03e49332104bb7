"""The commands that messages tell to run."""

from __future__ import annotations

import shlex

from .options import Options


def record_command(options: Options, test_path: str, marker: str) -> str:
    """The command that records the references of a model file.

    Args:
        options: those of this run.
        test_path: the model file, as a command line names it.
        marker: "cpu_baseline" for goldens, "dataset" for scores.
    """
    words = ["pytest", test_path, "-m", marker, "--vlm-record"]
    # Scores are recorded from a server that the suite starts.
    if marker == "dataset" and options.server_url is None:
        words.append(f"--vlm-platform={options.platform}")
    words.append(f"--vlm-checkpoint={options.checkpoint}")
    if marker == "dataset":
        words.append(f"--vlm-datasets-root={options.datasets_root or 'DIR'}")
    elif options.weights_root is not None:
        words.append(f"--vlm-weights-root={options.weights_root}")
    return shlex.join(words)
