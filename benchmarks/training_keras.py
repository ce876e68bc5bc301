"""The Keras way: images from the folder and through the whole network in every epoch.

Started by ``training.py``; takes a job as JSON and prints what it measured as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import keras
import tensorflow as tf
from keras import layers


class Stopwatch(keras.callbacks.Callback):
    """The seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, _epoch: int, _logs: object = None) -> None:
        """Start the watch."""
        self._start = time.perf_counter()

    def on_epoch_end(self, _epoch: int, _logs: object = None) -> None:
        """Stop the watch."""
        self.seconds.append(time.perf_counter() - self._start)


def main(job: dict) -> dict:
    images = keras.utils.image_dataset_from_directory(
        job["folder"],
        label_mode="categorical",
        image_size=(job["size"], job["size"]),
        batch_size=32,
        verbose=False,
    )
    prepare = keras.applications.vgg16.preprocess_input
    images = images.map(lambda x, y: (prepare(x), y)).prefetch(tf.data.AUTOTUNE)
    base = keras.applications.VGG16(
        weights=None, include_top=False, input_shape=(job["size"], job["size"], 3)
    )
    if job["task"] == "frozen":
        base.trainable = False
    else:
        for layer in base.layers:
            layer.trainable = layer.name.startswith("block5")
    model = keras.Sequential(
        [
            base,
            layers.Flatten(),
            layers.Dense(512, "relu"),
            layers.Dense(512, "relu"),
            layers.Dense(5, "softmax"),
        ]
    )
    model.compile(
        keras.optimizers.SGD(job["lr"]), loss="categorical_crossentropy", metrics=["accuracy"]
    )
    watch = Stopwatch()
    model.fit(images, epochs=1 + job["epochs"], verbose=0, callbacks=[watch])
    return {"epochs": watch.seconds[1:], "first_epoch": watch.seconds[0]}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
