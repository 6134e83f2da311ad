"""What is wrong with a server, from its answer to ``status``. Pure."""

from collections.abc import Mapping
from typing import Any


def status_warnings(status: Mapping[str, Any]) -> list[str]:
    """Return what is wrong, and what to do: one line each."""
    warnings = list(status.get("login_problems", ()))
    if problem := (status.get("user_map") or {}).get("problem"):
        warnings.append(f"--user-map {problem}")
    for node in status.get("nodes", ()):
        if node["state"] in ("failing", "down"):
            refused = "; its users cannot log in" if node["state"] == "down" else ""
            advice = "see whether it runs, and can be reached from here"
            warnings.append(
                f"node {node['node']} is {node['state']}: {node['reason']}{refused}: {advice}"
            )
    redis = status.get("guard_redis")
    if redis is not None and redis["problem"]:
        alone = "this server decides alone until it is back"
        warnings.append(f"--guard-redis: {redis['problem']}; {alone}")
    if redis is not None and redis["refusal"]:
        warnings.append(
            f"--guard-redis: messages of other servers are refused, {redis['refused']} since the start:"
            f" {redis['refusal']}"
        )
    return warnings + list(status.get("certificate", {}).get("problems", ()))
