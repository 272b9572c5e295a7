"""What `simprompt serve` answers, as JSON; see `bodies` for what it is asked."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Choice(BaseModel):
    """A class name and its probability."""

    name: str
    probability: float


class Answer(BaseModel):
    """What one prompt makes of one image."""

    prompt: str
    choices: list[Choice] = Field(description="the likeliest first")
    certainty: float | None = Field(
        description='what a threshold for "none of these" is compared with: the probability of the '
        "first choice with the prompt's own classes among the candidates; null: it cannot be told"
    )


class ImageAnswer(BaseModel):
    """What all prompts make of one image."""

    image: str = Field(description="the file's name, as it was sent")
    width: int = Field(description="pixels; 0 where the image could not be read")
    height: int
    answers: list[Answer] = Field(description="none where the image could not be read")
    error: str | None = Field(None, description="why it could not be read")


class Prediction(BaseModel):
    """The answer to images and names."""

    names: list[str]
    images: list[ImageAnswer]
    seconds: float


class Similarities(BaseModel):
    """Cosines between the names, under each prompt."""

    names: list[str]
    matrices: dict[str, list[list[float]]] = Field(description="prompt -> cosines [C][C]")


class Wrong(BaseModel):
    """The answer to a request that cannot be met."""

    detail: str = Field(description="one sentence: what was wrong and what to do")


class About(BaseModel):
    """A prompt that is served."""

    name: str
    method: str
    model: str
    sar: bool
    classes: list[str]
    new_classes: list[str]
    unknown: float = Field(description='its threshold for "none of these"; 0: not calibrated')


class Info(BaseModel):
    """What is served, and its limits."""

    version: str
    prompts: list[About]
    names: list[str] = Field(description="what the page begins with")
    limits: dict[str, float]
