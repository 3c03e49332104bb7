"""The shell commands that messages ask the user to run."""

from __future__ import annotations

import shlex

from .options import Options


def record_command(options: Options, test_path: str, marker: str, model_id: str) -> str:
    """The command that records the goldens or scores of a model file.

    Args:
        options: the options of this run.
        test_path: path of the model file, relative to the directory of the user's shell.
        marker: "cpu_baseline" for goldens, "dataset" for scores.
        model_id: the model's id.
    """
    words = ["pytest", test_path, "-m", marker, "--vlm-record"]
    # Goldens are recorded without a server, and an endpoint has no platform option.
    if marker == "dataset" and options.server_url is None:
        words.append(f"--vlm-platform={options.platform}")
    words.append(f"--vlm-checkpoint={options.checkpoint}")
    if marker == "dataset":
        words.append(f"--vlm-datasets-root={options.datasets_root or 'DIR'}")
    if options.weights_root is not None:
        words.append(f"--vlm-weights-root={options.weights_root}")
    if model_id in options.weights:
        words += ["--vlm-weights", f"{model_id}={options.weights[model_id]}"]
    return shlex.join(words)
