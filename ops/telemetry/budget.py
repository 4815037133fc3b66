from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The limit of each stage of a request, in seconds."""

    middleware: float
    auth: float
    db: float
    serialisation: float
    response: float

    @property
    def total(self) -> float:
        return float(sum(astuple(self)))
