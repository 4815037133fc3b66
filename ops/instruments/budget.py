from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What each stage of a request may take, in seconds."""

    middleware: float
    auth: float
    db: float
    serialisation: float
    response: float

    @property
    def total(self) -> float:
        return float(sum(astuple(self)))
