"""What every section of a scenario is made of: strict numbers, closed frozen models, and one-of choices."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator


def whole(value: object) -> object:
    """`1e6` and `2.0` are whole numbers too; anything else is left to the type's own check."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# The largest and smallest numbers that a scenario may hold: generous, beyond any service, and inside what 64 bits, a
# few GB and a double can carry through every formula. Where nothing narrower is said, counts end at 1e12 and other
# numbers at 1e9.
MOST_GPUS: Final = 100_000
"""Of a worker, and of a whole pool: about the largest clusters of 2026. A simulated worker takes some KB."""
MOST_EXPERT_RANKS: Final = 2048
"""Of an EP group, and replicas in it: six times the largest that is published (EP320); placing them takes seconds."""
MOST_TOKENS: Final = 10**7
"""Of a prompt, an answer, a chunk or a block: ten times the longest context that is on sale."""
MOST_SECONDS: Final = 1e9
"""Of a run, a promise, or anything else that lasts: 30 years."""
LEAST_RATE_PER_S, MOST_RATE_PER_S = 1e-6, 1e6
"""Of arrivals: a request in eleven days, and a hundred times what the largest services were seen to answer."""
MOST_GB: Final = 1e9
"""Of a cache: an exabyte."""
MOST_SEQUENCES: Final = 10**6
"""Running on a GPU: a thousand times what engines take."""


def unit(name: str) -> dict[str, JsonValue]:
    """For the schema of a number that is no mere count or share: the unit that messages name beside its bounds."""
    return {"unit": name}


# Numbers are strict: neither the text "8" nor `true` is one.
WholeNumber = BeforeValidator(whole)
GpuCount = Annotated[int, Field(ge=1, le=MOST_GPUS, strict=True), WholeNumber]
ExpertRanks = Annotated[int, Field(ge=1, le=MOST_EXPERT_RANKS, strict=True), WholeNumber]
Replicas = Annotated[int, Field(ge=0, le=MOST_EXPERT_RANKS, strict=True), WholeNumber]
SequenceCount = Annotated[int, Field(ge=1, le=MOST_SEQUENCES, strict=True), WholeNumber]
TokenCount = Annotated[
    int, Field(ge=1, le=MOST_TOKENS, strict=True, json_schema_extra=unit("tokens")), WholeNumber
]
Seconds = Annotated[
    float, Field(ge=0, le=MOST_SECONDS, allow_inf_nan=False, strict=True, json_schema_extra=unit("s"))
]
PositiveSeconds = Annotated[
    float, Field(gt=0, le=MOST_SECONDS, allow_inf_nan=False, strict=True, json_schema_extra=unit("s"))
]
Rate = Annotated[
    float,
    Field(
        ge=LEAST_RATE_PER_S,
        le=MOST_RATE_PER_S,
        allow_inf_nan=False,
        strict=True,
        json_schema_extra=unit("per second"),
    ),
]
Spread = Annotated[float, Field(ge=0, le=10, strict=True)]
"""Sigma of a lognormal: at 10 one expert of 256 has everything; beyond some 100 a double overflows."""
GB = Annotated[float, Field(ge=0, le=MOST_GB, allow_inf_nan=False, strict=True, json_schema_extra=unit("GB"))]
PositiveInt = Annotated[int, Field(ge=1, le=10**12, strict=True), WholeNumber]
NonNegativeInt = Annotated[int, Field(ge=0, le=10**12, strict=True), WholeNumber]
WholeTokens = Annotated[
    int, Field(ge=0, le=10**12, strict=True, json_schema_extra=unit("tokens")), WholeNumber
]
"""Of many prompts together."""
PositiveFloat = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False, strict=True)]
NonNegativeFloat = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False, strict=True)]
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
FileName = Annotated[str, Field(min_length=1, json_schema_extra={"file": True})]
"""A name of the catalog, or a file; the loader reads a file's name relative to the scenario that names it."""


class Section(BaseModel):
    """A part of a scenario: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    displaces: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Keys that a key takes the place of: an override that names one drops the others from its base."""

    directives: ClassVar[tuple[str, ...]] = ()
    """Keys of a file that the loader obeys and takes out, such as `extends`."""
    foreign: ClassVar[Mapping[str, str]] = {}
    """Keys that tell a file of another kind, with what it is."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, value: object) -> object:
        """`key: null`, or a key with nothing after it, means its default."""
        if not isinstance(value, dict):
            return value
        return {key: item for key, item in value.items() if item is not None or key not in cls.model_fields}


class OneOf(Section):
    """A section of which exactly one key is given: its kind."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Every kind displaces the others."""
        kinds = tuple(cls.model_fields)
        cls.displaces = {kind: tuple(other for other in kinds if other != kind) for kind in kinds}

    @model_validator(mode="after")
    def _exactly_one(self) -> "OneOf":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            kinds = ", ".join(type(self).model_fields)
            raise ValueError(f"expected exactly one of {kinds}; got {' and '.join(given) or 'none'}")
        return self
