"""The batches of a run in their order, drawn by further processes while the network learns from those before.

An example is a function of its number and of the task's state. So what was drawn ahead holds until that state changes.
"""

from collections.abc import Iterator, Sequence

from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader, Dataset

from training.processes import Processes
from training.tasks.task import Batch, Task

#: Batches that each process has ready at most.
_READY = 4


class Batches:
    """This process's share of each step's batch; `size` is the whole batch's, `last` the step at which the run ends."""

    def __init__(self, task: Task, here: Processes, *, size: int, last: int, processes: int = 0) -> None:
        """`processes` further ones draw; with 0 each batch is drawn when it is asked for."""
        self._drawn, self._last, self._processes = _Drawn(task, here, size), last, processes
        self._ahead: Iterator[Batch] | None = None
        self._next = -1

    def __call__(self, step: int) -> Batch:
        """The batch of a step; the next ones are drawn meanwhile."""
        if self._ahead is not None and step == self._next:
            batch = next(self._ahead)
        else:
            # Drawn here: what a task does once, before its first example, is then done for all processes.
            batch = self._drawn[step]
            self._ahead = self._begun(step + 1)
        self._next = step + 1
        return batch

    def forget(self) -> None:
        """Draw anew: the task's state is another."""
        self._ahead = None

    def _begun(self, step: int) -> Iterator[Batch] | None:
        if not self._processes or step >= self._last:
            return None
        # Forked: the task's lungs are gigabytes, which nobody changes.
        loader = DataLoader(
            self._drawn,
            sampler=range(step, self._last),
            batch_size=None,
            num_workers=self._processes,
            prefetch_factor=_READY,
            multiprocessing_context="fork",
            worker_init_fn=_alone,
        )
        return iter(loader)


class _Drawn(Dataset[Batch]):
    """Batches by step."""

    def __init__(self, task: Task, here: Processes, size: int) -> None:
        self._task, self._here, self._size = task, here, size

    def __getitem__(self, step: int) -> Batch:
        numbers: Sequence[int] = range(step * self._size, (step + 1) * self._size)
        return self._task.batch(self._here.share(numbers))


def _alone(_number: int) -> None:
    """Leave the other cores to the others."""
    threadpool_limits(1)
