"""The text of `ascend-vlm cluster`; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..session.fleet import Host, judging, mixed


def lines(hosts: Sequence[Host], resource: str) -> Iterator[str]:
    """Lines about the hosts of a cluster, and about what differs between them.

    Args:
        hosts: the hosts.
        resource: Ray's name of a card.
    """
    for host in hosts:
        yield f"{host.name}: {host.cards} {resource}, {host.set_up['device']}"
        if problem := host.unavailable or host.misconfigured:
            yield f"  starts no server: {problem}"
        python = host.set_up["environment"]["python"]
        versions = {"Python": python, **host.set_up["versions"]}
        yield f"  {', '.join(f'{name} {version}' for name, version in versions.items())}"
        for model_id, why in host.weights.items():
            if lacking := host.packages.get(model_id):
                yield f"  {model_id} is not applicable: {lacking}"
            else:
                yield f"  weights of {model_id}: {why or 'found'}"
    differences = mixed(judging(hosts))
    if differences:
        yield "The hosts differ, so pytest --vlm-ray refuses them (--vlm-ray-mixed accepts them):"
        yield from (f"  {line}" for line in differences)
    else:
        yield "The hosts are alike."


def is_ready(hosts: Sequence[Host]) -> bool:
    """True if every host with cards can serve every model that its packages can load.

    The hosts must be alike, and of the models that are asked about, each must be able to load one.
    """
    own = judging(hosts)
    return not mixed(own) and all(host.cards and _can_serve(host) for host in own)


def _can_serve(host: Host) -> bool:
    loadable = [why for model_id, why in host.weights.items() if not host.packages.get(model_id)]
    none_left = bool(host.weights) and not loadable
    return not (host.unavailable or host.misconfigured or any(loadable) or none_left)
