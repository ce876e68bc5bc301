"""The bodies of requests and answers, of which ``/openapi.json`` is made.

The Open Inference Protocol v2 has its own words: tensors with name, shape, datatype and data.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """Why a request was refused."""

    code: str = Field(description="A stable code such as IMG-TRUNCATED or SERVER-BUSY.")
    message: str
    error: str | None = Field(None, description="The message, where the protocol v2 wants it.")


class Entry(BaseModel):
    """A class and its probability."""

    label: str
    probability: float


class Near(BaseModel):
    """A training image that is near."""

    model_config = ConfigDict(extra="allow")
    label: str
    distance: float
    image: str | None = Field(None, description="The image as a data: address.")


class Answered(BaseModel):
    """What is known of one image, or why it cannot be used."""

    model_config = ConfigDict(extra="allow")
    file: str = Field(description="The name that the client gave it.")
    top: list[Entry] | None = Field(None, description="The most probable classes, in order.")
    unknown: bool | None = Field(None, description="Whether it is like nothing it has learned.")
    labels: list[str] | None = Field(None, description="One of these, with the promised coverage.")
    nearest: list[Near] | None = Field(None, description="The most similar training images.")
    error: str | None = Field(None, description="A code such as IMG-TRUNCATED.")
    message: str | None = None


class Predicted(BaseModel):
    """What is known of the images of a request, in their order."""

    model: str
    maps: bool = Field(False, description="Whether POST /map shows what speaks for a class.")
    images: list[Answered]


class Map(BaseModel):
    """Which parts of an image speak for a class."""

    label: str
    view: str = Field(description="What the network sees of the image, as a data: address.")
    map: str = Field(description="What is laid over it: dark where nothing speaks for the class.")


class Tensor(BaseModel):
    """A tensor of an answer."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class TensorFacts(BaseModel):
    """What a tensor must look like; -1 is any size."""

    name: str
    shape: list[int]
    datatype: str


class ImageTensor(BaseModel):
    """The images: files in base64 (BYTES, [n]) or the pixels of one ([height, width, 3])."""

    name: Literal["image"]
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=3)]
    datatype: Literal["BYTES", "UINT8"]
    data: list[Any]
    parameters: dict[str, Any] | None = None


class AskedOutput(BaseModel):
    """An output that is wanted."""

    name: Literal["probabilities", "label"]
    parameters: dict[str, Any] | None = None


class InferRequest(BaseModel):
    """A request of the protocol."""

    id: str | None = Field(None, max_length=200)
    inputs: Annotated[list[ImageTensor], Field(min_length=1, max_length=1)]
    outputs: list[AskedOutput] | None = Field(None, max_length=2)
    parameters: dict[str, Any] | None = None


class InferResponse(BaseModel):
    """An answer of the protocol."""

    model_name: str
    id: str | None = None
    outputs: list[Tensor]


class ServerFacts(BaseModel):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class ModelFacts(BaseModel):
    """The model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorFacts]
    outputs: list[TensorFacts]


class Live(BaseModel):
    """Whether the server is there."""

    live: bool


class Ready(BaseModel):
    """Whether the model answers."""

    name: str
    ready: bool
