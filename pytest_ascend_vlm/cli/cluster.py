"""`ascend-vlm cluster`: shows the hosts of a Ray cluster."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..named_path import named_path
from ..session.options import Options


def add_to(commands: Any) -> None:
    """Adds the subcommand."""
    cluster = commands.add_parser(
        "cluster",
        help="show the hosts of a Ray cluster: cards, versions, weights",
        description="Asks each host of a Ray cluster for its cards, its versions, and the weights "
        "of the models. Starts no server. The exit code is 1 if a host cannot serve one of the "
        "models, or if the hosts differ.",
    )
    cluster.add_argument(
        "address",
        nargs="?",
        default="auto",
        metavar="ADDRESS",
        help="HOST:PORT of the cluster, or auto for the cluster of this host (default: auto)",
    )
    cluster.add_argument(
        "--models",
        type=named_path,
        metavar="DIR",
        help="model file, or directory of model files, whose weights are searched on each host",
    )
    cluster.add_argument(
        "--weights-root",
        type=named_path,
        metavar="DIR",
        help="directory of the weights on each host, DIR/<organisation>/<model> (default: the "
        "caches of ModelScope and Hugging Face)",
    )
    cluster.add_argument(
        "--weights",
        metavar="ID=DIR",
        action="append",
        default=[],
        help="directory of the weights of one model on each host, as with pytest's --vlm-weights. "
        "May be repeated",
    )
    cluster.add_argument(
        "--platform", default="npu", metavar="NAME", help="platform of the cards (default: npu)"
    )
    cluster.set_defaults(run=_cluster)


def _cluster(options: argparse.Namespace) -> int:
    from ..integration.weights import parsed
    from ..platforms import require_platform
    from ..scheduling import overview
    from ..scheduling.ray import connected
    from ..scheduling.resources import resource_of
    from ..scheduling.work import Question
    from ..suite.gate_list import suite_classes

    models = suite_classes(options.models).values() if options.models else ()
    question = Question(
        Options(
            platform=require_platform(options.platform),
            checkpoint="full",
            log_dir=Path(),
            weights_root=options.weights_root and options.weights_root.absolute(),
            weights=parsed("--weights", options.weights, Path.cwd(), must_exist=False),
        ),
        fixtures="fixtures",
        models=tuple(models),
        digests=False,
    )
    with connected(options.address, options.platform) as cluster:
        hosts = cluster.look(cluster.nodes(), question)
    print("\n".join(overview.lines(hosts, resource_of(options.platform))))
    return 0 if overview.is_ready(hosts) else 1
