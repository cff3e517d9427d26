"""How many jobs a site takes at once, found out from what it refuses.

Sites limit the jobs that a user, an account or a quality of service may have submitted, and the size of an array. None
of that is known beforehand, and other jobs of the same user count. An array that is too large is halved until it fits;
where not even a single job is taken, the site is asked again when jobs have ended, or after a while.
"""

from __future__ import annotations

import logging
import re
import time
from enum import Enum

log = logging.getLogger(__name__)

_LONGEST_WAIT_SECONDS = 300.0
# Names of limits, which sbatch prints above its last line; where it prints none, that line speaks of all of them.
_NUMBER = re.compile(
    r"\w(SubmitJob|JobsLimit|JobsPer)|\bQOSJobLimit|temporarily unable to accept job|Resource temporarily unavailable|"
    r"(RPC|[Jj]ob) limit exceeded"
)
# A single job is too large for these, whatever else runs.
_ONE_JOB = re.compile(r"\b(QOS|Assoc)\w*(PerJob|PerNode|WallDuration)|\b(QOS|Assoc)Min")
_EITHER = re.compile(r"\b(QOS|Assoc)(Max|Grp)|\bMax\w+PerAccount|job submit limit|accounting(/QOS)? policy")
_ARRAY = re.compile(r"Invalid job array specification")


class Limit(Enum):
    """What a refusal of sbatch says of a limit."""

    NUMBER = "number"  # of jobs that are submitted
    NUMBER_OR_SIZE = "number or size"  # sbatch did not say which
    ARRAY = "array"  # of jobs in one array


def limit_in(message: str) -> Limit | None:
    """The limit on numbers of jobs that sbatch's complaint names; None where it complains of something else."""
    if _ARRAY.search(message):
        return Limit.ARRAY
    if _NUMBER.search(message):
        return Limit.NUMBER
    if _ONE_JOB.search(message):
        return None
    return Limit.NUMBER_OR_SIZE if _EITHER.search(message) else None


class SubmitLimits:
    """The size that arrays may have now, and when to ask again after a refusal. Waiting is no failure of a job."""

    def __init__(self, max_array: int, poll_seconds: float) -> None:
        self._largest = self.array_size = max_array
        self._first_wait = self._wait = poll_seconds
        self._not_before = 0.0
        self._told = False

    def waiting(self) -> bool:
        """Whether the site refused even a single job a short while ago."""
        return time.monotonic() < self._not_before

    def accepted(self) -> None:
        self.array_size = min(2 * self.array_size, self._largest)
        self._wait = self._first_wait
        if self._told:
            log.info("the site takes jobs again")
        self._told = False

    def jobs_ended(self) -> None:
        """There may be room again."""
        self._not_before = 0.0

    def refused(self, limit: Limit, jobs: int, message: str, *, alone: bool) -> bool:
        """Learn from the refusal of an array of so many jobs; whether that is all that follows from it.

        False: the array was a single job and no number of jobs is why it was refused. `alone`: this user has no jobs.
        """
        if jobs > 1:
            self.array_size = max(1, jobs // 2)
            if limit is Limit.ARRAY:
                self._largest = self.array_size
            return True
        if limit is Limit.ARRAY or (limit is Limit.NUMBER_OR_SIZE and alone):
            return False
        self.array_size = 1
        self._not_before = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, max(_LONGEST_WAIT_SECONDS, self._first_wait))
        if not self._told:
            reason = message.replace("sbatch: error: ", "")
            log.info("the site takes no more jobs for now (%s); the others wait until some have ended", reason)
        self._told = True
        return True
