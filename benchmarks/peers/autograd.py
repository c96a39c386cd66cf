"""The same sensitivity without closed forms: FastAPI, and torch differentiates at every request, on one thread."""

import argparse

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI
from plans import autograd
from pydantic import BaseModel
from subject import network


class Question(BaseModel):
    """Rows to predict."""

    instances: list[list[float]]


class Answer(BaseModel):
    """A value or a list a row of each output."""

    probabilities: list[list[float]]
    gradient_norm: list[float]
    margin_gradient_norm: list[float]


def create_app() -> FastAPI:
    """The application over the network."""
    torch.set_num_threads(1)
    subject = network().requires_grad_(requires_grad=False)  # only the input is differentiated by
    app = FastAPI()

    @app.post("/predict")
    async def predict(question: Question) -> Answer:
        outputs = autograd(subject, np.array(question.instances, np.float32))()
        probabilities, gradient_norm, margin_gradient_norm = (values.tolist() for values in outputs)
        return Answer(
            probabilities=probabilities, gradient_norm=gradient_norm, margin_gradient_norm=margin_gradient_norm
        )

    return app


def main() -> None:
    """Serve the network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(create_app(), port=parser.parse_args().port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
