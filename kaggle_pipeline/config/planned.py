"""What ``plan`` predicted of a stage, kept in the experiment to stand beside what happened."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PlannedStage:
    """One stage's prediction; the report sets it beside the stage's own figures."""

    stage: str
    """Such as `prepare` or `image`."""
    seconds: float
    """Predicted time."""
    memory_mb: float
    """Predicted peak memory in MiB."""
    cpu_seconds: float = 0.0
    """Predicted seconds of all cores together, however busy the machine is."""
    device_mb: float = 0.0
    """Predicted peak of an accelerator's own memory in MiB, where that is known."""
    disk_mb: float = 0.0
    """Predicted size of what it leaves, in MiB."""
