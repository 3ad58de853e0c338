"""Members of a `Group` within one process, for tests: each as a worker process would have it."""

import contextlib
import os
from collections.abc import Iterator

from mpserve.framework.group import Group


def member(group: Group, index: int) -> Group:
    """What a process that inherited the descriptors makes of them."""
    invitation = group.invitation()
    copies = {
        "memory": os.dup(invitation["memory"]),
        "wakes": [(fd, fd) for fd in (os.dup(read) for read, _ in invitation["wakes"])],
        "boxes": [(os.dup(taking), os.dup(putting)) for taking, putting in invitation["boxes"]],
        "board": os.dup(invitation["board"]) if invitation["board"] >= 0 else -1,
    }
    return Group.attach(copies, index)


@contextlib.contextmanager
def members(*cores: int, board: bool = False) -> Iterator[tuple[Group, list[Group]]]:
    """The supervisor's group and one for each worker, all of which serve."""
    group = Group.create(cores, board=board)
    for index in range(len(cores)):
        group.begin(index, 100 + index)
        group.serves(index)
    workers = [member(group, index) for index in range(len(cores))]
    try:
        yield group, workers
    finally:
        for each in (*workers, group):
            each.close()
