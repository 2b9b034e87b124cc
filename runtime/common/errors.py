"""The exceptions that dynamic-tinybert raises.

DynamicTinyBertError
├── InvalidInputError (ValueError)     an argument of a call: text, token ids, options
├── LengthConfigError (ValueError)     a length configuration that is malformed or unknown to the bundle
├── DataError (ValueError)             a question-answering data file
├── BundleError
│   ├── BundleNotFoundError            no bundle at that place
│   ├── BundleCorruptError             truncated, edited or incomplete
│   ├── BundleFormatError              a newer format, or not one of our bundles
│   └── BundleExistsError              the output path exists already
├── CheckpointError                    a PyTorch checkpoint that cannot be exported
├── CalibrationError                   a calibration found nothing, or an unfinished one is in the way
├── TrainingError                      a training diverged, or an unfinished one is in the way
├── ParityError                        the exported graph does not compute what the checkpoint does
├── ExtensionError                     the C++ extension is missing or was built for another OpenVINO
├── InferenceError                     OpenVINO refused or failed to run the graph
├── OverloadedError                    a service has as many requests waiting as it accepts
├── DeadlineExceededError (TimeoutError)   a request was not answered by its deadline
├── ClosedError                        a service is closed, or closes and takes no further requests
├── StartingError                      a service has not loaded its model yet
├── WorkerLostError                    the process that ran a request ended
├── StorageError (OSError)             a file could not be written
└── MissingExtraError (ImportError)    an optional part of the package is not installed
"""


class DynamicTinyBertError(Exception):
    """Base of all errors of this package."""


class InvalidInputError(DynamicTinyBertError, ValueError):
    """An argument of a call is invalid."""


class LengthConfigError(DynamicTinyBertError, ValueError):
    """A length configuration is malformed, does not fit the model, or is unknown to the bundle."""


class DataError(DynamicTinyBertError, ValueError):
    """A data file cannot be read, or a question in it cannot be used."""


class BundleError(DynamicTinyBertError):
    """A bundle cannot be used."""


class BundleNotFoundError(BundleError):
    """There is no bundle at the given place."""


class BundleCorruptError(BundleError):
    """A bundle is truncated, edited or incomplete."""


class BundleFormatError(BundleError):
    """A bundle has a newer format than this release reads, or is not one of our bundles."""


class BundleExistsError(BundleError):
    """The output path of a bundle exists already."""


class CheckpointError(DynamicTinyBertError):
    """A PyTorch checkpoint cannot be exported."""


class CalibrationError(DynamicTinyBertError):
    """A calibration found no length configuration, or another one is unfinished at the same place."""


class TrainingError(DynamicTinyBertError):
    """A training diverged, or another one is unfinished at the same place."""


class ParityError(DynamicTinyBertError):
    """An exported graph differs from its checkpoint by more than is allowed."""


class ExtensionError(DynamicTinyBertError):
    """The C++ extension is missing or was built for another OpenVINO."""


class InferenceError(DynamicTinyBertError):
    """OpenVINO refused or failed to run a graph."""


class OverloadedError(DynamicTinyBertError):
    """A service refuses a request, because as many wait already as it accepts.

    Attributes:
        retry_after_s: Seconds in which the requests accepted so far will be answered, estimated from the time that
            earlier ones took; None if none has been answered yet.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceededError(DynamicTinyBertError, TimeoutError):
    """A request was not answered by its deadline."""


class ClosedError(DynamicTinyBertError):
    """A service is closed, or is being closed and takes no further requests."""


class StartingError(DynamicTinyBertError):
    """A service has not loaded its model yet."""


class WorkerLostError(DynamicTinyBertError):
    """The process that ran a request ended before it was done, and so did the one that tried it again."""


class StorageError(DynamicTinyBertError, OSError):
    """A file could not be written."""


class MissingExtraError(DynamicTinyBertError, ImportError):
    """An optional part of the package is not installed."""
