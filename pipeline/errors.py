"""Every error this program raises on purpose, in one tree.

PipelineError                       1   something went wrong; the message says what to do next
├── UsageError                      2   the command line cannot be carried out as typed
│   └── ConfigError                 2   a configuration file or variable is wrong
├── StoreError                      1   the data folder cannot be used
│   ├── CorruptStore                1   a file under the data folder is not what it should be
│   ├── DiskFull                    1   no space left where the data folder lies
│   └── Locked                     11   another run holds the collection
├── SourceError                     1   the folder of documents cannot be scanned
│   └── TooManyDeletions            1   more files vanished than a run may drop
├── DocumentError                   –   one document cannot be read: a row in `rejects`; the run ends with 3
├── WorkerError                     –   a worker process failed on one task: also a row in `rejects`
│   ├── WorkerTimeout               –   it ran past its deadline and was killed
│   ├── WorkerCrash                 –   it died
│   └── WorkerMemory                –   it went over its memory limit
├── ModelError                      5   a model server did not do what was asked
│   ├── ServerUnreachable           5   no answer at all; a later try may help
│   ├── TransientFault              5   an answer that another try may mend, whatever the texts were (503, a cut)
│   │   ├── RunnerFault             5   it failed over these texts (a runner's EOF): perhaps one of them is to blame
│   │   └── BadVectors              5   vectors that cannot be right (zeros, NaN, too few): perhaps a poisoned runner
│   ├── TextRejected                –   the server refuses this batch for good: bisect it, reject the culprit
│   ├── ServerRefused               1   a request that no retry mends (authentication, wrong URL)
│   ├── ModelMissing                6   the server does not have the model
│   └── ModelMismatch              12   the model is not the one that built the collection
├── NoIndex                        10   nothing has been indexed yet
├── IndexMismatch                  12   the index was built otherwise than the question assumes
├── QualityDropped                  1   a new index finds less than the published one: it was not published
├── NoAnswer                        4   the documents do not answer the question
└── Interrupted                   130   the user stopped the run; what was finished is kept

Every class pickles (it crosses process boundaries): state is `args` alone.
"""

from __future__ import annotations

from typing import ClassVar

# The remedy for every damaged file below the data folder: what cannot be saved is dropped, and made again.
MEND = "Run `pipeline check --fix`, then `pipeline run`: what is lost is made again."


def install_extra(name: str) -> str:
    """How to install an extra of this program. By its folder: its bare name would be looked up in a package index."""
    return f"In this program's folder, with its environment active: pip install -e '.[{name}]'"


class PipelineError(Exception):
    """Base of all: `message` says what happened, `remedy` what to type or change."""

    exit_code: ClassVar[int] = 1
    retry_helps: ClassVar[bool] = False

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)

    @property
    def message(self) -> str:
        return str(self.args[0])

    @property
    def remedy(self) -> str:
        return str(self.args[1])

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


def in_a_line(message: str, remedy: str) -> str:
    """What happened and what to do about it, for a list of failures."""
    return f"{message}{'' if message.endswith(('.', '!', '?')) else '.'} {remedy}" if remedy else message


class UsageError(PipelineError):
    exit_code = 2


class ConfigError(UsageError):
    pass


class StoreError(PipelineError):
    pass


class CorruptStore(StoreError):
    pass


class DiskFull(StoreError):
    pass


class Locked(StoreError):
    exit_code = 11
    retry_helps = True


class SourceError(PipelineError):
    pass


class TooManyDeletions(SourceError):
    pass


class DocumentError(PipelineError):
    """One document cannot be read. `kind` is a short stable word that the reports count by."""

    def __init__(self, kind: str, message: str, remedy: str = "") -> None:
        Exception.__init__(self, kind, message, remedy)

    @property
    def kind(self) -> str:
        return str(self.args[0])

    @property
    def message(self) -> str:
        return str(self.args[1])

    @property
    def remedy(self) -> str:
        return str(self.args[2])


class WorkerError(PipelineError):
    kind: ClassVar[str] = "worker"


class WorkerTimeout(WorkerError):
    kind = "timeout"


class WorkerCrash(WorkerError):
    kind = "crash"


class WorkerMemory(WorkerError):
    kind = "memory"


class ModelError(PipelineError):
    exit_code = 5


class ServerUnreachable(ModelError):
    retry_helps = True


class TransientFault(ModelError):
    retry_helps = True


class RunnerFault(TransientFault):
    pass


class BadVectors(TransientFault):
    pass


class TextRejected(ModelError):
    """The server refuses the batch for good because of a text in it. `kind`: "too_long", "poison", ..."""

    def __init__(self, kind: str, message: str, remedy: str = "") -> None:
        Exception.__init__(self, kind, message, remedy)

    @property
    def kind(self) -> str:
        return str(self.args[0])

    @property
    def message(self) -> str:
        return str(self.args[1])

    @property
    def remedy(self) -> str:
        return str(self.args[2])


class ServerRefused(ModelError):
    exit_code = 1


class ModelMissing(ModelError):
    exit_code = 6


class ModelMismatch(ModelError):
    exit_code = 12


class NoIndex(PipelineError):
    exit_code = 10


class IndexMismatch(PipelineError):
    exit_code = 12


class QualityDropped(PipelineError):
    pass


class NoAnswer(PipelineError):
    exit_code = 4


class Interrupted(PipelineError):
    exit_code = 130
