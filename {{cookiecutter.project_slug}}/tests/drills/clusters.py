"""Drills of the clusters of docker-compose.cluster.yml: a node of each dies, and a standby is promoted.

Everything else is as in `make drill`.
"""

import sys
from functools import partial

from tests.drills.__main__ import run_in
from tests.drills.faults import UNAVAILABLE, killed
from tests.drills.stack import Stack


def promote(stack: Stack) -> None:
    """Let the standby take the place of the primary, which is off; it does not wait for a standby of its own."""
    stack.primary, stack.standby = stack.standby, stack.primary
    stack.compose("exec", "-T", stack.primary, "sh", "/promote.sh")


def make_standby(stack: Stack) -> None:
    """Let the node that was the primary copy the new one, which waits for it from then on."""
    stack.compose("stop", stack.standby)
    stack.compose("run", "--rm", "--no-deps", "--entrypoint", "sh", stack.standby, "/node.sh", "copy")
    stack.up("--no-deps", stack.standby)
    stack.compose("exec", "-T", stack.primary, "sh", "/docker-entrypoint-initdb.d/standby.sh")


# {% if cookiecutter.caching %}
REDIS = ("redis", "redis-2", "redis-3")
COUNT_KEYS = 'REDISCLI_AUTH="$(cat /run/secrets/redis_password)" redis-cli dbsize'


def kill_node_with_keys(stack: Stack) -> None:
    """Kill the Redis that has all keys of the service, and exit when that is not one."""
    keys = {service: int(stack.compose("exec", "-T", service, "sh", "-c", COUNT_KEYS)) for service in REDIS}
    having = [service for service in REDIS if keys[service]]
    if len(having) != 1:
        sys.exit(f"the keys of the service are not on one node: {keys}")
    stack.compose("kill", *having)


# {% endif %}
# {% if cookiecutter.queued_writes %}
RABBITMQ = ("rabbitmq", "rabbitmq-2", "rabbitmq-3")


def kill_leader_of_queue(stack: Stack) -> None:
    """Kill the RabbitMQ that leads the queue, and exit when its replicas are not three."""
    ask = ("rabbitmqctl", "--quiet", "list_queues", "--no-table-headers", "consumers", "leader", "members")
    rows = [line.split("\t") for line in stack.compose("exec", "-T", RABBITMQ[0], *ask).splitlines()]
    leader, members = next((leader, members) for consumers, leader, members in rows if int(consumers))
    if members.count("@") != len(RABBITMQ):
        sys.exit(f"the replicas of the queue are {members}")
    stack.compose("kill", leader.partition("@")[2])


# {% endif %}
CLUSTERED = {
    # The standby is promoted by hand: the stack has nothing that decides that by itself.
    "database-promote": killed("db", failures=[UNAVAILABLE])._replace(
        strike=lambda stack: stack.compose("kill", stack.primary),
        repair=promote,
        restore=make_standby,
    ),
    # {% if cookiecutter.caching %}
    "cache-node-kill": killed(*REDIS, cache_away=True)._replace(strike=kill_node_with_keys),
    # {% endif %}
    # {% if cookiecutter.queued_writes %}
    "broker-leader-kill": killed(*RABBITMQ)._replace(strike=kill_leader_of_queue),
    # {% endif %}
}


def main() -> int:
    """Run the drills that are named, or all of them."""
    return run_in(partial(Stack, cluster=True), CLUSTERED, program="make drill-clusters", about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
